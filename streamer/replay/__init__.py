"""``chirpwatch replay``: scores strain from files, with timeslides and injections."""
