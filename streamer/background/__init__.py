"""Years of background from a day: a plan of timeslides, and its workers."""
