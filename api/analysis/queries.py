"""Reading: streams' events of one run.

Every query starts from one run, and a run has one model: background of one model
cannot meet events of another.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select, select
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
from chirpwatch.api.contract.refusals import (
    NotFoundError,
    not_found,
)
from chirpwatch.api.contract.requests import Kind
from chirpwatch.api.storage.database import (
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry


def get_run(session: Session, run_id: str) -> RunRow:
    """The run, or the problem that it is not there."""
    run = session.get(RunRow, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run


def stride(run: RunRow) -> float:
    """Time between two scores of a run, s."""
    return Geometry.from_json(run.geometry).stride_length


def events_between(
    run: RunRow, kind: Kind, start_ns: int, stop_ns: int
) -> Select[EventRow, StreamRow]:
    """The question for a kind of events between two times, looked up by their time."""
    return (
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(
            StreamRow.run_id == run.id,
            StreamRow.kind == kind,
            EventRow.time_ns.between(start_ns, stop_ns),
        )
    )


def needed_event(
    session: Session, run: RunRow, time_ns: int
) -> Row[EventRow, StreamRow]:
    """The zero-lag event at a time, of several the loudest.

    Raises:
        RefusalError: There is none.
    """
    found = session.execute(
        events_between(run, "zero_lag", time_ns, time_ns).order_by(
            EventRow.statistic.desc(), EventRow.id
        )
    ).first()
    if found is None:
        raise NotFoundError(f"run {run.id!r} has no zero-lag event at {time_ns} ns")
    return found


def loudest_events(
    session: Session,
    run: RunRow,
    kind: Kind,
    vetoes: Vetoes,
    limit: int,
    offset: int = 0,
    between: Interval | None = None,
) -> list[EventAnswer]:
    """Events of a kind of stream that no veto takes, loudest first.

    Of two alike the earlier comes first. `between` are two times, GPS ns.
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
    found: list[EventAnswer] = []
    batches = session.execute(query.execution_options(yield_per=1000)).partitions()
    while len(found) < offset + limit and (batch := next(batches, None)):
        found += [
            event_answer(event, stream.name)
            for (event, stream), lost in zip(batch, vetoed(batch, vetoes), strict=True)
            if not lost
        ]
    return found[offset : offset + limit]


def vetoed(
    rows: Sequence[Row[EventRow, StreamRow]], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each of some events is vetoed."""
    times = np.array([event.time_ns for event, _ in rows], dtype=np.int64)
    owners = np.array([stream.id for _, stream in rows], dtype=np.int64)
    lost = np.zeros(times.size, dtype=bool)
    for number, stream in {stream.id: stream for _, stream in rows}.items():
        mine = owners == number
        lost[mine] = vetoed_events(times[mine], shifts_ns(stream), vetoes)
    return lost


def event_answer(event: EventRow, stream: str) -> EventAnswer:
    """An event as it is answered."""
    return EventAnswer(
        time_ns=event.time_ns,
        time=seconds(event.time_ns),
        statistic=event.statistic,
        stream=stream,
    )
