"""Drift: whether the newest zero-lag events follow the background's rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import stride_length
from chirpwatch.api.analysis.scores import FLAG_COLUMNS
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    shifts_ns,
    vetoed_chunk,
    vetoed_events,
)
from chirpwatch.api.contract.answers import (
    DriftAnswer,
    DriftPointAnswer,
)
from chirpwatch.api.storage.chunks import valid_flags
from chirpwatch.api.storage.tables import (
    ChunkRow,
    Columns,
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.drift import rate_drift


def drift(session: Session, run: RunRow, cache: RunCache, last: float) -> DriftAnswer:
    """Compare the newest `last` seconds of zero-lag data with background.

    Raises:
        ConflictError: The background has no livetime.
    """
    background = cache.required_background(session, run)
    vetoes = cache.vetoes(session, run)
    own = (StreamRow.run_id == run.id, StreamRow.kind == "zero_lag")
    newest = session.scalar(
        select(func.max(ChunkRow.stop_ns))
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*own)
    )
    # Whole chunks are compared, since their events and livetime belong together.
    recent = (*own, ChunkRow.stop_ns > (newest or 0) - round(last * 1e9))
    chunks = session.execute(
        select(*FLAG_COLUMNS, ChunkRow.stop_ns, ChunkRow.stream_id)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*recent)
    ).all()
    events = session.execute(
        select(EventRow.time_ns, EventRow.statistic, EventRow.stream_id)
        .join(ChunkRow, ChunkRow.id == EventRow.chunk_id)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*recent)
    ).all()
    streams = {row.id: row for row in session.scalars(select(StreamRow).where(*own))}
    statistics = list(_statistics(events, streams, vetoes))
    livetime = _valid_strides(chunks, streams, vetoes) * stride_length(run)
    points, p_value = rate_drift(background, statistics, livetime)
    start = min((chunk.start_ns - chunk.stride_ns for chunk in chunks), default=None)
    return DriftAnswer(
        start=None if start is None else seconds(start),
        stop=None if newest is None else seconds(newest),
        livetime=livetime,
        events=len(statistics),
        points=[DriftPointAnswer(**asdict(point)) for point in points],
        p_value=p_value,
        background_livetime=background.livetime,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def _statistics(
    events: Sequence[Columns], streams: Mapping[int, StreamRow], vetoes: Vetoes
) -> Iterator[float]:
    """Statistics of the events outside vetoed time."""
    for stream_id, stream in streams.items():
        own = [event for event in events if event.stream_id == stream_id]
        times = np.array([event.time_ns for event in own], dtype=np.int64)
        vetoed = vetoed_events(times, shifts_ns(stream), vetoes)
        for event, lost in zip(own, vetoed, strict=True):
            if not lost:
                yield event.statistic


def _valid_strides(
    chunks: Sequence[Columns], streams: Mapping[int, StreamRow], vetoes: Vetoes
) -> int:
    """Number of valid strides outside vetoed time."""
    strides = 0
    for chunk in chunks:
        valid = valid_flags(chunk)
        if vetoes:
            shifts = shifts_ns(streams[chunk.stream_id])
            valid &= ~vetoed_chunk(chunk, shifts, vetoes)
        strides += int(np.count_nonzero(valid))
    return strides
