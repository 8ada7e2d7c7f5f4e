"""Pauses between tries that grow."""


class Backoff:
    """Exponential back-off: each pause is twice the one before, up to a ceiling.

    Args:
        first: First pause, s.
        last: Longest pause, s.
    """

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._next = first

    def next(self) -> float:
        """The pause before the next try, s."""
        pause = self._next
        self._next = min(2 * pause, self._last)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again, after a try that succeeded."""
        self._next = self._first
