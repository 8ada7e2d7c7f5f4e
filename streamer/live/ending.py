"""A request to end the search, as a signal handler makes it."""

import time

POLL_LENGTH = 0.02
"""Interval at which a wait checks for the request, s."""


class Ending:
    """Flag that requests the end of the search; true once the end is requested.

    A ``threading.Event`` would not do: the code that a signal interrupts may hold its
    lock, and the handler would wait for it for ever.
    """

    def __init__(self) -> None:
        self._requested = False

    def request(self) -> None:
        """Request the end; safe to call in a signal handler."""
        self._requested = True

    def __bool__(self) -> bool:
        return self._requested

    def wait(self, length: float) -> bool:
        """Wait `length` seconds or until the request; return whether it was made."""
        until = time.monotonic() + length
        while not self._requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_LENGTH))
        return self._requested
