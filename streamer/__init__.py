"""Commands that have strain scored by Triton, and send events to the results API."""
