"""Scores to events: the loudest score of its neighbourhood is an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLUSTER_LENGTH = 8.0
"""An event is louder than every valid score within this time of it, s."""


@dataclass(frozen=True)
class Event:
    """A local maximum of the score.

    Attributes:
        stride: Stride of the sequence.
        statistic: Its score.
        delay: Time by which the score's right edge lags the estimated merger, s.
    """

    stride: int
    statistic: float
    delay: float


class Clusterer:
    """Finds the events of one sequence as its scores come in.

    A valid score is an event if no other valid one within ``cluster_size`` strides on
    either side is larger, and no earlier one of them is equal. This is a property of
    the scores alone, so pieces of any size give the same events; shoulders next to a
    louder peak are none, and of a plateau the first score is the event.

    Args:
        cluster_size: Strides on either side.
    """

    def __init__(self, cluster_size: int) -> None:
        self.cluster_size = cluster_size
        self._score = np.empty(0)
        self._delay = np.empty(0)
        # The stride of `_score[0]`, and the first stride not yet decided.
        self._first = 0
        self._decided = 0

    @property
    def decided(self) -> int:
        """Strides, from the sequence's start, whose events are all known."""
        return self._decided

    def push(
        self, score: NDArray[Any], delay: NDArray[Any], valid: NDArray[Any]
    ) -> Sequence[Event]:
        """Take the next scores, and return the events they decide.

        Args:
            score: [strides].
            delay: [strides].
            valid: [strides]; a score that is not valid is no event and hides none.
        """
        self._score = np.append(self._score, np.where(valid, score, -np.inf))
        self._delay = np.append(self._delay, delay)
        return self._decide(self._first + len(self._score) - self.cluster_size)

    def flush(self) -> Sequence[Event]:
        """End the sequence, and return the events that were still open."""
        return self._decide(self._first + len(self._score))

    def _decide(self, until: int) -> Sequence[Event]:
        if until <= self._decided:
            return []
        width = 2 * self.cluster_size + 1
        loudest = ndimage.maximum_filter1d(
            self._score, width, mode="constant", cval=-np.inf
        )
        # The filter's window over the past alone, which ends one stride before.
        earlier = ndimage.maximum_filter1d(
            np.append(-np.inf, self._score[:-1]),
            self.cluster_size,
            mode="constant",
            cval=-np.inf,
            origin=(self.cluster_size - 1) // 2,
        )
        peak = (self._score == loudest) & (self._score > earlier)
        peak &= np.isfinite(self._score)
        strides = np.arange(self._first, self._first + len(self._score))
        peak &= (strides >= self._decided) & (strides < until)
        events = [
            Event(int(strides[i]), float(self._score[i]), float(self._delay[i]))
            for i in np.flatnonzero(peak)
        ]
        self._decided = until
        drop = max(0, until - self.cluster_size - self._first)
        self._score, self._delay = self._score[drop:], self._delay[drop:]
        self._first += drop
        return events
