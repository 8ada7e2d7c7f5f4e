"""Candidates as they come: one for each signal, once all of it has been seen."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS

SAME_NS = NANOSECONDS // 2
"""Mergers that are no further apart are one, ns."""


@dataclass(frozen=True)
class Spotted:
    """A loud score.

    Attributes:
        time_ns: Estimated time of the merger at the first detector, GPS ns.
        statistic: The score.
        decided_ns: Right edge of the strain with which it was decided, GPS ns.
    """

    time_ns: int
    statistic: float
    decided_ns: int


class Spotter:
    """Finds the loud scores of one sequence.

    The loudest score above a threshold is a candidate once the kernel and its filter
    have passed the merger that it says: nothing that comes later looks at that signal.
    So a signal is one candidate, and it waits for no more than what its score needs;
    the events of the results, apart by the cluster's length, come later.

    Args:
        geometry: The analysis.
        t0_ns: GPS time of the sequence's first sample, ns.
    """

    def __init__(self, geometry: Geometry, t0_ns: int) -> None:
        self._t0_ns = t0_ns
        self._stride_ns = round(geometry.stride_length * NANOSECONDS)
        reach = geometry.kernel_length + geometry.fduration / 2
        self._reach_ns = round(reach * NANOSECONDS)
        self._best: tuple[float, int] | None = None
        self._told_ns = t0_ns - SAME_NS - 1

    def push(
        self,
        first: int,
        score: np.ndarray,
        delay: np.ndarray,
        valid: np.ndarray,
        threshold: float,
    ) -> Iterator[Spotted]:
        """Take the next scores, and tell the candidates that they decide.

        Args:
            first: Stride of the first score.
            score: [strides].
            delay: Time by which each right edge lags the merger, s, [strides].
            valid: [strides].
            threshold: What a score must reach.
        """
        for i in range(len(score)):
            edge_ns = self._t0_ns + (first + i + 1) * self._stride_ns
            if valid[i] and score[i] >= threshold:
                time_ns = edge_ns - round(float(delay[i]) * NANOSECONDS)
                # The last one's signal on its way out is not told once more.
                new = time_ns > self._told_ns + SAME_NS
                if new and (self._best is None or score[i] > self._best[0]):
                    self._best = float(score[i]), time_ns
            if self._best and edge_ns >= self._best[1] + self._reach_ns:
                yield self._told(edge_ns)

    def flush(self, edge_ns: int) -> Iterator[Spotted]:
        """End the sequence, and tell a candidate that was still open."""
        if self._best:
            yield self._told(edge_ns)

    def _told(self, edge_ns: int) -> Spotted:
        assert self._best is not None
        statistic, time_ns = self._best
        self._best, self._told_ns = None, time_ns
        return Spotted(time_ns, statistic, edge_ns)
