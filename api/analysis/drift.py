"""Whether the newest zero-lag events are as many, and as loud, as background says."""

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import stride
from chirpwatch.api.analysis.scores import (
    FLAGS,
    valid_flags,
)
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.analysis.vetoes import (
    shifts_ns,
    vetoed_chunk,
    vetoed_events,
)
from chirpwatch.api.contract.answers import (
    Drift,
    DriftPoint,
)
from chirpwatch.api.storage.database import (
    ChunkRow,
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.drift import rate_drift


def drift(
    session: Session, run: RunRow, accumulated: Accumulated, last: float
) -> Drift:
    """Compare the newest `last` seconds of zero-lag data with background.

    Raises:
        ProblemError: There is no background livetime (yet).
    """
    noise = accumulated.statistics(session, run)
    vetoes = accumulated.vetoes(session, run)
    mine = (StreamRow.run_id == run.id, StreamRow.kind == "zero_lag")
    newest = session.scalar(
        select(func.max(ChunkRow.stop_ns))
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*mine)
    )
    # Whole chunks: their events and their livetime go together.
    recent = (*mine, ChunkRow.stop_ns > (newest or 0) - round(last * 1e9))
    chunks = session.execute(
        select(*FLAGS, ChunkRow.stop_ns, StreamRow.id)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*recent)
    ).all()
    streams = {row.id: row for row in session.scalars(select(StreamRow).where(*mine))}
    events = session.execute(
        select(EventRow.time_ns, EventRow.statistic, EventRow.stream_id)
        .join(ChunkRow, ChunkRow.id == EventRow.chunk_id)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*recent)
    ).all()
    strides, statistics = 0, []
    for chunk in chunks:
        valid = valid_flags(chunk)
        if vetoes:
            valid &= ~vetoed_chunk(chunk, shifts_ns(streams[chunk.id]), vetoes)
        strides += int(np.count_nonzero(valid))
    for key, stream in streams.items():
        own = [one for one in events if one.stream_id == key]
        times = np.array([one.time_ns for one in own], dtype=np.int64)
        lost = vetoed_events(times, shifts_ns(stream), vetoes)
        statistics += [
            one.statistic for one, gone in zip(own, lost, strict=True) if not gone
        ]
    livetime = strides * stride(run)
    points, probability = rate_drift(noise, statistics, livetime)
    start = min((chunk.start_ns - chunk.stride_ns for chunk in chunks), default=None)
    return Drift(
        start=None if start is None else seconds(start),
        stop=None if newest is None else seconds(newest),
        livetime=livetime,
        events=len(statistics),
        points=[
            DriftPoint(
                statistic=point.statistic,
                expected=point.expected,
                observed=point.observed,
                p_value=point.p_value,
            )
            for point in points
        ],
        p_value=probability,
        background_livetime=noise.livetime,
        vetoes=list(vetoes.names),
        model=run.model,
    )
