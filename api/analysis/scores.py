"""Score time series, thinned for plots without losing peaks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.intervals import (
    Interval,
    merge,
    merge_arrays,
    seconds,
)
from chirpwatch.api.contract.answers import (
    IntervalAnswer,
    ScoresAnswer,
)
from chirpwatch.api.contract.fields import Kind
from chirpwatch.api.contract.refusals import (
    not_found,
)
from chirpwatch.api.storage.chunks import valid_flags
from chirpwatch.api.storage.tables import (
    ChunkRow,
    Columns,
    RunRow,
    StreamRow,
)

CHUNKS_PER_QUERY = 500
"""Most chunks that one query reads by their keys."""

FLAG_COLUMNS = (
    ChunkRow.start_ns,
    ChunkRow.stride_ns,
    ChunkRow.size,
    ChunkRow.valid,
)
"""Columns of a chunk that `valid_flags` and `flagged_intervals` need."""

Points = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Right edges, ns, smallest and largest scores; infinite where no score is valid."""


def flagged_intervals(
    chunk: ChunkRow | Columns, flags: NDArray[np.bool_]
) -> list[Interval]:
    """Intervals, GPS ns, of a chunk's strides whose flag is set.

    Args:
        chunk: The chunk, or a row with its times.
        flags: A flag for each stride, [size].
    """
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    start_ns = chunk.start_ns - chunk.stride_ns
    return [
        (
            start_ns + int(first) * chunk.stride_ns,
            start_ns + int(after) * chunk.stride_ns,
        )
        for first, after in zip(
            np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True
        )
    ]


