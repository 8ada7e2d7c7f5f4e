"""Sums over a run's blocks of background, slide by slide, outside vetoed time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.vetoes import Vetoes
from chirpwatch.api.storage.blocks import (
    KEPT_PER_BLOCK,
    unpack_shifts,
)
from chirpwatch.api.storage.tables import (
    EVENT,
    BlockRow,
    Columns,
    RunRow,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry
from chirpwatch.score_times import merger_ns

KEPT_PER_RUN = 2**18
"""Loudest background events of a run whose exact statistics are kept; others are
binned."""

SUMMED_AT_ONCE = 64
"""Blocks that are read and summed at a time."""

READ_AT_ONCE = 16
"""Blocks whose events are read at a time."""


@dataclass(frozen=True)
class SlideSum:
    """Background at one set of shifts.

    Attributes:
        blocks: Blocks with these shifts.
        events: Background events.
        valid: Valid strides.
        loudest: Largest statistic; None without events.
    """

    blocks: int
    events: int
    valid: int
    loudest: float | None

    def __add__(self, other: "SlideSum") -> "SlideSum":
        loudest = [sum_.loudest for sum_ in (self, other) if sum_.loudest is not None]
        return SlideSum(
            self.blocks + other.blocks,
            self.events + other.events,
            self.valid + other.valid,
            max(loudest, default=None),
        )


@dataclass(frozen=True)
class RunBackground:
    """A run's own background, outside vetoed time.

    Attributes:
        last_id: Database key of the newest block that is included.
        blocks: Number of blocks.
        valid: Valid strides of all slides.
        vetoed: Valid strides that vetoes remove; not part of `valid`.
        background: Statistics of the events, with the livetime of `valid`.
        slides: Sum for each set of shifts (ns, one for each detector), in order of
            arrival.
    """

    last_id: int = 0
    blocks: int = 0
    valid: int = 0
    vetoed: int = 0
    background: Background = field(default_factory=lambda: Background(np.empty(0), 0.0))
    slides: Mapping[tuple[int, ...], SlideSum] = field(default_factory=dict)


def add_new_blocks(
    session: Session, run: RunRow, old: RunBackground, vetoes: Vetoes
) -> RunBackground:
    """Add the blocks that arrived after those in `old`."""
    geometry = Geometry.from_json(run.geometry)
    slides = dict(old.slides)
    background, last_id, blocks = old.background, old.last_id, old.blocks
    valid, new_valid = old.valid, 0
    for rows in _new_blocks(session, run, old.last_id):
        parts = [background]
        for row in rows:
            block = _sum_of_block(session, row, geometry.ifos, vetoes)
            parts.append(block.statistics)
            new_valid += row.valid_count
            shifts = unpack_shifts(row.shifts, len(geometry.ifos)).tolist()
            for shift, slide in zip(map(tuple, shifts), block.slides, strict=True):
                slides[shift] = slides[shift] + slide if shift in slides else slide
                valid += slide.valid
        background = Background.merge(parts, KEPT_PER_RUN)
        last_id, blocks = rows[-1].id, blocks + len(rows)
    return RunBackground(
        last_id=last_id,
        blocks=blocks,
        valid=valid,
        vetoed=old.vetoed + new_valid - (valid - old.valid),
        background=replace(background, livetime=valid * geometry.stride_length),
        slides=slides,
    )


def _new_blocks(
    session: Session, run: RunRow, last_id: int
) -> Iterator[Sequence[Columns]]:
    """Read the blocks after `last_id` in batches, without their large columns."""
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
        .execution_options(yield_per=SUMMED_AT_ONCE)
    )
    return session.execute(query).partitions()


@dataclass(frozen=True)
class _BlockSum:
    """What a block adds to its run's background.

    Attributes:
        statistics: Statistics of all its events; the livetime is left at 0 s.
        slides: Sum for each slide.
    """

    statistics: Background
    slides: list[SlideSum]


def _sum_of_block(
    session: Session, row: Columns, ifos: tuple[str, ...], vetoes: Vetoes
) -> _BlockSum:
    if vetoes.touches(row.start_ns, row.stop_ns):
        return _sum_of_vetoed_block(session, row, ifos, vetoes)
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
    return _BlockSum(
        statistics,
        [
            SlideSum(1, events, valid, loudest if events else None)
            for events, valid, loudest in counts
        ],
    )


def _sum_of_vetoed_block(
    session: Session, row: Columns, ifos: tuple[str, ...], vetoes: Vetoes
) -> _BlockSum:
    """Sum the events and strides of a block that are outside vetoed time."""
    block = session.execute(
        select(BlockRow.events, BlockRow.valid).where(BlockRow.id == row.id)
    ).one()
    events = np.frombuffer(block.events, EVENT)
    events = events[~_vetoed_events(row, events, ifos, vetoes)]
    ranges = np.frombuffer(block.valid, "<i4").reshape(-1, 3)
    shifts = unpack_shifts(row.shifts, len(ifos)).tolist()
    # Events and ranges are both ordered by slide.
    edges = np.arange(len(shifts) + 1)
    event_edges = np.searchsorted(events["slide"], edges)
    range_edges = np.searchsorted(ranges[:, 0], edges)
    slides = []
    for number, slide_shifts in enumerate(shifts):
        shift_of = dict(zip(ifos, slide_shifts, strict=True))
        vetoed = vetoes.slide_strides(
            row.start_ns, row.stride_ns, row.strides, shift_of
        )
        valid = sum(
            int(np.count_nonzero(~vetoed[begin:end]))
            for begin, end in ranges[slice(*range_edges[number : number + 2]), 1:]
        )
        statistics = events["statistic"][slice(*event_edges[number : number + 2])]
        loudest = float(statistics.max()) if statistics.size else None
        slides.append(SlideSum(1, statistics.size, valid, loudest))
    background = Background.of(events["statistic"], 1.0, KEPT_PER_BLOCK)
    return _BlockSum(replace(background, livetime=0.0), slides)


@dataclass(frozen=True)
class BlockEvents:
    """Events of one block outside vetoed time.

    Attributes:
        number: The block's number.
        events: The events, ``EVENT`` [n].
        times_ns: Time of each event at the first detector, GPS ns, [n].
    """

    number: int
    events: NDArray[np.void]
    times_ns: NDArray[np.int64]


def block_events(
    session: Session, run: RunRow, vetoes: Vetoes, lowest: float = -np.inf
) -> Iterator[BlockEvents]:
    """Read a run's background events outside vetoed time, block by block.

    Args:
        session: Database session.
        run: The run.
        vetoes: The run's vetoes.
        lowest: Smallest statistic to read.
    """
    ifos = Geometry.from_json(run.geometry).ifos
    rows = session.execute(
        select(
            BlockRow.number,
            BlockRow.start_ns,
            BlockRow.stop_ns,
            BlockRow.stride_ns,
            BlockRow.shifts,
            BlockRow.events,
        )
        .where(BlockRow.run_id == run.id, BlockRow.peak >= float(lowest))
        .order_by(BlockRow.number)
        .execution_options(yield_per=READ_AT_ONCE)
    )
    for row in rows:
        events = np.frombuffer(row.events, dtype=EVENT)
        events = events[events["statistic"] >= lowest]
        events = events[~_vetoed_events(row, events, ifos, vetoes)]
        yield BlockEvents(row.number, events, _event_times(row, events))


def _event_times(row: Columns, events: NDArray[np.void]) -> NDArray[np.int64]:
    """Time of each event of a block at the first detector, GPS ns, [n]."""
    return merger_ns(row.start_ns, row.stride_ns, events["stride"], events["delay"])


def _vetoed_events(
    row: Columns, events: NDArray[np.void], ifos: tuple[str, ...], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each event of a block is vetoed at any detector's own time, [n]."""
    vetoed = np.zeros(events.size, dtype=bool)
    if not vetoes.touches(row.start_ns, row.stop_ns):
        return vetoed
    offsets = _event_times(row, events) - row.start_ns
    length = row.stop_ns - row.start_ns
    shifts = unpack_shifts(row.shifts, len(ifos))
    for ifo, shift in zip(ifos, shifts.T, strict=True):
        own_times = row.start_ns + (offsets + shift[events["slide"]]) % length
        vetoed |= vetoes.vetoed(ifo, own_times)
    return vetoed
