"""Injections of a run, each matched to its event: found, missed or not analysed."""

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.intervals import (
    Interval,
    merge,
)
from chirpwatch.api.analysis.queries import outside_vetoes
from chirpwatch.api.analysis.scores import (
    FLAG_COLUMNS,
    flagged_intervals,
)
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    shifts_ns,
    vetoed_events,
)
from chirpwatch.api.storage.chunks import (
    report_lag,
    valid_flags,
)
from chirpwatch.api.storage.tables import (
    ChunkRow,
    EventRow,
    InjectionRow,
    InjectionSetRow,
    RunRow,
    StreamRow,
)
from chirpwatch.efficiency import match_injections
from chirpwatch.geometry import Geometry


@dataclass(frozen=True)
class Injected:
    """An injection and its fate, which does not depend on a threshold.

    Attributes:
        row: The injection.
        set: Its injection set.
        event: The matched event and the name of its stream; None if no event matches.
        fate: ``event`` (matched), ``no_event``, ``not_analysed`` (no valid score at its
            time), ``pending`` (not analysed yet) or ``vetoed``.
    """

    row: InjectionRow
    set: InjectionSetRow
    event: tuple[EventRow, str] | None
    fate: str

    @property
    def settled(self) -> bool:
        """Whether the injection counts as found or missed."""
        return self.fate not in {"pending", "vetoed"}

    def found(self, threshold: float) -> bool:
        """Whether the injection's event passes a threshold."""
        return (
            self.fate == "event"
            and self.event is not None
            and self.event[0].statistic >= threshold
        )


def load_injected(session: Session, run: RunRow, cache: RunCache) -> Sequence[Injected]:
    """Load all injections of a run with their fates, in order of time.

    The result is cached, since one page needs it several times.
    """
    return cache.memoised(run, partial(_load, session, run, cache.vetoes(session, run)))


def _load(session: Session, run: RunRow, vetoes: Vetoes) -> list[Injected]:
    sets = session.scalars(
        select(InjectionSetRow)
        .where(InjectionSetRow.run_id == run.id)
        .order_by(InjectionSetRow.id)
    ).all()
    streams = session.scalars(
        select(StreamRow)
        .where(StreamRow.run_id == run.id, StreamRow.kind == "injections")
        .order_by(StreamRow.id)
    ).all()
    injections = _injections_by_set(session, run)
    events = _events_by_set(session, run, vetoes)
    scored = _scored_intervals(session, run)
    injected: list[Injected] = []
    for row in sets:
        own_streams = [s for s in streams if s.injection_set == row.name]
        times = np.array([i.time_ns for i in injections[row.id]], dtype=np.int64)
        # The streams of a set have the same shifts.
        shifts = shifts_ns(own_streams[0]) if own_streams else {}
        injected += _fates(
            row,
            injections[row.id],
            events[row.name],
            _coverage(run, own_streams, scored),
            vetoed_events(times, shifts, vetoes),
        )
    return sorted(injected, key=lambda injection: injection.row.time_ns)


def _injections_by_set(
    session: Session, run: RunRow
) -> defaultdict[int, list[InjectionRow]]:
    """A run's injections in order of time, by the database key of their set."""
    injections: defaultdict[int, list[InjectionRow]] = defaultdict(list)
    for row in session.scalars(
        select(InjectionRow)
        .join(InjectionSetRow, InjectionSetRow.id == InjectionRow.set_id)
        .where(InjectionSetRow.run_id == run.id)
        .order_by(InjectionRow.time_ns, InjectionRow.id)
    ):
        injections[row.set_id].append(row)
    return injections


def _events_by_set(
    session: Session, run: RunRow, vetoes: Vetoes
) -> defaultdict[str | None, list[Row[EventRow, StreamRow]]]:
    """Events of data with injections, outside vetoed time, by the injection set."""
    rows = session.execute(
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(EventRow.run_id == run.id, EventRow.kind == "injections")
    ).all()
    events: defaultdict[str | None, list[Row[EventRow, StreamRow]]]
    events = defaultdict(list)
    for row in outside_vetoes(rows, vetoes):
        events[row[1].injection_set].append(row)
    return events


