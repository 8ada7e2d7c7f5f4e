"""Reading: streams' events and livetime of one run.

Every query starts from one run, and a run has one model: background of one model
cannot meet events of another.
"""

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from api.answers import EventAnswer
from api.database import ChunkRow, EventRow, RunRow, StreamRow
from api.problems import not_found
from api.schema import Kind
from chirpwatch.geometry import Geometry


def seconds(time_ns: int) -> float:
    """GPS nanoseconds as GPS seconds; a double keeps them to a microsecond."""
    return time_ns / 1e9


def get_run(session: Session, run_id: str) -> RunRow:
    """The run, or the problem that it is not there."""
    run = session.get(RunRow, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run


def stride(run: RunRow) -> float:
    """Time between two scores of a run, s."""
    return Geometry.from_json(run.geometry).stride_length


def livetime(session: Session, run: RunRow, kind: Kind) -> float:
    """Valid time of all streams of a kind, s."""
    valid = session.scalar(
        select(func.sum(ChunkRow.valid_count))
        .join(StreamRow)
        .where(StreamRow.run_id == run.id, StreamRow.kind == kind)
    )
    return int(valid or 0) * stride(run)


def _events(run: RunRow, kind: Kind) -> Select[EventRow, str]:
    return (
        select(EventRow, StreamRow.name)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(StreamRow.run_id == run.id, StreamRow.kind == kind)
    )


def count_events(session: Session, run: RunRow, kind: Kind) -> int:
    """Events of a kind of stream."""
    query = _events(run, kind).with_only_columns(func.count())
    return session.scalar(query) or 0


def loudest_events(
    session: Session, run: RunRow, kind: Kind, limit: int, offset: int = 0
) -> list[EventAnswer]:
    """Events of a kind of stream, loudest first; of two alike the earlier first."""
    rows = session.execute(
        _events(run, kind)
        .order_by(EventRow.statistic.desc(), EventRow.time_ns, EventRow.id)
        .limit(limit)
        .offset(offset)
    )
    return [event_answer(event, stream) for event, stream in rows]


def event_answer(event: EventRow, stream: str) -> EventAnswer:
    """An event as it is answered."""
    return EventAnswer(
        time_ns=event.time_ns,
        time=seconds(event.time_ns),
        statistic=event.statistic,
        stream=stream,
    )
