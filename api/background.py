"""Reading background: its blocks, its slides, and its statistics all together."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.answers import EventAnswer, Slide
from api.database import EVENT, BlockRow, RunRow
from api.problems import ProblemError
from api.queries import seconds, stride
from api.status import BackgroundStatus, BlockAnswer
from chirpwatch.errors import StatisticsError
from chirpwatch.statistics import Background

MAX_KEPT_SIZE = 256 * 1024 * 1024
"""Most memory that the kept backgrounds take, bytes; the newest is always kept."""


class Backgrounds:
    """The backgrounds asked for last, ready to be asked again; safe to share.

    Blocks are never changed or removed, so a background is known by its run and the
    number of its blocks.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Background] = OrderedDict()
        self._lock = threading.Lock()
        # The page asks several things at once: one of them reads, the others wait.
        self._loading = threading.Lock()

    def of(self, session: Session, run: RunRow) -> Background:
        """The background of a run.

        Raises:
            ProblemError: There is no background livetime (yet).
        """
        count = session.scalar(
            select(func.count()).select_from(BlockRow).where(BlockRow.run_id == run.id)
        )
        key = (run.id, count or 0)
        found = self._find(key)
        if found is not None:
            return found
        with self._loading:
            found = self._find(key)
            if found is None:
                found = _load(session, run)
                self._keep(key, found)
        return found

    def _find(self, key: tuple[str, int]) -> Background | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, int], background: Background) -> None:
        with self._lock:
            # Of a run, only the state that was asked for last is of use.
            for old in [old for old in self._kept if old[0] == key[0]]:
                del self._kept[old]
            self._kept[key] = background
            sizes = [one.statistics.nbytes for one in self._kept.values()]
            while len(sizes) > 1 and sum(sizes) > MAX_KEPT_SIZE:
                self._kept.popitem(last=False)
                sizes.pop(0)


def _load(session: Session, run: RunRow) -> Background:
    rows = session.execute(
        select(BlockRow.valid_count, BlockRow.events).where(BlockRow.run_id == run.id)
    ).all()
    statistics = [np.frombuffer(row.events, dtype=EVENT)["statistic"] for row in rows]
    livetime = int(sum(row.valid_count for row in rows)) * stride(run)
    try:
        return Background.of(
            np.concatenate([np.empty(0, dtype="<f4"), *statistics]), livetime
        )
    except StatisticsError as error:
        raise insufficient(error) from None


def insufficient(error: StatisticsError) -> ProblemError:
    """The problem that the background cannot answer."""
    return ProblemError(409, "insufficient-background", str(error))


def blocks(session: Session, run: RunRow) -> list[BlockAnswer]:
    """The blocks of a run, by number."""
    length = stride(run)
    rows = session.execute(
        select(
            BlockRow.number,
            BlockRow.start_ns,
            BlockRow.strides,
            BlockRow.slides,
            BlockRow.event_count,
            BlockRow.valid_count,
        )
        .where(BlockRow.run_id == run.id)
        .order_by(BlockRow.number)
    )
    return [
        BlockAnswer(
            number=row.number,
            start_ns=row.start_ns,
            strides=row.strides,
            slides=row.slides,
            events=row.event_count,
            livetime=row.valid_count * length,
        )
        for row in rows
    ]


def status(session: Session, run: RunRow) -> BackgroundStatus:
    """How much background a run has."""
    parts = blocks(session, run)
    return BackgroundStatus(
        blocks=len(parts),
        slides=sum(part.slides for part in parts),
        events=sum(part.events for part in parts),
        livetime=sum(part.livetime for part in parts),
        planned=run.planned_background,
    )


def span(session: Session, run: RunRow) -> tuple[int | None, int | None]:
    """First and last time of the blocks of a run, GPS ns; none without blocks."""
    start, stop = session.execute(
        select(func.min(BlockRow.start_ns), func.max(BlockRow.stop_ns)).where(
            BlockRow.run_id == run.id
        )
    ).one()
    return start, stop


def slides(session: Session, run: RunRow) -> list[Slide]:
    """Background by shifts, in the order they came."""
    rows = session.execute(
        select(
            BlockRow.shifts,
            BlockRow.valid_counts,
            BlockRow.event_counts,
            BlockRow.loudest,
        )
        .where(BlockRow.run_id == run.id)
        .order_by(BlockRow.number)
    )
    groups: dict[tuple[tuple[str, float], ...], list[tuple[int, int, float]]] = {}
    for shifts, valid, events, loudest in rows:
        names = sorted(shifts)
        numbers = zip(
            np.frombuffer(valid, dtype="<i4").tolist(),
            np.frombuffer(events, dtype="<i4").tolist(),
            np.frombuffer(loudest, dtype="<f4").tolist(),
            strict=True,
        )
        values = zip(*(shifts[name] for name in names), strict=True)
        for shift, counts in zip(values, numbers, strict=True):
            key = tuple(zip(names, shift, strict=True))
            groups.setdefault(key, []).append(counts)
    length = stride(run)
    return [
        Slide(
            shifts=dict(key),
            blocks=len(parts),
            events=sum(events for _, events, _ in parts),
            livetime=sum(valid for valid, _, _ in parts) * length,
            loudest=max((loud for _, events, loud in parts if events), default=None),
        )
        for key, parts in groups.items()
    ]


def count_events(session: Session, run: RunRow) -> int:
    """Background events."""
    query = select(func.sum(BlockRow.event_count)).where(BlockRow.run_id == run.id)
    return int(session.scalar(query) or 0)


def loudest_events(
    session: Session, run: RunRow, limit: int, offset: int
) -> list[EventAnswer]:
    """Background events, loudest first, the earlier first where two are alike."""
    rows = session.execute(
        select(
            BlockRow.number, BlockRow.start_ns, BlockRow.stride_ns, BlockRow.events
        ).where(BlockRow.run_id == run.id)
    ).all()
    parts = [np.frombuffer(row.events, dtype=EVENT) for row in rows]
    events = np.concatenate([np.empty(0, dtype=EVENT), *parts])
    block = np.repeat(np.arange(len(rows)), [part.size for part in parts])
    kept = _loudest(events["statistic"], offset + limit)
    events, block = events[kept], block[kept]
    times = _times(rows, events, block)
    order = np.lexsort((events["slide"], block, times, -events["statistic"]))
    return [
        EventAnswer(
            time_ns=int(times[i]),
            time=seconds(int(times[i])),
            statistic=float(events["statistic"][i]),
            stream=f"{rows[block[i]].number}/{events['slide'][i]}",
        )
        for i in order[offset : offset + limit]
    ]


def _loudest(statistics: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Where the `count` largest are, with all that equal the least of them."""
    if count >= statistics.size:
        return np.arange(statistics.size)
    least = np.partition(statistics, statistics.size - count)[statistics.size - count]
    return np.flatnonzero(statistics >= least)


def _times(
    rows: Any, events: NDArray[np.void], block: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Time of each event at the first detector, GPS ns."""
    starts = np.array([row.start_ns for row in rows], dtype=np.int64)[block]
    strides = np.array([row.stride_ns for row in rows], dtype=np.int64)[block]
    delays = np.rint(events["delay"].astype(np.float64) * 1e9).astype(np.int64)
    times: NDArray[np.int64] = starts + (events["stride"] + 1) * strides - delays
    return times
