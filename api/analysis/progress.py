"""Progress of runs and streams: chunks, livetime, events and lag."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis import background
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import (
    count_runs,
    loudest_events,
    newest_runs,
    stride_length,
)
from chirpwatch.api.analysis.stream_sums import (
    NO_CHUNKS,
    StreamSum,
)
from chirpwatch.api.contract.answers import Events
from chirpwatch.api.contract.fields import Kind
from chirpwatch.api.contract.status import (
    PerKind,
    Runs,
    RunStatus,
    RunSummary,
    StreamAnswer,
)
from chirpwatch.api.storage.tables import (
    ChunkRow,
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry
from chirpwatch.utc import unix_time


@dataclass(frozen=True)
class Total:
    """Livetime and events of all streams of one kind.

    Attributes:
        livetime: Valid time outside vetoed time, s.
        events: Events outside vetoed time.
        vetoed_events: Events in vetoed time.
    """

    livetime: float
    events: int
    vetoed_events: int


DAY = 86_400.0

_COLUMNS = set(RunRow.__table__.columns.keys())


def run_summary(run: RunRow) -> RunSummary:
    """Describe a run and its state."""
    geometry = Geometry.from_json(run.geometry)
    return RunSummary.model_validate(
        {
            name: getattr(run, name)
            for name in RunSummary.model_fields
            if name in _COLUMNS
        }
        | {"geometry": json.loads(run.geometry), "geometry_digest": geometry.digest}
    )


def run_page(session: Session, limit: int, offset: int) -> Runs:
    """Describe one page of the runs, newest first."""
    rows = newest_runs(session, limit, offset)
    return Runs(runs=[run_summary(row) for row in rows], total=count_runs(session))


def run_status(session: Session, run: RunRow, cache: RunCache) -> RunStatus:
    """Describe a run with the livetime and events of each kind of data."""
    streams = _streams(session, run)
    sums = cache.streams(session, run)
    length = stride_length(run)
    kinds: dict[str, Any] = {}
    for kind in get_args(Kind):
        own = [row for row in streams if row.kind == kind]
        parts = [sums.get(row.id, NO_CHUNKS) for row in own]
        kinds[kind] = PerKind(
            streams=len(own),
            streams_done=sum(part.done for part in parts),
            chunks=sum(part.chunks for part in parts),
            events=sum(part.events for part in parts),
            livetime=sum(part.valid for part in parts) * length,
            vetoed=sum(part.vetoed for part in parts) * length,
            analysed=sum(part.size for part in parts) * length,
            gaps=sum(part.size - part.valid - part.vetoed for part in parts) * length,
            planned=sum(row.duration for row in own),
        )
    zero_lag = [
        sums.get(row.id, NO_CHUNKS) for row in streams if row.kind == "zero_lag"
    ]
    first, last = background.span(session, run)
    starts = [first, *(part.start_ns for part in sums.values())]
    stops = [last, *(part.stop_ns for part in sums.values())]
    start = min((time for time in starts if time is not None), default=None)
    stop = max((time for time in stops if time is not None), default=None)
    return RunStatus(
        **dict(run_summary(run)),
        **kinds,
        background=background.background_status(session, run, cache),
        lag=_lag(zero_lag),
        arrived=_arrived(zero_lag),
        start=None if start is None else seconds(start),
        stop=None if stop is None else seconds(stop),
    )


def _newest(zero_lag: Sequence[StreamSum]) -> StreamSum | None:
    """The stream with the newest scores; None without scores."""
    scored = [part for part in zero_lag if part.stop_ns is not None]
    return max(scored, key=lambda part: part.stop_ns or 0, default=None)


def _lag(zero_lag: Sequence[StreamSum]) -> float | None:
    """Latency of the newest scores on arrival, s; None for recorded data."""
    newest = _newest(zero_lag)
    if newest is None or newest.stop_ns is None:
        return None
    lag = newest.arrived - unix_time(seconds(newest.stop_ns))
    return lag if lag < DAY else None


def _arrived(zero_lag: Sequence[StreamSum]) -> datetime | None:
    """Arrival of the newest scores; None without scores."""
    newest = _newest(zero_lag)
    return None if newest is None else datetime.fromtimestamp(newest.arrived, UTC)


def total(session: Session, run: RunRow, kind: Kind, cache: RunCache) -> Total:
    """Sum the livetime and events of a run's streams of one kind."""
    sums = cache.streams(session, run)
    parts = [
        sums.get(row.id, NO_CHUNKS)
        for row in _streams(session, run)
        if row.kind == kind
    ]
    return Total(
        livetime=sum(part.valid for part in parts) * stride_length(run),
        events=sum(part.events for part in parts),
        vetoed_events=sum(part.vetoed_events for part in parts),
    )


def stream_events(
    session: Session, run: RunRow, cache: RunCache, kind: Kind, limit: int, offset: int
) -> Events:
    """List events of a run's streams outside vetoed time, loudest first."""
    vetoes = cache.vetoes(session, run)
    return Events(
        events=loudest_events(session, run, kind, vetoes, limit, offset),
        total=total(session, run, kind, cache).events,
    )


def _streams(session: Session, run: RunRow) -> Sequence[StreamRow]:
    return session.scalars(
        select(StreamRow).where(StreamRow.run_id == run.id).order_by(StreamRow.id)
    ).all()


def stream_answers(
    session: Session, run: RunRow, cache: RunCache
) -> list[StreamAnswer]:
    """Describe the streams of a run, in order of declaration."""
    length = stride_length(run)
    sums = cache.streams(session, run)
    answers = []
    for row in _streams(session, run):
        part = sums.get(row.id, NO_CHUNKS)
        answers.append(
            StreamAnswer(
                id=row.name,
                kind=cast(Kind, row.kind),
                shifts=json.loads(row.shifts),
                segment=row.segment,
                injection_set=row.injection_set,
                chunks=part.chunks,
                next_number=_next_number(session, row, part),
                done=part.done,
                events=part.events,
                livetime=part.valid * length,
            )
        )
    return answers


def _next_number(session: Session, stream: StreamRow, part: StreamSum) -> int:
    """Smallest chunk number of a stream that has not arrived."""
    if part.chunks == part.highest + 1:
        return part.chunks
    numbers = session.scalars(
        select(ChunkRow.number)
        .where(ChunkRow.stream_id == stream.id)
        .order_by(ChunkRow.number)
    )
    # Numbers are missing below the highest: find the first one.
    return next(
        (place for place, number in enumerate(numbers) if place != number), part.chunks
    )
