"""Score time series, thinned for drawing without losing a peak."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.answers import Scores, Stretch
from api.database import ChunkRow, RunRow, StreamRow
from api.intervals import Interval, merge, seconds
from api.schema import Kind

Number = TypeVar("Number", bound=np.generic)


def valid_flags(chunk: ChunkRow) -> NDArray[np.bool_]:
    """Validity of each stride of a chunk."""
    bits = np.frombuffer(chunk.valid, dtype=np.uint8)
    return np.unpackbits(bits, count=chunk.size).astype(bool)


def stretches(chunk: ChunkRow, flags: NDArray[np.bool_]) -> list[Interval]:
    """The time, ns, of the strides of a chunk whose flag is set."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    begin = chunk.start_ns - chunk.stride_ns
    return [
        (begin + int(first) * chunk.stride_ns, begin + int(after) * chunk.stride_ns)
        for first, after in zip(
            np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True
        )
    ]


def load_chunks(
    session: Session,
    run: RunRow,
    *,
    kind: Kind | None = None,
    stream: str | None = None,
    injection_set: str | None = None,
    start_ns: int | None = None,
    stop_ns: int | None = None,
) -> Sequence[ChunkRow]:
    """Chunks of a run that fit everything given, in order of time."""
    query = select(ChunkRow).join(StreamRow).where(StreamRow.run_id == run.id)
    if kind is not None:
        query = query.where(StreamRow.kind == kind)
    if stream is not None:
        query = query.where(StreamRow.name == stream)
    if injection_set is not None:
        query = query.where(StreamRow.injection_set == injection_set)
    if start_ns is not None:
        query = query.where(ChunkRow.stop_ns > start_ns)
    if stop_ns is not None:
        query = query.where(ChunkRow.start_ns - ChunkRow.stride_ns < stop_ns)
    return session.scalars(query.order_by(ChunkRow.start_ns, ChunkRow.id)).all()


def thin(
    chunks: Sequence[ChunkRow], start_ns: int, stop_ns: int, points: int
) -> Scores:
    """At most about `points` points with the extremes of the valid scores.

    The buckets lie on a fixed grid of time, so that a plot doesn't flicker when it is
    moved, and hold a whole number of strides.
    """
    received = merge(
        (chunk.start_ns - chunk.stride_ns, chunk.stop_ns) for chunk in chunks
    )
    begin = max(start_ns, received[0][0]) if received else start_ns
    end = min(stop_ns, received[-1][1]) if received else stop_ns
    stride_ns = chunks[0].stride_ns if chunks else 1
    width = stride_ns * max(1, -(-(end - begin) // (stride_ns * points)))
    edges = _joined(
        [chunk.start_ns + np.arange(chunk.size) * stride_ns for chunk in chunks],
        np.int64,
    )
    flags = [valid_flags(chunk) for chunk in chunks]
    scores = _joined(
        [np.frombuffer(chunk.scores, dtype="<f4") for chunk in chunks],
        np.float64,
    )
    inside = (edges > begin) & (edges - stride_ns < end)
    edges, scores = edges[inside], scores[inside]
    valid = _joined(flags, np.bool_)[inside]
    # Streams of one kind may cover the same time; their strides share buckets.
    order = np.argsort(edges, kind="stable")
    edges, scores, valid = edges[order], scores[order], valid[order]
    buckets = (edges - 1) // width
    firsts = np.flatnonzero(np.diff(buckets, prepend=-1))
    low = _reduced(np.minimum, np.where(valid, scores, np.inf), firsts)
    high = _reduced(np.maximum, np.where(valid, scores, -np.inf), firsts)
    invalid = merge(
        stretch
        for chunk, flag in zip(chunks, flags, strict=True)
        for stretch in stretches(chunk, ~flag)
    )
    return Scores(
        start=seconds(begin),
        stop=seconds(end),
        bucket=seconds(width),
        time=[seconds(int(edge)) for edge in edges[firsts]],
        minimum=[float(value) if np.isfinite(value) else None for value in low],
        maximum=[float(value) if np.isfinite(value) else None for value in high],
        invalid=_clipped(invalid, begin, end),
        received=_clipped(received, begin, end),
    )


def _joined(parts: Sequence[NDArray[Any]], dtype: type[Number]) -> NDArray[Number]:
    joined: NDArray[Number] = np.concatenate([np.empty(0, dtype), *parts])
    return joined.astype(dtype)


def _reduced(
    extreme: np.ufunc, values: NDArray[np.float64], firsts: NDArray[np.int64]
) -> NDArray[np.float64]:
    return np.asarray(extreme.reduceat(values, firsts)) if firsts.size else values


def _clipped(intervals: Iterable[Interval], begin: int, end: int) -> list[Stretch]:
    return [
        Stretch(start=seconds(max(start, begin)), stop=seconds(min(stop, end)))
        for start, stop in intervals
        if stop > begin and start < end
    ]
