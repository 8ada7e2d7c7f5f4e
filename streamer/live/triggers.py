"""Candidates as they come: one for each signal, once all of it has been seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

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

    The loudest score above a threshold is a candidate once the longest delay has passed
    since the merger that it says: no later score looks for a merger there. So a signal
    is one candidate, and it waits for no more than what its score needs. Kernels that
    still hold a part of it may be loud too: what they say is told only if it is louder.
    The events of the results, apart by the cluster's length, come later.

    Args:
        geometry: The analysis.
        longest_delay: The longest of the scores' delays, s.
        t0_ns: GPS time of the sequence's first sample, ns.
    """

    def __init__(self, geometry: Geometry, longest_delay: float, t0_ns: int) -> None:
        self._t0_ns = t0_ns
        self._stride_ns = round(geometry.stride_length * NANOSECONDS)
        self._reach_ns = round(longest_delay * NANOSECONDS)
        seen = geometry.kernel_length + geometry.fduration / 2
        self._seen_ns = round(seen * NANOSECONDS)
        self._best: tuple[float, int] | None = None
        self._told: tuple[float, int] | None = None

    def push(
        self,
        first: int,
        score: NDArray[Any],
        delay: NDArray[Any],
        valid: NDArray[Any],
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
                louder = self._best is None or score[i] > self._best[0]
                if louder and self._is_new(float(score[i]), time_ns):
                    self._best = float(score[i]), time_ns
            if self._best and edge_ns >= self._best[1] + self._reach_ns:
                yield self._tell(edge_ns)

    def flush(self, edge_ns: int) -> Iterator[Spotted]:
        """End the sequence, and tell a candidate that was still open."""
        if self._best:
            yield self._tell(edge_ns)

    def _is_new(self, score: float, time_ns: int) -> bool:
        """Whether a score is not the last candidate's signal on its way out."""
        if self._told is None:
            return True
        statistic, told_ns = self._told
        after_ns = time_ns - told_ns
        return after_ns > self._seen_ns or (after_ns > SAME_NS and score > statistic)

    def _tell(self, edge_ns: int) -> Spotted:
        assert self._best is not None
        statistic, time_ns = self._best
        self._best, self._told = None, self._best
        return Spotted(time_ns, statistic, edge_ns)
