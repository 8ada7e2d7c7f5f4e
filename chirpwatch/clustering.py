"""Clusters scores: the loudest one of its neighbourhood is an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chirpwatch.geometry import Geometry

CLUSTER_LENGTH = 8.0
"""An event is louder than every valid score within this time of it, s."""


def cluster_strides(geometry: Geometry) -> int:
    """Strides in ``CLUSTER_LENGTH``."""
    return round(CLUSTER_LENGTH * geometry.inference_sampling_rate)


def find_events(
    scores: NDArray[Any], reach: int, valid: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Find the scores that are events.

    A valid score is an event if no valid score within ``reach`` strides on either side
    is larger, and none before it in this range is equal: a plateau's first score is its
    event. A score that is not finite counts as not valid: it is not an event, and does
    not keep another score from being one.

    Args:
        scores: [..., strides], each row a sequence.
        reach: Strides on either side.
        valid: Whether each score is valid, same shape; None if all are.

    Returns:
        Whether each score is an event, bool, [..., strides].
    """
    usable = np.isfinite(scores) if valid is None else valid & np.isfinite(scores)
    masked = np.where(usable, scores, -np.inf)
    loudest = ndimage.maximum_filter1d(
        masked, 2 * reach + 1, mode="constant", cval=-np.inf
    )
    # The filter's window over the past alone, which ends one stride before.
    previous = np.full_like(masked, -np.inf)
    previous[..., 1:] = masked[..., :-1]
    earlier = ndimage.maximum_filter1d(
        previous,
        reach,
        mode="constant",
        cval=-np.inf,
        origin=(reach - 1) // 2,
    )
    events: NDArray[Any] = usable & (masked == loudest) & (masked > earlier)
    return events


@dataclass(frozen=True)
class ScoreEvent:
    """A score that is an event.

    Attributes:
        stride: Stride of the sequence.
        statistic: The score.
        delay: Time by which the score's right edge lags the estimated merger, s.
    """

    stride: int
    statistic: float
    delay: float


class Clusterer:
    """Finds the events of one sequence as its scores come in, by ``find_events``.

    Whether a score is an event depends on its neighbourhood alone, so pieces of any
    size give the same events.

    Args:
        reach: Strides on either side.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._score = np.empty(0)
        self._delay = np.empty(0)
        # The stride of `_score[0]`, and the first stride not yet decided.
        self._first = 0
        self._decided = 0

    @property
    def decided(self) -> int:
        """Number of strides, from the sequence's start, whose events are decided."""
        return self._decided

    def push(
        self, score: NDArray[Any], delay: NDArray[Any], valid: NDArray[Any]
    ) -> Sequence[ScoreEvent]:
        """Take the next scores, and return the events they decide.

        Args:
            score: [strides].
            delay: [strides].
            valid: Whether each score is valid, [strides].
        """
        self._score = np.append(self._score, np.where(valid, score, -np.inf))
        self._delay = np.append(self._delay, delay)
        return self._decide(self._first + len(self._score) - self._reach)

    def flush(self) -> Sequence[ScoreEvent]:
        """End the sequence, and return the events that were still open."""
        return self._decide(self._first + len(self._score))

    def _decide(self, until: int) -> Sequence[ScoreEvent]:
        if until <= self._decided:
            return []
        strides = np.arange(self._first, self._first + len(self._score))
        found = find_events(self._score, self._reach)
        found &= (strides >= self._decided) & (strides < until)
        events = [
            ScoreEvent(int(strides[i]), float(self._score[i]), float(self._delay[i]))
            for i in np.flatnonzero(found)
        ]
        self._decided = until
        drop = max(0, until - self._reach - self._first)
        self._score, self._delay = self._score[drop:], self._delay[drop:]
        self._first += drop
        return events
