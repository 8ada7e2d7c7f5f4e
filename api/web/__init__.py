"""The results service over HTTP, and its page."""
