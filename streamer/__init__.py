"""Strain to requests, scores to events, events to the results API."""
