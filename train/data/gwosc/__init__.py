"""Strain and segments from GWOSC."""
