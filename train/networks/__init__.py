"""The neural networks, their template bank, and their checkpoints."""
