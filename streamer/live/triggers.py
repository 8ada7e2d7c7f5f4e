"""Triggers: the loudest score of each signal, decided with low latency.

A trigger is decided as soon as no later score can see its merger. An event
(``chirpwatch.clustering``) is decided only after the scores of the next 8 s, so that a
trigger and the event of the same signal may differ.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from chirpwatch.geometry import Geometry
from chirpwatch.score_times import edge_ns, merger_ns
from chirpwatch.strain import NANOSECONDS

SAME_NS = NANOSECONDS // 2
"""Largest difference in time at which two scores see the same merger, ns."""


@dataclass(frozen=True)
class Trigger:
    """The loudest score of a signal.

    Attributes:
        time_ns: Estimated time of the merger at the first detector, GPS ns.
        statistic: The score.
        decided_ns: End of the strain when it was decided, GPS ns.
    """

    time_ns: int
    statistic: float
    decided_ns: int


class TriggerFinder:
    """Finds a sequence's triggers as its scores arrive.

    The loudest score above a threshold becomes a trigger once the data have advanced
    `longest_delay` past its estimated merger time: no later score estimates a merger
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
        visible_length = geometry.kernel_length + geometry.fduration / 2
        self._visible_ns = round(visible_length * NANOSECONDS)
        # Statistic and merger time: of the best undecided score; of the last trigger.
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
            score: Logits, [strides].
            delay: Time by which each right edge lags the merger, s, [strides].
            valid: Whether each score is valid, [strides].
            threshold: Smallest score of a trigger.
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
        """End the sequence at `now_ns`, and yield the undecided trigger, if any."""
        if self._best:
            yield self._decide(now_ns)

    def _is_new(self, statistic: float, time_ns: int) -> bool:
        """Whether a score is not a late, quieter view of the last trigger's signal."""
        if self._last is None:
            return True
        last_statistic, last_ns = self._last
        after_ns = time_ns - last_ns
        return after_ns > self._visible_ns or (
            after_ns > SAME_NS and statistic > last_statistic
        )

    def _decide(self, now_ns: int) -> Trigger:
        assert self._best is not None
        statistic, time_ns = self._best
        self._best, self._last = None, self._best
        return Trigger(time_ns, statistic, now_ns)
