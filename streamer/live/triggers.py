"""Triggers: loud scores, one for each signal, as soon as no later score can change it.

A trigger is not an event of the results (``chirpwatch.clustering``), which is decided
only once the scores of the next 8 s are there. Where a trigger and an event disagree,
the trigger came first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from chirpwatch.geometry import Geometry
from chirpwatch.score_times import edge_ns, merger_ns
from chirpwatch.strain import NANOSECONDS

SAME_NS = NANOSECONDS // 2
"""Mergers that are no further apart are one, ns."""


@dataclass(frozen=True)
class Trigger:
    """A loud score.

    Attributes:
        time_ns: Estimated time of the merger at the first detector, GPS ns.
        statistic: The score.
        decided_ns: Right edge of the strain with which it was decided, GPS ns.
    """

    time_ns: int
    statistic: float
    decided_ns: int


class TriggerFinder:
    """Finds the triggers of one sequence as its scores come in.

    The loudest score above a threshold becomes a trigger once the data have advanced
    the longest delay past its estimated merger time: no later score looks for a merger
    there. Later kernels that still hold a part of the signal may be loud too; such a
    score becomes a trigger only if it is louder than the last one.

    Args:
        geometry: The analysis.
        longest_delay: The longest of the scores' delays, s.
        t0_ns: GPS time of the sequence's first sample, ns.
    """

    def __init__(self, geometry: Geometry, longest_delay: float, t0_ns: int) -> None:
        self._t0_ns, self._stride_ns = t0_ns, geometry.stride_ns
        self._longest_delay_ns = round(longest_delay * NANOSECONDS)
        seen = geometry.kernel_length + geometry.fduration / 2
        self._seen_ns = round(seen * NANOSECONDS)
        # Statistic and merger time of the loudest open score, and of the last trigger.
        self._best: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def push(
        self,
        first: int,
        score: NDArray[Any],
        delay: NDArray[Any],
        valid: NDArray[Any],
        threshold: float,
    ) -> Iterator[Trigger]:
        """Take the next scores, and yield the triggers that they decide.

        Args:
            first: Stride of the first score.
            score: [strides].
            delay: Time by which each right edge lags the merger, s, [strides].
            valid: [strides].
            threshold: What a score must reach.
        """
        for i in range(len(score)):
            stride, statistic = first + i, float(score[i])
            if valid[i] and score[i] >= threshold:
                time_ns = int(merger_ns(self._t0_ns, self._stride_ns, stride, delay[i]))
                louder = self._best is None or statistic > self._best[0]
                if louder and self._is_new(statistic, time_ns):
                    self._best = statistic, time_ns
            now_ns = edge_ns(self._t0_ns, self._stride_ns, stride)
            if self._best and now_ns >= self._best[1] + self._longest_delay_ns:
                yield self._decide(now_ns)

    def flush(self, now_ns: int) -> Iterator[Trigger]:
        """End the sequence, and yield the trigger that was still open."""
        if self._best:
            yield self._decide(now_ns)

    def _is_new(self, statistic: float, time_ns: int) -> bool:
        """Whether a score is not a late, quieter view of the last trigger's signal."""
        if self._last is None:
            return True
        last_statistic, last_ns = self._last
        after_ns = time_ns - last_ns
        return after_ns > self._seen_ns or (
            after_ns > SAME_NS and statistic > last_statistic
        )

    def _decide(self, now_ns: int) -> Trigger:
        assert self._best is not None
        statistic, time_ns = self._best
        self._best, self._last = None, self._best
        return Trigger(time_ns, statistic, now_ns)
