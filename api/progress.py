"""Reading: how far the run and its streams got."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from sqlalchemy import Integer, Row, cast, func, select
from sqlalchemy.orm import Session

from api import background
from api.database import ChunkRow, EventRow, RunRow, StreamRow
from api.queries import seconds, stride
from api.schema import Kind
from api.status import PerKind, RunStatus, RunSummary, StreamAnswer
from chirpwatch.geometry import Geometry

_OWN = set(RunRow.__table__.columns.keys())


def run_summary(run: RunRow) -> RunSummary:
    """A run as it was registered and last updated."""
    geometry = Geometry.from_json(run.geometry)
    return RunSummary.model_validate(
        {name: getattr(run, name) for name in RunSummary.model_fields if name in _OWN}
        | {"geometry": json.loads(run.geometry), "geometry_digest": geometry.digest}
    )


def stream_rows(session: Session, run: RunRow) -> Sequence[Row[Any]]:
    """Each stream of a run with counts of its chunks and events.

    Beside the stream's own columns: `chunks`, `highest` (chunk number), `ended` (1
    when the last chunk is there), `valid` and `size` (strides), `start_ns`, `stop_ns`,
    `events`, `loudest` (statistic).
    """
    chunks = (
        select(
            ChunkRow.stream_id,
            func.count().label("chunks"),
            func.max(ChunkRow.number).label("highest"),
            func.sum(cast(ChunkRow.last, Integer)).label("ended"),
            func.sum(ChunkRow.valid_count).label("valid"),
            func.sum(ChunkRow.size).label("size"),
            func.min(ChunkRow.start_ns - ChunkRow.stride_ns).label("start_ns"),
            func.max(ChunkRow.stop_ns).label("stop_ns"),
        )
        .group_by(ChunkRow.stream_id)
        .subquery()
    )
    events = (
        select(
            EventRow.stream_id,
            func.count().label("events"),
            func.max(EventRow.statistic).label("loudest"),
        )
        .group_by(EventRow.stream_id)
        .subquery()
    )
    return session.execute(
        select(
            StreamRow.name,
            StreamRow.kind,
            StreamRow.shifts,
            StreamRow.segment,
            StreamRow.injection_set,
            StreamRow.duration,
            func.coalesce(chunks.c.chunks, 0).label("chunks"),
            func.coalesce(chunks.c.highest, -1).label("highest"),
            func.coalesce(chunks.c.ended, 0).label("ended"),
            func.coalesce(chunks.c.valid, 0).label("valid"),
            func.coalesce(chunks.c.size, 0).label("size"),
            chunks.c.start_ns,
            chunks.c.stop_ns,
            func.coalesce(events.c.events, 0).label("events"),
            events.c.loudest,
        )
        .outerjoin(chunks, chunks.c.stream_id == StreamRow.id)
        .outerjoin(events, events.c.stream_id == StreamRow.id)
        .where(StreamRow.run_id == run.id)
        .order_by(StreamRow.id)
    ).all()


def _is_done(row: Row[Any]) -> bool:
    # Numbers are unique and none exceeds the last one's, so counting suffices.
    return bool(row.ended) and row.chunks == row.highest + 1


def run_status(session: Session, run: RunRow) -> RunStatus:
    """A run with livetimes and counts for each kind of data."""
    rows = stream_rows(session, run)
    length = stride(run)
    kinds: dict[str, Any] = {}
    for kind in get_args(Kind):
        mine = [row for row in rows if row.kind == kind]
        kinds[kind] = PerKind(
            streams=len(mine),
            streams_done=sum(map(_is_done, mine)),
            chunks=sum(row.chunks for row in mine),
            events=sum(row.events for row in mine),
            livetime=int(sum(row.valid for row in mine)) * length,
            analysed=int(sum(row.size for row in mine)) * length,
            planned=sum(row.duration for row in mine),
        )
    spans = [(row.start_ns, row.stop_ns) for row in rows if row.chunks]
    first, last = background.span(session, run)
    if first is not None and last is not None:
        spans.append((first, last))
    return RunStatus(
        **dict(run_summary(run)),
        **kinds,
        background=background.status(session, run),
        start=min((seconds(start) for start, _ in spans), default=None),
        stop=max((seconds(stop) for _, stop in spans), default=None),
    )


def stream_answers(session: Session, run: RunRow) -> list[StreamAnswer]:
    """The streams of a run, in the order they were declared."""
    length = stride(run)
    return [
        StreamAnswer(
            id=row.name,
            kind=row.kind,
            shifts=json.loads(row.shifts),
            segment=row.segment,
            injection_set=row.injection_set,
            chunks=row.chunks,
            next_number=_next_number(session, run, row),
            done=_is_done(row),
            events=row.events,
            livetime=int(row.valid) * length,
        )
        for row in stream_rows(session, run)
    ]


def _next_number(session: Session, run: RunRow, row: Row[Any]) -> int:
    if row.chunks == row.highest + 1:
        return int(row.chunks)
    numbers = session.scalars(
        select(ChunkRow.number)
        .join(StreamRow)
        .where(StreamRow.run_id == run.id, StreamRow.name == row.name)
        .order_by(ChunkRow.number)
    )
    # Chunks came in another order: the first number that isn't its own place is free.
    return next(
        (place for place, number in enumerate(numbers) if place != number), row.chunks
    )
