"""What a run has so far, put together as it comes and kept ready.

Blocks and chunks are never changed or removed, so that what is known of a run is
brought up to date by those that came since; only a change of its vetoes begins anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    load_vetoes,
    shifts_ns,
    vetoed_chunk,
    vetoed_events,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
)
from chirpwatch.api.storage.blocks import (
    KEPT_OF_BLOCK,
    unpack_shifts,
)
from chirpwatch.api.storage.database import (
    EVENT,
    BlockRow,
    ChunkRow,
    Columns,
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry
from chirpwatch.score_times import merger_ns

KEPT = 2**18
"""Background events of a run that are known one by one; the quieter are counted."""

KEPT_RUNS = 64
BATCH = 64
"""Blocks that are read and put together at a time."""

Made = TypeVar("Made")

_NOTHING = Background(np.empty(0), 0.0)


@dataclass(frozen=True)
class SlideSum:
    """Background of one set of shifts.

    Attributes:
        blocks: Blocks with these shifts.
        events: Background events.
        valid: Valid strides.
        loudest: Largest statistic; none without events.
    """

    blocks: int
    events: int
    valid: int
    loudest: float | None

    def __add__(self, other: "SlideSum") -> "SlideSum":
        both = [one for one in (self.loudest, other.loudest) if one is not None]
        return SlideSum(
            self.blocks + other.blocks,
            self.events + other.events,
            self.valid + other.valid,
            max(both, default=None),
        )


@dataclass(frozen=True)
class RunBackground:
    """All background of a run, without what is vetoed.

    Attributes:
        last_id: The newest block's.
        blocks: Blocks of the run.
        valid: Valid strides of all slides.
        vetoed: Valid strides that vetoes have taken, in none of the other numbers.
        background: Statistics of the events; its livetime is that of `valid`.
        slides: By the shifts of the run's detectors, ns, as they came.
    """

    last_id: int = 0
    blocks: int = 0
    valid: int = 0
    vetoed: int = 0
    background: Background = _NOTHING
    slides: Mapping[tuple[int, ...], SlideSum] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamSum:
    """What is there of a stream.

    Attributes:
        chunks: Chunks.
        highest: Largest number of one; -1 without any.
        ended: Whether the last one is there.
        size: Strides.
        valid: Valid ones that no veto takes.
        vetoed: Valid ones that a veto takes.
        events: Events that no veto takes.
        vetoed_events: Events that a veto takes.
        start_ns, stop_ns: First and last time, GPS ns; none without chunks.
        arrived: When the chunk of the last time came, Unix time, s.
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
        """Whether every chunk to the last is there."""
        # Numbers are unique and none exceeds the last one's, so counting suffices.
        return self.ended and self.chunks == self.highest + 1

    def with_chunks(
        self, chunks: NDArray[np.void], vetoed: int, vetoed_events: int
    ) -> "StreamSum":
        """The same with more ``CHUNK`` [n], and what vetoes take of them."""
        begin = int((chunks["start_ns"] - chunks["stride_ns"]).min())
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
            start_ns=begin if self.start_ns is None else min(self.start_ns, begin),
            stop_ns=int(latest["stop_ns"]) if newest else self.stop_ns,
            arrived=float(latest["arrived"]) if newest else self.arrived,
        )


NO_STREAM = StreamSum()


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
"""What is kept of each chunk; the extremes of the valid scores are infinite where no
score is valid."""


@dataclass(frozen=True)
class _Known:
    """What is known of one run with the vetoes that it has."""

    vetoing: int
    vetoes: Vetoes
    background: RunBackground = RunBackground()
    chunks: int = 0
    streams: Mapping[int, StreamSum] = field(default_factory=dict)


def noise_run(session: Session, run: RunRow) -> RunRow:
    """The run whose background a run's rates rest on."""
    if run.background_run is None:
        return run
    other = session.get(RunRow, run.background_run)
    assert other is not None
    return other