def _fates(
    row: InjectionSetRow,
    injections: Sequence[InjectionRow],
    events: Sequence[Row[EventRow, StreamRow]],
    coverage: "_Coverage",
    vetoed: NDArray[np.bool_],
) -> Iterator[Injected]:
    """Match the injections of a set to events, and decide their fates.

    Args:
        row: The injection set.
        injections: Its injections, [n].
        events: Events of its streams.
        coverage: How far its streams are scored.
        vetoed: Whether each injection is vetoed, [n].
    """
    matched = match_injections(
        [injection.time_ns for injection in injections],
        [event.time_ns for event, _ in events],
        [event.statistic for event, _ in events],
    )
    for injection, index, lost in zip(injections, matched, vetoed, strict=True):
        match = events[index] if index >= 0 else None
        if lost:
            fate = "vetoed"
        # This holds for matched injections too: counting them before the missed ones
        # would overestimate the efficiency.
        elif coverage.is_pending(injection.time_ns):
            fate = "pending"
        elif match is not None:
            fate = "event"
        else:
            valid = _covers(coverage.valid, injection.time_ns)
            fate = "no_event" if valid else "not_analysed"
        event = None if match is None else (match[0], match[1].name)
        yield Injected(injection, row, event, fate)


@dataclass(frozen=True)
class _Coverage:
    """How far the streams with an injection set are scored.

    Attributes:
        running: Whether more scores may arrive.
        valid: Intervals with valid scores, GPS ns.
        received: Intervals with scores, valid or not, GPS ns.
        lag_ns: Longest time from a merger to the score that reports its event, ns.
    """

    running: bool
    valid: list[Interval]
    received: list[Interval]
    lag_ns: int

    def is_pending(self, time_ns: int) -> bool:
        """Whether the event of an injection may still arrive."""
        return self.running and not _covers(self.received, time_ns + self.lag_ns)


_Intervals = Mapping[int, list[Interval]]


def _scored_intervals(session: Session, run: RunRow) -> tuple[_Intervals, _Intervals]:
    """Intervals with valid scores, and with any scores, by the stream's key."""
    received: defaultdict[int, list[Interval]] = defaultdict(list)
    valid: defaultdict[int, list[Interval]] = defaultdict(list)
    own = StreamRow.run_id == run.id, StreamRow.kind == "injections"
    for stream_id, start, stop, count, size in session.execute(
        select(
            ChunkRow.stream_id,
            ChunkRow.start_ns - ChunkRow.stride_ns,
            ChunkRow.stop_ns,
            ChunkRow.valid_count,
            ChunkRow.size,
        )
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*own)
    ):
        received[stream_id].append((start, stop))
        if count == size:
            valid[stream_id].append((start, stop))
    # Few chunks have valid and invalid scores, so few flags are read.
    for chunk in session.execute(
        select(ChunkRow.stream_id, *FLAG_COLUMNS)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*own, ChunkRow.valid_count.between(1, ChunkRow.size - 1))
    ):
        valid[chunk.stream_id] += flagged_intervals(chunk, valid_flags(chunk))
    return valid, received


def _coverage(
    run: RunRow,
    streams: Sequence[StreamRow],
    scored: tuple[_Intervals, _Intervals],
) -> _Coverage:
    """Combine the scored intervals of a set's streams."""
    geometry = Geometry.from_json(run.geometry)
    clusters = max((stream.cluster_length for stream in streams), default=0.0)
    valid, received = (
        merge(part for stream in streams for part in intervals.get(stream.id, ()))
        for intervals in scored
    )
    return _Coverage(
        running=run.state == "running",
        valid=valid,
        received=received,
        lag_ns=round(report_lag(geometry, clusters) * 1e9),
    )


def _covers(intervals: list[Interval], time_ns: int) -> bool:
    """Whether one of ascending, disjoint intervals contains a time."""
    before = bisect.bisect_right(intervals, (time_ns, math.inf)) - 1
    return before >= 0 and time_ns <= intervals[before][1]
