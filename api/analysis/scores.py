"""Score time series, thinned for drawing without losing a peak."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.intervals import (
    Interval,
    merge,
    merge_arrays,
    seconds,
)
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.contract.answers import (
    Scores,
    Stretch,
)
from chirpwatch.api.contract.requests import Kind
from chirpwatch.api.storage.database import (
    ChunkRow,
    RunRow,
    StreamRow,
)

Chunk = Any
"""A chunk's row, or one with the columns of `valid_flags` and `stretches`."""


AT_ONCE = 500
"""Chunks that are asked for by their keys in one query."""

FLAGS = (
    ChunkRow.start_ns,
    ChunkRow.stride_ns,
    ChunkRow.size,
    ChunkRow.valid,
)
"""Columns of a chunk that its flags are read from."""


def valid_flags(chunk: Chunk) -> NDArray[np.bool_]:
    """Validity of each stride of a chunk."""
    bits = np.frombuffer(chunk.valid, dtype=np.uint8)
    return np.unpackbits(bits, count=chunk.size).astype(bool)


def stretches(chunk: Chunk, flags: NDArray[np.bool_]) -> list[Interval]:
    """The time, ns, of the strides of a chunk whose flag is set."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    begin = chunk.start_ns - chunk.stride_ns
    return [
        (begin + int(first) * chunk.stride_ns, begin + int(after) * chunk.stride_ns)
        for first, after in zip(
            np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True
        )
    ]


def thinned(
    session: Session,
    run: RunRow,
    accumulated: Accumulated,
    *,
    kind: Kind,
    stream: str | None,
    start_ns: int,
    stop_ns: int,
    points: int,
) -> Scores:
    """At most about `points` points with the extremes of the valid scores.

    The buckets lie on a fixed grid of time, so that a plot doesn't flicker when it is
    moved, and hold a whole number of strides. Where a bucket is longer than the chunks,
    the extremes of whole chunks serve: a year is answered without reading its scores,
    and a peak is drawn less than a bucket from its time.

    Args:
        session: A reading one.
        run: The run.
        accumulated: What is known of the runs.
        kind: Kind of the streams, where no one is named.
        stream: Name of one stream.
        start_ns: Begin, GPS ns.
        stop_ns: End, GPS ns.
        points: Most points, about.
    """
    streams = session.scalars(
        select(StreamRow.id).where(
            StreamRow.run_id == run.id,
            StreamRow.kind == kind if stream is None else StreamRow.name == stream,
        )
    ).all()
    table = accumulated.chunks(session, run)
    begins = table["start_ns"] - table["stride_ns"]
    seen = (table["stop_ns"] > start_ns) & (begins < stop_ns)
    seen &= np.isin(table["stream_id"], streams)
    table, begins = table[seen], begins[seen]
    received = merge_arrays(begins, table["stop_ns"])
    begin = max(start_ns, received[0][0]) if received else start_ns
    end = min(stop_ns, received[-1][1]) if received else stop_ns
    stride_ns = int(table["stride_ns"][0]) if received else 1
    width = stride_ns * max(1, -(-(end - begin) // (stride_ns * points)))
    none = table["valid_count"] == 0
    # Gaps begin and end within a chunk; there are few such.
    mixed = _rows(session, FLAGS, table[~none & (table["valid_count"] < table["size"])])
    invalid = merge(
        [
            *merge_arrays(begins[none], table["stop_ns"][none]),
            *(part for one in mixed for part in stretches(one, ~valid_flags(one))),
        ]
    )
    # Chunks within the view that are no longer than a bucket stand for themselves.
    whole = (begins >= begin) & (table["stop_ns"] <= end)
    whole &= table["stop_ns"] - begins <= width
    parts = [
        # The right edge of the first stride, as where strides are read.
        (
            begins[whole] + stride_ns,
            table["lowest"][whole].astype(float),
            table["highest"][whole].astype(float),
        ),
        *(
            _points(one, begin, end, width)
            for one in _rows(session, (*FLAGS, ChunkRow.scores), table[~whole])
        ),
    ]
    edges, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
    edges, low, high = _reduced(edges, low, high, width)
    return Scores(
        start=seconds(begin),
        stop=seconds(end),
        bucket=seconds(width),
        time=[seconds(int(edge)) for edge in edges],
        minimum=[float(value) if np.isfinite(value) else None for value in low],
        maximum=[float(value) if np.isfinite(value) else None for value in high],
        invalid=_clipped(invalid, begin, end),
        received=_clipped(received, begin, end),
    )


Points = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Right edges, ns, and the least and largest score; infinite where none is valid."""


def _rows(
    session: Session, columns: Sequence[Any], table: NDArray[np.void]
) -> Iterator[Chunk]:
    """Columns of some chunks."""
    ids = table["id"].tolist()
    for first in range(0, len(ids), AT_ONCE):
        yield from session.execute(
            select(*columns).where(ChunkRow.id.in_(ids[first : first + AT_ONCE]))
        )


def _points(chunk: Chunk, begin: int, end: int, width: int) -> Points:
    """The points of a chunk, of which as few are kept as its buckets."""
    edge = chunk.start_ns + np.arange(chunk.size) * chunk.stride_ns
    inside = (edge > begin) & (edge - chunk.stride_ns < end)
    scores = np.frombuffer(chunk.scores, dtype="<f4").astype(np.float64)
    valid = valid_flags(chunk)
    low = np.where(valid, scores, np.inf)[inside]
    high = np.where(valid, scores, -np.inf)[inside]
    return _reduced(edge[inside], low, high, width)


def _reduced(
    edges: NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    width: int,
) -> Points:
    """One point for each bucket, at the edge of its first."""
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


def _clipped(intervals: Iterable[Interval], begin: int, end: int) -> list[Stretch]:
    return [
        Stretch(start=seconds(max(start, begin)), stop=seconds(min(stop, end)))
        for start, stop in intervals
        if stop > begin and start < end
    ]
