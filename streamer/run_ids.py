"""Identifiers of runs."""

import secrets
import time


def new_run_id(prefix: str = "") -> str:
    """An identifier that no other run has: the time, UTC, and eight random digits."""
    now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{prefix}{now}-{secrets.token_hex(4)}"