class _Place:
    """Where one run is kept; who reads for it holds the lock, and the others wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: _Known | None = None
        self.chunks: NDArray[np.void] = np.empty(0, CHUNK)
        self.making = threading.Lock()
        self.made: tuple[int, Any] | None = None


class Accumulated:
    """What is known of the runs that were asked for last; safe to share.

    It may be newer than what a session sees, by what came since the session began; what
    is told of a run's events and of their livetime is of one moment all the same.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def vetoes(self, session: Session, run: RunRow) -> Vetoes:
        """The vetoes of a run."""
        place = self._place(run)
        with place.lock:
            return _current(place, session, run).vetoes

    def background(self, session: Session, run: RunRow) -> RunBackground:
        """The background of a run, which may be empty."""
        newest = session.scalar(
            select(func.max(BlockRow.id)).where(BlockRow.run_id == run.id)
        )
        place = self._place(run)
        with place.lock:
            known = _current(place, session, run)
            if (newest or 0) > known.background.last_id:
                more = _with_new_blocks(session, run, known)
                known = _keep(place, replace(known, background=more))
            return known.background

    def noise(self, session: Session, run: RunRow) -> Background:
        """The background that a run's rates rest on, which may be empty."""
        return self.background(session, noise_run(session, run)).background

    def statistics(self, session: Session, run: RunRow) -> Background:
        """The same, to take rates from.

        Raises:
            RefusalError: There is no background livetime (yet).
        """
        background = self.noise(session, run)
        if not background.livetime:
            raise ConflictError(
                f"background of run {run.id!r}: expected a livetime above 0 s, found "
                "0 s; a false-alarm rate needs timeslides with valid data",
                "insufficient-background",
            )
        return background

    def streams(self, session: Session, run: RunRow) -> Mapping[int, StreamSum]:
        """What is there of the streams of a run, by their key; of those with chunks."""
        place = self._place(run)
        with place.lock:
            known = _current(place, session, run)
            chunks = _chunks(place, session, run)
            # Another session may have seen more, which this one could not look up.
            newest = session.scalar(
                select(func.max(ChunkRow.id)).where(ChunkRow.run_id == run.id)
            )
            chunks = chunks[: np.searchsorted(chunks["id"], newest or 0, "right")]
            if chunks.size > known.chunks:
                more = _with_new_chunks(session, run, known, chunks[known.chunks :])
                known = replace(known, chunks=chunks.size, streams=more)
            return _keep(place, known).streams

    def chunks(self, session: Session, run: RunRow) -> NDArray[np.void]:
        """All chunks of a run, ``CHUNK`` [n], as they came."""
        place = self._place(run)
        with place.lock:
            return _chunks(place, session, run)

    def once(self, run: RunRow, make: Callable[[], Made]) -> Made:
        """What `make` gives for this state of a run, made once while it lasts."""
        place = self._place(run)
        with place.making:
            if place.made is None or place.made[0] != run.revision:
                place.made = run.revision, make()
            made: Made = place.made[1]
            return made

    def _place(self, run: RunRow) -> _Place:
        with self._lock:
            place = self._places.setdefault(run.id, _Place())
            self._places.move_to_end(run.id)
            while len(self._places) > KEPT_RUNS:
                self._places.popitem(last=False)
            return place


def _current(place: _Place, session: Session, run: RunRow) -> _Known:
    """What is known of a run with the vetoes that the session sees, or newer ones."""
    if place.known is None or place.known.vetoing < run.vetoing:
        place.known = _Known(run.vetoing, load_vetoes(session, run))
    return place.known


def _chunks(place: _Place, session: Session, run: RunRow) -> NDArray[np.void]:
    """All chunks of a run: those that are known, and those that came since."""
    last = int(place.chunks["id"][-1]) if place.chunks.size else 0
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
        .where(ChunkRow.run_id == run.id, ChunkRow.id > last)
        .order_by(ChunkRow.id)
    ).all()
    if rows:
        more = np.array([tuple(row) for row in rows], CHUNK)
        place.chunks = np.concatenate([place.chunks, more])
    return place.chunks


def _keep(place: _Place, known: _Known) -> _Known:
    place.known = known
    return known


