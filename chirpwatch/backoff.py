"""Exponential back-off between attempts."""


class Backoff:
    """Pauses between attempts: each is twice the one before, up to a ceiling.

    Args:
        first: First pause, s.
        last: Longest pause, s.
    """

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._next = first

    def next(self) -> float:
        """Return the pause before the next attempt, s."""
        pause = self._next
        self._next = min(2 * pause, self._last)
        return pause

    def reset(self) -> None:
        """Return to the first pause, after an attempt that succeeded."""
        self._next = self._first