def thinned_scores(
    session: Session,
    run: RunRow,
    cache: RunCache,
    *,
    kind: Kind,
    stream: str | None,
    between: Interval,
    points: int,
) -> ScoresAnswer:
    """Thin scores to buckets, each with the extremes of its valid scores.

    Buckets lie on a fixed grid of time, so that a plot does not flicker as it moves,
    and last a whole number of strides. Where a bucket is longer than the chunks, whole
    chunks are represented by their extremes. So a year is answered without reading its
    scores, and a peak is drawn less than a bucket from its time.

    Args:
        session: Database session.
        run: The run.
        cache: Sums of the runs.
        kind: Kind of the streams; ignored if `stream` is given.
        stream: Name of one stream; all streams of the kind if None.
        between: Times to answer scores between, GPS ns.
        points: Number of buckets, approximately.

    Raises:
        NotFoundError: The run has no such stream.
    """
    start_ns, stop_ns = between
    chunks = cache.chunks(session, run)
    starts = chunks["start_ns"] - chunks["stride_ns"]
    selected = (chunks["stop_ns"] > start_ns) & (starts < stop_ns)
    selected &= np.isin(chunks["stream_id"], _stream_ids(session, run, kind, stream))
    chunks = chunks[selected]
    received = merge_arrays(starts[selected], chunks["stop_ns"])
    begin = max(start_ns, received[0][0]) if received else start_ns
    end = min(stop_ns, received[-1][1]) if received else stop_ns
    stride_ns = int(chunks["stride_ns"][0]) if received else 1
    width = stride_ns * max(1, -(-(end - begin) // (stride_ns * points)))
    edges, low, high = _thinned(session, chunks, begin, end, width)
    return ScoresAnswer(
        start=seconds(begin),
        stop=seconds(end),
        bucket=seconds(width),
        time=[seconds(int(edge)) for edge in edges],
        minimum=[float(value) if np.isfinite(value) else None for value in low],
        maximum=[float(value) if np.isfinite(value) else None for value in high],
        invalid=_clipped(_invalid(session, chunks), begin, end),
        received=_clipped(received, begin, end),
    )


def _stream_ids(
    session: Session, run: RunRow, kind: Kind, name: str | None
) -> Sequence[int]:
    """Database keys of a run's streams of one kind, or of the stream with a name."""
    selected = StreamRow.kind == kind if name is None else StreamRow.name == name
    query = select(StreamRow.id).where(StreamRow.run_id == run.id, selected)
    ids = session.scalars(query).all()
    if name is not None and not ids:
        raise not_found("stream", name)
    return ids


def _invalid(session: Session, chunks: NDArray[np.void]) -> list[Interval]:
    """Intervals of chunks, ``CHUNK`` [n], whose scores are not valid."""
    none_valid = chunks[chunks["valid_count"] == 0]
    some_valid = chunks[
        (chunks["valid_count"] > 0) & (chunks["valid_count"] < chunks["size"])
    ]
    # Few chunks have valid and invalid scores, so few flags are read.
    partial = _read(session, FLAG_COLUMNS, some_valid)
    starts = none_valid["start_ns"] - none_valid["stride_ns"]
    return merge(
        [
            *merge_arrays(starts, none_valid["stop_ns"]),
            *(
                interval
                for chunk in partial
                for interval in flagged_intervals(chunk, ~valid_flags(chunk))
            ),
        ]
    )


def _thinned(
    session: Session, chunks: NDArray[np.void], begin: int, end: int, width: int
) -> Points:
    """Thin the scores of chunks, ``CHUNK`` [n], to buckets of `width` ns."""
    starts = chunks["start_ns"] - chunks["stride_ns"]
    whole = (starts >= begin) & (chunks["stop_ns"] <= end)
    whole &= chunks["stop_ns"] - starts <= width
    parts = [
        # As for single scores, the time is the right edge of the first stride.
        (
            chunks["start_ns"][whole],
            chunks["lowest"][whole].astype(float),
            chunks["highest"][whole].astype(float),
        ),
        *(
            _thinned_chunk(chunk, begin, end, width)
            for chunk in _read(
                session, (*FLAG_COLUMNS, ChunkRow.scores), chunks[~whole]
            )
        ),
    ]
    edges, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _one_point_per_bucket(edges, low, high, width)


def _read(
    session: Session, columns: Sequence[Any], chunks: NDArray[np.void]
) -> Iterator[Columns]:
    """Read columns of chunks, ``CHUNK`` [n]."""
    ids = chunks["id"].tolist()
    for first in range(0, len(ids), CHUNKS_PER_QUERY):
        yield from session.execute(
            select(*columns).where(
                ChunkRow.id.in_(ids[first : first + CHUNKS_PER_QUERY])
            )
        )


def _thinned_chunk(chunk: Columns, begin: int, end: int, width: int) -> Points:
    """Thin the scores of one chunk between two times to buckets of `width` ns."""
    edges = chunk.start_ns + np.arange(chunk.size) * chunk.stride_ns
    inside = (edges > begin) & (edges - chunk.stride_ns < end)
    scores = np.frombuffer(chunk.scores, dtype="<f4").astype(np.float64)
    valid = valid_flags(chunk)
    low = np.where(valid, scores, np.inf)[inside]
    high = np.where(valid, scores, -np.inf)[inside]
    return _one_point_per_bucket(edges[inside], low, high, width)


def _one_point_per_bucket(
    edges: NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    width: int,
) -> Points:
    """Merge the points of each bucket, at the right edge of its first stride."""
    if not edges.size:
        return edges, low, high
    order = np.argsort(edges, kind="stable")
    edges = edges[order]
    firsts = np.flatnonzero(np.diff((edges - 1) // width, prepend=-1))
    return (
        edges[firsts],
        np.minimum.reduceat(low[order], firsts),
        np.maximum.reduceat(high[order], firsts),
    )


def _clipped(
    intervals: Iterable[Interval], begin: int, end: int
) -> list[IntervalAnswer]:
    return [
        IntervalAnswer(start=seconds(max(start, begin)), stop=seconds(min(stop, end)))
        for start, stop in intervals
        if stop > begin and start < end
    ]
