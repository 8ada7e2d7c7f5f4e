"""Units of time."""

JULIAN_YEAR = 365.25 * 86400
"""Length of the year that rates are counted in, s."""
