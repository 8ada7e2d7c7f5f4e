"""Training: simulated strain, the network, its training and its validation."""
