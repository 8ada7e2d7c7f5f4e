"""Queries for runs and for the events of their streams.

Every query for events names one run. A run has one model, so background of one model
is never compared with events of another.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.intervals import (
    Interval,
    seconds,
)
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    shifts_ns,
    vetoed_events,
)
from chirpwatch.api.contract.answers import EventAnswer
from chirpwatch.api.contract.fields import Kind
from chirpwatch.api.contract.refusals import (
    NotFoundError,
    not_found,
)
from chirpwatch.api.storage.tables import (
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry


def get_run(session: Session, run_id: str) -> RunRow:
    """Load a run.

    Raises:
        NotFoundError: There is no such run.
    """
    run = session.get(RunRow, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run


def newest_runs(session: Session, limit: int, offset: int = 0) -> list[RunRow]:
    """Load the runs that were registered last, newest first."""
    query = select(RunRow).order_by(RunRow.created.desc(), RunRow.id)
    return list(session.scalars(query.limit(limit).offset(offset)))


def count_runs(session: Session) -> int:
    """Number of runs in the database."""
    return session.scalar(select(func.count()).select_from(RunRow)) or 0


def stride_length(run: RunRow) -> float:
    """Time between two scores of a run, s."""
    return Geometry.from_json(run.geometry).stride_length


def events_between(
    run: RunRow, kind: Kind, start_ns: int, stop_ns: int
) -> Select[EventRow, StreamRow]:
    """Query for a run's events of one kind between two times, with their streams."""
    return (
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(
            StreamRow.run_id == run.id,
            StreamRow.kind == kind,
            EventRow.time_ns.between(start_ns, stop_ns),
        )
    )


def required_event(
    session: Session, run: RunRow, time_ns: int
) -> Row[EventRow, StreamRow]:
    """Load the zero-lag event at a time, GPS ns; the loudest if there are several.

    Raises:
        NotFoundError: There is no zero-lag event at that time.
    """
    row = session.execute(
        events_between(run, "zero_lag", time_ns, time_ns).order_by(
            EventRow.statistic.desc(), EventRow.id
        )
    ).first()
    if row is None:
        raise NotFoundError(
            f"run {run.id!r} has no zero-lag event at {time_ns} ns; `/candidates` "
            "lists the times of its events"
        )
    return row


def loudest_events(
    session: Session,
    run: RunRow,
    kind: Kind,
    vetoes: Vetoes,
    limit: int,
    offset: int = 0,
    between: Interval | None = None,
) -> list[EventAnswer]:
    """List events outside vetoed time, loudest first.

    Events with equal statistics are listed in order of time.

    Args:
        session: Database session.
        run: The run.
        kind: Kind of the streams.
        vetoes: The run's vetoes.
        limit: Most events to list.
        offset: Events to skip.
        between: Times to list events between, GPS ns; all times if None.
    """
    query = (
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(EventRow.run_id == run.id, EventRow.kind == kind)
        if between is None
        else events_between(run, kind, *between)
    ).order_by(EventRow.statistic.desc(), EventRow.time_ns, EventRow.id)
    if not vetoes:
        rows = session.execute(query.limit(limit).offset(offset)).all()
        return [event_answer(event, stream.name) for event, stream in rows]
    answers: list[EventAnswer] = []
    batches = session.execute(query.execution_options(yield_per=1000)).partitions()
    while len(answers) < offset + limit and (batch := next(batches, None)):
        answers += [
            event_answer(event, stream.name)
            for event, stream in outside_vetoes(batch, vetoes)
        ]
    return answers[offset : offset + limit]


def outside_vetoes(
    rows: Sequence[Row[EventRow, StreamRow]], vetoes: Vetoes
) -> list[Row[EventRow, StreamRow]]:
    """Select the events outside vetoed time."""
    vetoed = _vetoed(rows, vetoes)
    return [row for row, lost in zip(rows, vetoed, strict=True) if not lost]


def _vetoed(
    rows: Sequence[Row[EventRow, StreamRow]], vetoes: Vetoes
) -> NDArray[np.bool_]:
    times = np.array([event.time_ns for event, _ in rows], dtype=np.int64)
    stream_ids = np.array([stream.id for _, stream in rows], dtype=np.int64)
    vetoed = np.zeros(times.size, dtype=bool)
    for stream_id, stream in {stream.id: stream for _, stream in rows}.items():
        own = stream_ids == stream_id
        vetoed[own] = vetoed_events(times[own], shifts_ns(stream), vetoes)
    return vetoed


def event_answer(event: EventRow, stream: str) -> EventAnswer:
    """Make the answer for an event of the stream named `stream`."""
    return EventAnswer(
        time_ns=event.time_ns,
        time=seconds(event.time_ns),
        statistic=event.statistic,
        stream=stream,
    )
