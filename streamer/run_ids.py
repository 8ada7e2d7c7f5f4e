"""Identifiers of runs."""

import secrets
import time


def new_run_id(prefix: str = "") -> str:
    """Make a unique run identifier from the UTC time and eight random hex digits."""
    now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{prefix}{now}-{secrets.token_hex(4)}"
