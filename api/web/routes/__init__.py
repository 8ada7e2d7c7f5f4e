"""Routes: each translates a request to `analysis` or `storage`, and back."""
