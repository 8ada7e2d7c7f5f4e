"""Sums over a stream's chunks: progress, livetime and event counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    shifts_ns,
    vetoed_chunk,
    vetoed_events,
)
from chirpwatch.api.storage.chunks import (
    report_lag,
    valid_flags,
)
from chirpwatch.api.storage.tables import (
    ChunkRow,
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry

CHUNK = np.dtype(
    [
        ("id", "i8"),
        ("stream_id", "i8"),
        ("number", "i8"),
        ("start_ns", "i8"),
        ("stop_ns", "i8"),
        ("stride_ns", "i8"),
        ("size", "i8"),
        ("valid_count", "i8"),
        ("event_count", "i8"),
        ("arrived", "f8"),
        ("last", "?"),
        ("lowest", "f4"),
        ("highest", "f4"),
    ]
)
"""A chunk without its scores and flags: columns of `ChunkRow`. `lowest` and `highest`
are infinite where no score is valid."""


@dataclass(frozen=True)
class StreamSum:
    """What a stream's chunks add up to.

    Attributes:
        chunks: Number of chunks.
        highest: Highest chunk number; -1 without chunks.
        ended: Whether the stream's last chunk has arrived.
        size: Strides.
        valid: Valid strides outside vetoed time.
        vetoed: Valid strides in vetoed time.
        events: Events outside vetoed time.
        vetoed_events: Events in vetoed time.
        start_ns, stop_ns: First and last time, GPS ns; None without chunks.
        arrived: Arrival of the chunk with the last time, Unix time, s.
    """

    chunks: int = 0
    highest: int = -1
    ended: bool = False
    size: int = 0
    valid: int = 0
    vetoed: int = 0
    events: int = 0
    vetoed_events: int = 0
    start_ns: int | None = None
    stop_ns: int | None = None
    arrived: float = 0.0

    @property
    def done(self) -> bool:
        """Whether all chunks up to the last one have arrived."""
        # Numbers are unique and the last chunk's is the highest: counting suffices.
        return self.ended and self.chunks == self.highest + 1

    def with_chunks(
        self, chunks: NDArray[np.void], vetoed: int, vetoed_events: int
    ) -> "StreamSum":
        """Add chunks.

        Args:
            chunks: The chunks, ``CHUNK`` [n], n > 0.
            vetoed: Their valid strides in vetoed time.
            vetoed_events: Their events in vetoed time.
        """
        start_ns = int((chunks["start_ns"] - chunks["stride_ns"]).min())
        latest = chunks[np.argmax(chunks["stop_ns"])]
        newest = self.stop_ns is None or latest["stop_ns"] > self.stop_ns
        return StreamSum(
            chunks=self.chunks + chunks.size,
            highest=max(self.highest, int(chunks["number"].max())),
            ended=self.ended or bool(chunks["last"].any()),
            size=self.size + int(chunks["size"].sum()),
            valid=self.valid + int(chunks["valid_count"].sum()) - vetoed,
            vetoed=self.vetoed + vetoed,
            events=self.events + int(chunks["event_count"].sum()) - vetoed_events,
            vetoed_events=self.vetoed_events + vetoed_events,
            start_ns=start_ns
            if self.start_ns is None
            else min(self.start_ns, start_ns),
            stop_ns=int(latest["stop_ns"]) if newest else self.stop_ns,
            arrived=float(latest["arrived"]) if newest else self.arrived,
        )


NO_CHUNKS = StreamSum()


def read_chunks(session: Session, run: RunRow, last_id: int) -> NDArray[np.void]:
    """Read a run's chunks with keys above `last_id`, ``CHUNK`` [n], ascending."""
    infinite = {"lowest": np.inf, "highest": -np.inf}
    rows = session.execute(
        select(
            *(
                func.coalesce(getattr(ChunkRow, name), infinite[name])
                if name in infinite
                else getattr(ChunkRow, name)
                for name in CHUNK.names or ()
            )
        )
        .where(ChunkRow.run_id == run.id, ChunkRow.id > last_id)
        .order_by(ChunkRow.id)
    ).all()
    return np.array([tuple(row) for row in rows], CHUNK)


def add_chunks(
    session: Session,
    run: RunRow,
    sums: Mapping[int, StreamSum],
    chunks: NDArray[np.void],
    vetoes: Vetoes,
) -> dict[int, StreamSum]:
    """Add chunks to the sums of their streams.

    Args:
        session: Database session.
        run: The run.
        sums: Sum for each stream that had chunks, by the stream's database key.
        chunks: New chunks, ``CHUNK`` [n].
        vetoes: The run's vetoes.
    """
    result = dict(sums)
    for key in np.unique(chunks["stream_id"]).tolist():
        own = chunks[chunks["stream_id"] == key]
        strides = events = 0
        if vetoes:
            stream = session.get_one(StreamRow, key)
            strides, events = _count_vetoed(session, run, stream, own, vetoes)
        result[key] = result.get(key, NO_CHUNKS).with_chunks(own, strides, events)
    return result


def _count_vetoed(
    session: Session,
    run: RunRow,
    stream: StreamRow,
    chunks: NDArray[np.void],
    vetoes: Vetoes,
) -> tuple[int, int]:
    """Count valid strides and events in vetoed time, of some chunks of a stream."""
    geometry, shifts = Geometry.from_json(run.geometry), shifts_ns(stream)
    # A chunk's events may precede its scores by this much.
    lag = report_lag(geometry, stream.cluster_length)
    earliest = min(shifts.values()) - round(lag * 1e9)
    latest = max(shifts.values())
    starts = chunks["start_ns"] - chunks["stride_ns"]
    strides = events = 0
    for key, start_ns, stop_ns in zip(
        *(part.tolist() for part in (chunks["id"], starts, chunks["stop_ns"])),
        strict=True,
    ):
        if not vetoes.touches(start_ns + earliest, stop_ns + latest):
            continue
        times = session.scalars(
            select(EventRow.time_ns).where(EventRow.chunk_id == key)
        ).all()
        vetoed = vetoed_events(np.array(times, dtype=np.int64), shifts, vetoes)
        events += int(np.count_nonzero(vetoed))
        chunk = session.execute(
            select(
                ChunkRow.start_ns,
                ChunkRow.stop_ns,
                ChunkRow.stride_ns,
                ChunkRow.size,
                ChunkRow.valid,
            ).where(ChunkRow.id == key)
        ).one()
        lost = vetoed_chunk(chunk, shifts, vetoes)
        strides += int(np.count_nonzero(lost & valid_flags(chunk)))
    return strides, events
