"""What the results service answers, from what its database holds."""