def _with_new_blocks(session: Session, run: RunRow, known: _Known) -> RunBackground:
    """Add the blocks that came since."""
    geometry = Geometry.from_json(run.geometry)
    old = known.background
    slides = dict(old.slides)
    whole, last, valid, all_valid = old.background, old.last_id, old.valid, 0
    blocks = old.blocks
    for rows in _new_blocks(session, run, old.last_id):
        parts = [whole]
        for row in rows:
            part = _summary(session, row, geometry.ifos, known.vetoes)
            parts.append(part.statistics)
            all_valid += row.valid_count
            shifts = unpack_shifts(row.shifts, len(geometry.ifos)).tolist()
            for shift, more in zip(map(tuple, shifts), part.slides, strict=True):
                slides[shift] = slides[shift] + more if shift in slides else more
                valid += more.valid
        whole = Background.together(parts, KEPT)
        last, blocks = rows[-1].id, blocks + len(rows)
    livetime = valid * geometry.stride_length
    return RunBackground(
        last_id=last,
        blocks=blocks,
        valid=valid,
        vetoed=old.vetoed + all_valid - (valid - old.valid),
        background=replace(whole, livetime=livetime),
        slides=slides,
    )


def _new_blocks(
    session: Session, run: RunRow, last_id: int
) -> Iterator[Sequence[Columns]]:
    query = (
        select(
            BlockRow.id,
            BlockRow.start_ns,
            BlockRow.stop_ns,
            BlockRow.stride_ns,
            BlockRow.strides,
            BlockRow.valid_count,
            BlockRow.floor,
            BlockRow.shifts,
            BlockRow.loud,
            BlockRow.quiet,
            BlockRow.valid_counts,
            BlockRow.event_counts,
            BlockRow.loudest,
        )
        .where(BlockRow.run_id == run.id, BlockRow.id > last_id)
        .order_by(BlockRow.id)
        .execution_options(yield_per=BATCH)
    )
    return session.execute(query).partitions()


@dataclass(frozen=True)
class _Summary:
    """What a block adds: statistics of its events, and counts of its slides."""

    statistics: Background
    slides: list[SlideSum]


def _summary(
    session: Session, row: Columns, ifos: tuple[str, ...], vetoes: Vetoes
) -> _Summary:
    if vetoes.touches(row.start_ns, row.stop_ns):
        return _vetoed_summary(session, row, ifos, vetoes)
    statistics = Background(
        np.frombuffer(row.loud, "<f4").astype(float),
        0.0,
        -np.inf if row.floor is None else row.floor,
        np.frombuffer(row.quiet, "<i4").astype(np.int64),
    )
    counts = zip(
        np.frombuffer(row.event_counts, "<i4").tolist(),
        np.frombuffer(row.valid_counts, "<i4").tolist(),
        np.frombuffer(row.loudest, "<f4").tolist(),
        strict=True,
    )
    return _Summary(
        statistics,
        [
            SlideSum(1, events, valid, loudest if events else None)
            for events, valid, loudest in counts
        ],
    )


def _vetoed_summary(
    session: Session, row: Columns, ifos: tuple[str, ...], vetoes: Vetoes
) -> _Summary:
    """The summary of what the vetoes leave of a block."""
    block = session.execute(
        select(BlockRow.events, BlockRow.valid).where(BlockRow.id == row.id)
    ).one()
    events = np.frombuffer(block.events, EVENT)
    events = events[~vetoed_block_events(row, events, ifos, vetoes)]
    ranges = np.frombuffer(block.valid, "<i4").reshape(-1, 3)
    shifts = slide_shifts_ns(row, ifos)
    # Both are in order of the slides.
    edges = np.arange(len(shifts) + 1)
    event_edges = np.searchsorted(events["slide"], edges)
    range_edges = np.searchsorted(ranges[:, 0], edges)
    slides = []
    for number, shift in enumerate(shifts):
        lost = vetoes.slide_strides(row.start_ns, row.stride_ns, row.strides, shift)
        valid = sum(
            int(np.count_nonzero(~lost[begin:end]))
            for begin, end in ranges[slice(*range_edges[number : number + 2]), 1:]
        )
        mine = events["statistic"][slice(*event_edges[number : number + 2])]
        loudest = float(mine.max()) if mine.size else None
        slides.append(SlideSum(1, mine.size, valid, loudest))
    statistics = Background.of(events["statistic"], 1.0, KEPT_OF_BLOCK)
    return _Summary(replace(statistics, livetime=0.0), slides)


