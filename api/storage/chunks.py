"""Storing a chunk: whole, once, and only where it agrees with what is there."""

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import Chunk
from chirpwatch.api.storage.database import (
    ChunkRow,
    EventRow,
    StreamRow,
)
from chirpwatch.api.storage.store import locked_run
from chirpwatch.geometry import Geometry


def put_chunk(
    session: Session,
    run_id: str,
    stream_name: str,
    number: int,
    body: Chunk,
    digest: str,
) -> bool:
    """Store a chunk, of this digest, with its events; returns whether it is new."""
    run = locked_run(session, run_id)
    stream = session.scalar(
        select(StreamRow).where(
            StreamRow.run_id == run_id, StreamRow.name == stream_name
        )
    )
    if stream is None:
        raise not_found("stream", stream_name)
    stored = session.scalar(
        select(ChunkRow.digest).where(
            ChunkRow.stream_id == stream.id, ChunkRow.number == number
        )
    )
    if stored == digest:
        return False
    where = f"chunk {number} of stream {stream_name!r} of run {run_id!r}"
    if stored is not None:
        raise ConflictError(f"{where} exists with other content; nothing was changed")
    _check_content(stream, Geometry.from_json(run.geometry), body, where)
    _check_place(session, stream, number, body, where)
    scores = np.asarray(body.scores, dtype="<f4")
    valid_scores = scores[body.valid]
    chunk = ChunkRow(
        run_id=run_id,
        stream_id=stream.id,
        number=number,
        start_ns=body.start_ns,
        stop_ns=body.stop_ns,
        stride_ns=body.stride_ns,
        size=len(body.valid),
        valid_count=sum(body.valid),
        event_count=len(body.events),
        lowest=float(valid_scores.min()) if valid_scores.size else None,
        highest=float(valid_scores.max()) if valid_scores.size else None,
        valid=np.packbits(body.valid).tobytes(),
        scores=scores.tobytes(),
        last=body.last,
        digest=digest,
    )
    session.add(chunk)
    session.flush()
    session.add_all(
        EventRow(
            run_id=run_id,
            kind=stream.kind,
            stream_id=stream.id,
            chunk_id=chunk.id,
            time_ns=event.time_ns,
            statistic=event.statistic,
        )
        for event in body.events
    )
    run.revision += 1
    return True


def _check_content(
    stream: StreamRow, geometry: Geometry, body: Chunk, where: str
) -> None:
    """Refuse a chunk that its run's geometry or its own validity contradicts."""
    stride_ns = geometry.stride_ns
    if body.stride_ns != stride_ns:
        raise InvalidError(
            f"{where}: expected strides of {stride_ns} ns as in the run's geometry, "
            f"found {body.stride_ns} ns"
        )
    # An event is reported once its cluster is closed, and lies before the right edge
    # of its score by at most the kernel and the filter.
    lag = stream.cluster_length + geometry.kernel_length + geometry.fduration
    edges = body.start_ns + np.flatnonzero(body.valid) * body.stride_ns
    times = np.array([event.time_ns for event in body.events], dtype=np.int64)
    seen = np.searchsorted(edges, times + round(lag * 1e9), side="right")
    orphans = times[seen <= np.searchsorted(edges, times)]
    if orphans.size:
        raise InvalidError(
            f"{where}: event at {orphans[0]} ns, but no valid score of this chunk "
            f"follows it within {lag:g} s; the chunk's scores run from "
            f"{body.start_ns} to {body.stop_ns} ns, {edges.size} of them valid"
        )


def _check_place(
    session: Session, stream: StreamRow, number: int, body: Chunk, where: str
) -> None:
    """Refuse a chunk past the end, or over time that is already counted."""
    # None comes after the last one, so that it has the highest number.
    highest = session.execute(
        select(ChunkRow.number, ChunkRow.last)
        .where(ChunkRow.stream_id == stream.id)
        .order_by(ChunkRow.number.desc())
        .limit(1)
    ).first()
    if highest and highest.last and (number > highest.number or body.last):
        raise ConflictError(f"{where}: the stream ended with chunk {highest.number}")
    if highest and body.last and highest.number > number:
        raise ConflictError(
            f"{where} is marked last, but chunk {highest.number} is there"
        )
    # The same pairs of data may enter livetime once, whatever the stream: those of
    # the same relative shifts, by the time of the first detector's data.
    same = (
        StreamRow.run_id == stream.run_id,
        StreamRow.kind == stream.kind,
        StreamRow.relative_shifts == stream.relative_shifts,
        StreamRow.injection_set == stream.injection_set
        if stream.injection_set
        else StreamRow.injection_set.is_(None),
    )
    # Those of a stream do not overlap: of all that end after this one begins, the first
    # one may begin before it ends.
    begin_ns = body.start_ns - body.stride_ns + stream.origin_ns
    later = aliased(ChunkRow)
    first = (
        select(later.id)
        .where(
            later.stream_id == StreamRow.id,
            later.stop_ns > begin_ns - StreamRow.origin_ns,
        )
        .order_by(later.stop_ns)
        .limit(1)
        .correlate(StreamRow)
        .scalar_subquery()
    )
    other = session.execute(
        select(StreamRow.name, ChunkRow.number)
        .join(ChunkRow, ChunkRow.id == first)
        .where(
            *same,
            ChunkRow.start_ns - ChunkRow.stride_ns + StreamRow.origin_ns
            < body.stop_ns + stream.origin_ns,
        )
    ).first()
    if other is not None:
        raise ConflictError(
            f"{where} covers time that chunk {other.number} of stream {other.name!r} "
            "covers at the same relative shifts; livetime must not be counted twice"
        )
