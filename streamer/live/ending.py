"""The end of a search, which a signal asks for."""

import time

POLL_LENGTH = 0.02
"""Longest time until an end that was asked for is noticed, s."""


class Ending:
    """Whether the search is to end; waits that it cuts short.

    Not an event of ``threading``: its lock may be held by what a signal interrupts.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Ask for the end; may be called by a signal's handler."""
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked

    def wait(self, length: float) -> bool:
        """Wait for a time, s, or until the end is asked for; return whether it is."""
        until = time.monotonic() + length
        while not self._asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_LENGTH))
        return self._asked
