"""The embedded Triton server and its ONNX Runtime backend."""
