"""Writing chunks, after checks against the run's geometry and stored chunks."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import Chunk
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    check_stride,
    is_repeated,
    locked_run,
)
from chirpwatch.api.storage.tables import (
    ChunkRow,
    Columns,
    EventRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry


def report_lag(geometry: Geometry, cluster_length: float) -> float:
    """Longest time from an event's merger to the score that reports the event, s.

    An event is reported when its cluster closes, and its merger precedes the right edge
    of its score by at most the kernel and the filter.

    Args:
        geometry: The run's.
        cluster_length: The stream's clustering reach to either side, s.
    """
    return cluster_length + geometry.kernel_length + geometry.fduration


def valid_flags(chunk: ChunkRow | Columns) -> NDArray[np.bool_]:
    """Unpack a chunk's validity flags, [size].

    Args:
        chunk: The chunk, or a row with its columns `valid` and `size`.
    """
    bits = np.frombuffer(chunk.valid, dtype=np.uint8)
    return np.unpackbits(bits, count=chunk.size).astype(bool)


def put_chunk(
    session: Session,
    run_id: str,
    stream_name: str,
    number: int,
    body: Chunk,
    digest: str,
) -> Stored:
    """Store a chunk with its events.

    Raises:
        ConflictError: The chunk exists with other content, follows the stream's last
            chunk, or covers time that another chunk covers at the same shifts.
        InvalidError: The stride is not that of the run's geometry, or an event has no
            score.
        NotFoundError: There is no such run or stream.
    """
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
    where = f"chunk {number} of stream {stream_name!r} of run {run_id!r}"
    if is_repeated(stored, digest, where):
        return REPEATED
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
    return NEW


def _check_content(
    stream: StreamRow, geometry: Geometry, body: Chunk, where: str
) -> None:
    """Check a chunk against its run's geometry, and its events against its scores."""
    check_stride(geometry, body.stride_ns, where)
    lag = report_lag(geometry, stream.cluster_length)
    edges = body.start_ns + np.flatnonzero(body.valid) * body.stride_ns
    times = np.array([event.time_ns for event in body.events], dtype=np.int64)
    last = np.searchsorted(edges, times + round(lag * 1e9), side="right")
    orphans = times[last <= np.searchsorted(edges, times)]
    if orphans.size:
        raise InvalidError(
            f"{where}: expected a valid score of this chunk within {lag:g} s after "
            f"each event, found none after the event at {orphans[0]} ns; the chunk has "
            f"{edges.size} valid scores between {body.start_ns} and {body.stop_ns} ns"
        )


def _check_place(
    session: Session, stream: StreamRow, number: int, body: Chunk, where: str
) -> None:
    """Check that a chunk is not past the stream's end and covers new time."""
    # No chunk follows the last one, so the last one has the highest number.
    highest = session.execute(
        select(ChunkRow.number, ChunkRow.last)
        .where(ChunkRow.stream_id == stream.id)
        .order_by(ChunkRow.number.desc())
        .limit(1)
    ).first()
    if highest and highest.last and (number > highest.number or body.last):
        raise ConflictError(
            f"{where}: expected no further chunk, since the stream ended with chunk "
            f"{highest.number}"
        )
    if highest and body.last and highest.number > number:
        raise ConflictError(
            f"{where}: expected the highest number for the last chunk, but chunk "
            f"{highest.number} is stored"
        )
    # The same pairs of data may enter livetime only once, whatever the stream. Streams
    # with the same relative shifts pair the same data at the same time of the first
    # detector.
    same = (
        StreamRow.run_id == stream.run_id,
        StreamRow.kind == stream.kind,
        StreamRow.relative_shifts == stream.relative_shifts,
        StreamRow.injection_set == stream.injection_set
        if stream.injection_set
        else StreamRow.injection_set.is_(None),
    )
    # A stream's chunks do not overlap: if any overlaps this one, the first chunk that
    # ends after this one begins does.
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
