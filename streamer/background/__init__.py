"""``chirpwatch background``: a plan of timeslides, and the workers that run it."""
