"""Open strain from the Gravitational Wave Open Science Center (GWOSC)."""
