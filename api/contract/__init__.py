"""Request bodies and answers of the results service; clients may import them."""
