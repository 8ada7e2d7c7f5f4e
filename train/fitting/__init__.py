"""Training: batches, loss, optimizer, and going on after a kill."""
