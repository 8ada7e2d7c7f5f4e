"""Checkpoint to Triton model repository: ONNX models, configurations, parity report."""
