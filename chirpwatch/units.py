"""Units of time."""

JULIAN_YEAR = 365.25 * 86400
"""Julian year, in which rates are given, s."""
