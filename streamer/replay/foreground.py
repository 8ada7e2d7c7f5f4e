"""Injection sets in additional rows of the requests, only where signals are.

A signal changes only the scores whose kernel and whitening filter overlap it. Only
these scores are computed again, in an additional row of their requests, and signals of
several sets share a row one after the other. A row that the previous request did not
have continues row 0, which is identical before its signal.
"""

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import SignalError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.streamer.client import Scores
from chirpwatch.streamer.replay.injections import (
    add_signals,
    signal_starts,
)

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of injection sets that the results API accepts."""


@dataclass(frozen=True)
class Span:
    """A group of a set's signals that affect the same scores.

    Attributes:
        name: Name of the injection set.
        row: Row of the requests with these signals, from 1.
        start, stop: Range of the sequence's strides whose scores they affect.
        begin, end: Range of the sequence's samples that they cover.
    """

    name: str
    row: int
    start: int
    stop: int
    begin: int
    end: int


@dataclass(frozen=True)
class Foreground:
    """Places the signals of several injection sets in rows of the requests.

    Attributes:
        sets: Signals of each set by its name.
        geometry: The served model's geometry.
        t0_ns: GPS time of the sequence's first sample, integer nanoseconds.
        strides: Length of the sequence in strides.

    Raises:
        SignalError: Signals have another sample rate or other detectors than the
            geometry, or the results API does not accept the name of a set.
    """

    sets: Mapping[str, ProjectedSignals]
    geometry: Geometry
    t0_ns: int
    strides: int

    def __post_init__(self) -> None:
        ifos, rate = self.geometry.ifos, self.geometry.sample_rate
        for name, signals in self.sets.items():
            if not NAME.fullmatch(name):
                raise SignalError(
                    "injection set: expected a name of 1 to 64 letters, digits, '_' "
                    f"and '-', found {name!r}; rename it"
                )
            if signals.sample_rate != rate or signals.ifos != ifos:
                raise SignalError(
                    f"injection set {name}: expected signals of {', '.join(ifos)} at "
                    f"{rate} Hz, found {', '.join(signals.ifos)} at "
                    f"{signals.sample_rate} Hz"
                )

    @cached_property
    def _starts(self) -> dict[str, NDArray[Any]]:
        return {
            name: signal_starts(signals, self.t0_ns)
            for name, signals in self.sets.items()
        }

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """All spans, ordered by start, in the smallest number of rows.

        Spans in the same row do not overlap, so that no score of a span sees a signal
        of the previous span in its row.
        """
        merged = [span for name in self.sets for span in self._merged(name)]
        merged.sort(key=lambda span: span[:2])
        # In order of their start, intervals need only as many rows as the most that
        # overlap. The lowest free row is used: a request has all rows up to its
        # highest.
        spans: list[Span] = []
        in_use: list[tuple[int, int]] = []
        free: list[int] = []
        for start, stop, begin, end, name in merged:
            while in_use and in_use[0][0] <= start:
                heapq.heappush(free, heapq.heappop(in_use)[1])
            row = heapq.heappop(free) if free else len(in_use) + 1
            heapq.heappush(in_use, (stop, row))
            spans.append(Span(name, row, start, stop, begin, end))
        return tuple(spans)

    def _merged(self, name: str) -> list[tuple[int, int, int, int, str]]:
        """A set's spans without rows: (start, stop, begin, end, name) of each."""
        geometry = self.geometry
        stride_size = geometry.stride_size
        # Score i sees this many samples before the end of stride i.
        reach_size = geometry.kernel_size + geometry.filter_size
        merged: list[tuple[int, int, int, int, str]] = []
        for begin in self._starts[name].tolist():
            end = begin + self.sets[name].size
            start = max(begin // stride_size, 0)
            stop = min(-(-(end + reach_size) // stride_size) - 1, self.strides)
            if end <= 0 or start >= stop:
                continue
            if merged and start < merged[-1][1]:
                start, _, begin, *_ = merged.pop()
            merged.append((start, stop, begin, end, name))
        return merged

    @cached_property
    def _edges(self) -> tuple[NDArray[Any], NDArray[Any]]:
        starts = np.array([span.start for span in self.spans], np.int64)
        stops = np.array([span.stop for span in self.spans], np.int64)
        return starts, stops

    def _touching(self, start: int, stop: int) -> list[Span]:
        """Spans that overlap the strides ``start`` to ``stop``."""
        starts, stops = self._edges
        touching = np.flatnonzero((starts < stop) & (stops > start))
        return [self.spans[i] for i in touching]

    def rows(self, start: int, stop: int) -> int:
        """Number of rows of a request for the strides ``start`` to ``stop``."""
        return 1 + max((span.row for span in self._touching(start, stop)), default=0)

    def inject(self, strain: NDArray[Any], start: int) -> NDArray[Any]:
        """Build the rows of a request: the strain, and copies with signals.

        Args:
            strain: Part of the sequence's strain, [ifos, size].
            start: The part's first sample in the sequence.

        Returns:
            float32 [rows, ifos, size]; row 0 is the strain without injections.
        """
        stride_size, stop = self.geometry.stride_size, start + strain.shape[1]
        first, last = start // stride_size, -(-stop // stride_size)
        rows = np.repeat(
            strain.astype(np.float32)[None], self.rows(first, last), axis=0
        )
        for span in self._touching(first, last):
            # Signals are added to the original strain: each sum is rounded once.
            begin, end = max(span.begin, start), min(span.end, stop)
            if begin < end:
                piece = slice(begin - start, end - start)
                rows[span.row][:, piece] = add_signals(
                    strain[:, piece],
                    begin,
                    self.sets[span.name],
                    self._starts[span.name],
                )
        return rows

    def scores(self, name: str, scores: Scores) -> tuple[NDArray[Any], NDArray[Any]]:
        """Select a set's scores, as if a row had all of its signals.

        Args:
            name: Name of the injection set.
            scores: The server's response to a request.

        Returns:
            Score and delay (s), [strides] each.
        """
        score, delay = scores.score[0].copy(), scores.delay[0].copy()
        first = scores.first
        for span in self._touching(first, first + len(score)):
            if span.name == name:
                own = slice(max(span.start - first, 0), span.stop - first)
                score[own] = scores.score[span.row][own]
                delay[own] = scores.delay[span.row][own]
        return score, delay
