"""Reading: how far the run and its streams got."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis import background
from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import stride
from chirpwatch.api.analysis.summaries import (
    NO_STREAM,
    Accumulated,
    StreamSum,
)
from chirpwatch.api.contract.requests import Kind
from chirpwatch.api.contract.status import (
    PerKind,
    RunStatus,
    RunSummary,
    StreamAnswer,
)
from chirpwatch.api.storage.database import (
    ChunkRow,
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry
from chirpwatch.utc import unix_time


@dataclass(frozen=True)
class Total:
    """Of the streams of one kind.

    Attributes:
        livetime: Valid time that no veto takes, s.
        events: Events that no veto takes.
        vetoed_events: Events that a veto takes.
    """

    livetime: float
    events: int
    vetoed_events: int


DAY = 86_400.0

_OWN = set(RunRow.__table__.columns.keys())


def run_summary(run: RunRow) -> RunSummary:
    """A run as it was registered and last updated."""
    geometry = Geometry.from_json(run.geometry)
    return RunSummary.model_validate(
        {name: getattr(run, name) for name in RunSummary.model_fields if name in _OWN}
        | {"geometry": json.loads(run.geometry), "geometry_digest": geometry.digest}
    )


def run_status(session: Session, run: RunRow, accumulated: Accumulated) -> RunStatus:
    """A run with livetimes and counts for each kind of data."""
    streams = _streams(session, run)
    sums = accumulated.streams(session, run)
    length = stride(run)
    kinds: dict[str, Any] = {}
    for kind in get_args(Kind):
        mine = [row for row in streams if row.kind == kind]
        parts = [sums.get(row.id, NO_STREAM) for row in mine]
        kinds[kind] = PerKind(
            streams=len(mine),
            streams_done=sum(part.done for part in parts),
            chunks=sum(part.chunks for part in parts),
            events=sum(part.events for part in parts),
            livetime=sum(part.valid for part in parts) * length,
            vetoed=sum(part.vetoed for part in parts) * length,
            analysed=sum(part.size for part in parts) * length,
            gaps=sum(part.size - part.valid - part.vetoed for part in parts) * length,
            planned=sum(row.duration for row in mine),
        )
    zero_lag = [
        sums.get(row.id, NO_STREAM) for row in streams if row.kind == "zero_lag"
    ]
    first, last = background.span(session, run)
    starts = [first, *(part.start_ns for part in sums.values())]
    stops = [last, *(part.stop_ns for part in sums.values())]
    start = min((time for time in starts if time is not None), default=None)
    stop = max((time for time in stops if time is not None), default=None)
    return RunStatus(
        **dict(run_summary(run)),
        **kinds,
        background=background.status(session, run, accumulated),
        lag=_lag(zero_lag),
        arrived=_arrived(zero_lag),
        start=None if start is None else seconds(start),
        stop=None if stop is None else seconds(stop),
    )


def _newest(zero_lag: Sequence[StreamSum]) -> StreamSum | None:
    """The stream with the newest scores."""
    known = [part for part in zero_lag if part.stop_ns is not None]
    return max(known, key=lambda part: part.stop_ns or 0, default=None)


def _lag(zero_lag: Sequence[StreamSum]) -> float | None:
    """By how much the newest scores trailed the clock as they came, s.

    None of recorded data.
    """
    newest = _newest(zero_lag)
    if newest is None or newest.stop_ns is None:
        return None
    behind = newest.arrived - unix_time(seconds(newest.stop_ns))
    return behind if behind < DAY else None


def _arrived(zero_lag: Sequence[StreamSum]) -> datetime | None:
    newest = _newest(zero_lag)
    return None if newest is None else datetime.fromtimestamp(newest.arrived, UTC)


def total(session: Session, run: RunRow, kind: Kind, accumulated: Accumulated) -> Total:
    """What all streams of a kind have together."""
    sums = accumulated.streams(session, run)
    parts = [
        sums.get(row.id, NO_STREAM)
        for row in _streams(session, run)
        if row.kind == kind
    ]
    return Total(
        livetime=sum(part.valid for part in parts) * stride(run),
        events=sum(part.events for part in parts),
        vetoed_events=sum(part.vetoed_events for part in parts),
    )


def _streams(session: Session, run: RunRow) -> Sequence[StreamRow]:
    return session.scalars(
        select(StreamRow).where(StreamRow.run_id == run.id).order_by(StreamRow.id)
    ).all()


def stream_answers(
    session: Session, run: RunRow, accumulated: Accumulated
) -> list[StreamAnswer]:
    """The streams of a run, in the order they were declared."""
    length = stride(run)
    sums = accumulated.streams(session, run)
    answers = []
    for row in _streams(session, run):
        part = sums.get(row.id, NO_STREAM)
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
    if part.chunks == part.highest + 1:
        return part.chunks
    numbers = session.scalars(
        select(ChunkRow.number)
        .where(ChunkRow.stream_id == stream.id)
        .order_by(ChunkRow.number)
    )
    # Chunks came in another order: the first number that isn't its own place is free.
    return next(
        (place for place, number in enumerate(numbers) if place != number), part.chunks
    )
