"""Sets of injected signals on one background, in rows that come and go.

A signal changes only the scores that see it: those of its own duration and of the
kernel and the filter after it. So only that stretch is scored a second time, as a
further row of the requests it lies in; and signals of several sets share a row, one
after the other. A row that was not there in the request before continues row 0, which
is what a copy of the strain without an earlier signal would be.
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
"""What the results API takes as the name of an injection set."""


@dataclass(frozen=True)
class Span:
    """Signals of one set that interact, and the scores that depend on them.

    Attributes:
        name: The injection set.
        row: Row of the requests that has them, from 1.
        start, stop: Strides of the sequence whose scores depend on them.
        begin, end: Samples of the sequence that they add to.
    """

    name: str
    row: int
    start: int
    stop: int
    begin: int
    end: int


@dataclass(frozen=True)
class Foreground:
    """Where the signals of several sets go.

    Attributes:
        sets: The signals of each set by its name.
        geometry: The served model's geometry.
        t0_ns: GPS time of the sequence's first sample, integer nanoseconds.
        strides: Length of the sequence.

    Raises:
        SignalError: The signals' sample rate or detectors are others, or the API would
            not take the name of a set.
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
                    "expected a name of an injection set of 1 to 64 letters, digits, "
                    f"'_' and '-', found {name!r}"
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
        """All spans by their start, in as few rows as hold them.

        No two in a row overlap, so the strain that the first score of a span looks back
        at has nothing of the one before it.
        """
        found = [span for name in self.sets for span in self._merged(name)]
        found.sort(key=lambda span: span[:2])
        # Taken by their start, intervals fit in as many rows as ever overlap. The
        # lowest free row is taken, as a request runs all rows up to its highest.
        spans: list[Span] = []
        in_use: list[tuple[int, int]] = []
        free: list[int] = []
        for start, stop, begin, end, name in found:
            while in_use and in_use[0][0] <= start:
                heapq.heappush(free, heapq.heappop(in_use)[1])
            row = heapq.heappop(free) if free else len(in_use) + 1
            heapq.heappush(in_use, (stop, row))
            spans.append(Span(name, row, start, stop, begin, end))
        return tuple(spans)

    def _merged(self, name: str) -> list[tuple[int, int, int, int, str]]:
        """Start, stop, begin and end of a set's signals that interact, and its name."""
        geometry = self.geometry
        stride_size = geometry.stride_size
        # Score i looks at strain from (i + 1) strides less this, to (i + 1) strides.
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
        """Spans that have some of the strides ``start`` to ``stop``."""
        starts, stops = self._edges
        touching = np.flatnonzero((starts < stop) & (stops > start))
        return [self.spans[i] for i in touching]

    def rows(self, start: int, stop: int) -> int:
        """Rows of a request for the strides ``start`` to ``stop``, row 0 included."""
        return 1 + max((span.row for span in self._touching(start, stop)), default=0)

    def inject(self, strain: NDArray[Any], start: int) -> NDArray[Any]:
        """Add the rows with signals to a piece of strain.

        Args:
            strain: Piece of the strain, [ifos, size].
            start: Sample of the sequence at which it begins.

        Returns:
            float32 [rows, ifos, size]; row 0 is the strain as it is.
        """
        stride_size, stop = self.geometry.stride_size, start + strain.shape[1]
        first, last = start // stride_size, -(-stop // stride_size)
        rows = np.repeat(
            strain.astype(np.float32)[None], self.rows(first, last), axis=0
        )
        for span in self._touching(first, last):
            # The whole signal is read from the piece, so that it is rounded once.
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

    def scores(self, name: str, answer: Scores) -> tuple[NDArray[Any], NDArray[Any]]:
        """Score and delay of one set: what a row with all of its signals would have.

        Args:
            name: The injection set.
            answer: What the server answered to a request.

        Returns:
            Score and delay, [strides] each.
        """
        score, delay = answer.score[0].copy(), answer.delay[0].copy()
        first = answer.first
        for span in self._touching(first, first + len(score)):
            if span.name == name:
                own = slice(max(span.start - first, 0), span.stop - first)
                score[own] = answer.score[span.row][own]
                delay[own] = answer.delay[span.row][own]
        return score, delay
