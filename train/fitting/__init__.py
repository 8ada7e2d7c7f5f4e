"""Training: batches, loss, optimizer, and resuming after an interruption."""
