"""What the results service keeps: the database, and writing to it."""