def slide_shifts_ns(row: Columns, ifos: tuple[str, ...]) -> list[dict[str, int]]:
    """The shifts of each slide of a block, ns."""
    return [
        dict(zip(ifos, shifts, strict=True))
        for shifts in unpack_shifts(row.shifts, len(ifos)).tolist()
    ]


def block_times(row: Columns, events: NDArray[np.void]) -> NDArray[np.int64]:
    """Time of each event of a block at the first detector, GPS ns."""
    return merger_ns(row.start_ns, row.stride_ns, events["stride"], events["delay"])


def vetoed_block_events(
    row: Columns, events: NDArray[np.void], ifos: tuple[str, ...], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each event of a block is vetoed at any detector's own time."""
    vetoed = np.zeros(events.size, dtype=bool)
    if not vetoes.touches(row.start_ns, row.stop_ns):
        return vetoed
    after = block_times(row, events) - row.start_ns
    length = row.stop_ns - row.start_ns
    shifts = unpack_shifts(row.shifts, len(ifos))
    for ifo, shift in zip(ifos, shifts.T, strict=True):
        own = row.start_ns + (after + shift[events["slide"]]) % length
        vetoed |= vetoes.vetoed(ifo, own)
    return vetoed


def _with_new_chunks(
    session: Session, run: RunRow, known: _Known, chunks: NDArray[np.void]
) -> dict[int, StreamSum]:
    """Add the chunks that came since."""
    result = dict(known.streams)
    for key in np.unique(chunks["stream_id"]).tolist():
        mine = chunks[chunks["stream_id"] == key]
        vetoed = vetoed_events = 0
        if known.vetoes:
            stream = session.get_one(StreamRow, key)
            vetoed, vetoed_events = _vetoed_of(session, run, stream, mine, known.vetoes)
        old = result.get(key, NO_STREAM)
        result[key] = old.with_chunks(mine, vetoed, vetoed_events)
    return result


def _vetoed_of(
    session: Session,
    run: RunRow,
    stream: StreamRow,
    chunks: NDArray[np.void],
    vetoes: Vetoes,
) -> tuple[int, int]:
    """Valid strides and events that vetoes take of some chunks of a stream."""
    geometry, shifts = Geometry.from_json(run.geometry), shifts_ns(stream)
    # An event may lie so long before the score that closed its cluster.
    lag = stream.cluster_length + geometry.kernel_length + geometry.fduration
    first = min(shifts.values()) - round(lag * 1e9)
    last = max(shifts.values())
    begins = chunks["start_ns"] - chunks["stride_ns"]
    strides = events = 0
    for key, begin_ns, stop_ns in zip(
        *(part.tolist() for part in (chunks["id"], begins, chunks["stop_ns"])),
        strict=True,
    ):
        if not vetoes.touches(begin_ns + first, stop_ns + last):
            continue
        times = session.scalars(
            select(EventRow.time_ns).where(EventRow.chunk_id == key)
        ).all()
        gone = vetoed_events(np.array(times, dtype=np.int64), shifts, vetoes)
        events += int(np.count_nonzero(gone))
        chunk = session.execute(
            select(
                ChunkRow.start_ns,
                ChunkRow.stop_ns,
                ChunkRow.stride_ns,
                ChunkRow.size,
                ChunkRow.valid,
            ).where(ChunkRow.id == key)
        ).one()
        bits = np.frombuffer(chunk.valid, np.uint8)
        valid = np.unpackbits(bits, count=chunk.size).astype(bool)
        lost = vetoed_chunk(chunk, shifts, vetoes)
        strides += int(np.count_nonzero(lost & valid))
    return strides, events
