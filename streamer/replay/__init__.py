"""Strain from files through the served models: background and injections."""
