"""Evaluation of networks: validation, matched-filter limits, comparison, reports."""
