"""The embedded Triton server, and the ONNX Runtime backend it serves with."""
