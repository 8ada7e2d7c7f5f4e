"""What the results service takes and answers: what its clients may import."""
