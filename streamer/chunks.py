"""Collects a sequence's scores and events into chunks for the results API."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.api.contract.requests import Chunk, Event
from chirpwatch.clustering import Clusterer, ScoreEvent, cluster_strides
from chirpwatch.geometry import Geometry
from chirpwatch.score_times import edge_ns, merger_ns, strides_until


class Chunker:
    """Buffers a sequence's scores until their events are decided.

    Args:
        geometry: The analysis.
        t0_ns: GPS time of the sequence's first sample, ns.
        taken_until_ns: Right edge of the last stride that an earlier process sent, GPS
            ns; strides up to it belong to no chunk.

    Attributes:
        pushed: Number of strides with scores, from the sequence's start.
        taken: Number of strides that were taken or are skipped, from the sequence's
            start.
    """

    def __init__(self, geometry: Geometry, t0_ns: int, taken_until_ns: int = 0) -> None:
        self._t0_ns, self._stride_ns = t0_ns, geometry.stride_ns
        self._clusterer = Clusterer(cluster_strides(geometry))
        self._score = np.empty(0, np.float32)
        self._valid = np.empty(0, bool)
        self._events: list[tuple[int, Event]] = []
        self.pushed = 0
        self.taken = self.strides_until(taken_until_ns)

    @property
    def decided(self) -> int:
        """Number of strides whose events are decided, from the sequence's start."""
        return self._clusterer.decided

    def edge_ns(self, stride: int) -> int:
        """Right edge of a stride, GPS ns."""
        return edge_ns(self._t0_ns, self._stride_ns, stride)

    def strides_until(self, time_ns: int) -> int:
        """Number of strides with right edges up to a GPS time, ns."""
        return strides_until(self._t0_ns, self._stride_ns, time_ns)

    def push(
        self, score: NDArray[Any], delay: NDArray[Any], valid: NDArray[Any]
    ) -> None:
        """Take the next scores.

        Args:
            score: Logits, [strides].
            delay: Time by which each right edge lags the merger, s, [strides].
            valid: Whether each score is valid, [strides].
        """
        skip = max(0, self.taken - self.pushed)
        self._score = np.append(self._score, score[skip:])
        self._valid = np.append(self._valid, valid[skip:])
        self.pushed += len(score)
        self._add(self._clusterer.push(score, delay, valid))

    def finish(self) -> None:
        """End the sequence, which decides the events of all its strides."""
        self._add(self._clusterer.flush())

    def _add(self, events: Sequence[ScoreEvent]) -> None:
        for event in events:
            if event.stride >= self.taken:
                time_ns = int(
                    merger_ns(self._t0_ns, self._stride_ns, event.stride, event.delay)
                )
                body = Event(time_ns=time_ns, statistic=event.statistic)
                self._events.append((event.stride, body))

    def take(self, stop: int, last: bool = False) -> Chunk:
        """Remove and return the next chunk.

        Args:
            stop: The stride after the chunk's last; at most ``decided``.
            last: Whether it is the stream's last chunk.
        """
        count = stop - self.taken
        chunk = Chunk(
            start_ns=self.edge_ns(self.taken),
            stride_ns=self._stride_ns,
            valid=self._valid[:count].tolist(),
            # An invalid score may be NaN, which JSON does not have.
            scores=np.where(self._valid, self._score, 0)[:count].tolist(),
            events=[event for stride, event in self._events if stride < stop],
            last=last,
        )
        self._events = [
            (stride, event) for stride, event in self._events if stride >= stop
        ]
        self._score, self._valid = self._score[count:], self._valid[count:]
        self.taken = stop
        return chunk
