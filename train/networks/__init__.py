"""The networks, the bank of templates, and their checkpoints."""
