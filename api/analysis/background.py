"""Reading background: its blocks, its slides, its events."""

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import stride
from chirpwatch.api.analysis.summaries import (
    Accumulated,
    RunBackground,
    block_times,
    vetoed_block_events,
)
from chirpwatch.api.contract.answers import (
    EventAnswer,
    Slide,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
)
from chirpwatch.api.contract.status import (
    BackgroundStatus,
    BlockAnswer,
)
from chirpwatch.api.storage.database import (
    EVENT,
    BlockRow,
    RunRow,
)
from chirpwatch.errors import StatisticsError
from chirpwatch.geometry import Geometry


def insufficient(error: StatisticsError) -> ConflictError:
    """The refusal of what the background cannot answer."""
    return ConflictError(str(error), "insufficient-background")


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


def status(session: Session, run: RunRow, accumulated: Accumulated) -> BackgroundStatus:
    """How much background a run has."""
    known = accumulated.background(session, run)
    return BackgroundStatus(
        blocks=known.blocks,
        slides=sum(slide.blocks for slide in known.slides.values()),
        events=known.background.size,
        livetime=known.background.livetime,
        vetoed=known.vetoed * stride(run),
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


def slides(run: RunRow, known: RunBackground) -> list[Slide]:
    """Background by shifts, the loudest first: they make the end of the IFAR curve."""
    ifos = Geometry.from_json(run.geometry).ifos
    length = stride(run)
    loudest_first = sorted(
        known.slides.items(),
        key=lambda item: (
            -np.inf if item[1].loudest is None else item[1].loudest,
            item[0],
        ),
        reverse=True,
    )
    return [
        Slide(
            shifts=dict(zip(ifos, map(seconds, shifts), strict=True)),
            blocks=slide.blocks,
            events=slide.events,
            livetime=slide.valid * length,
            loudest=slide.loudest,
        )
        for shifts, slide in loudest_first
    ]


def loudest_events(
    session: Session, run: RunRow, accumulated: Accumulated, limit: int, offset: int
) -> list[EventAnswer]:
    """Background events, loudest first, the earlier first where two are alike.

    Raises:
        RefusalError: So many are asked for that not all of them are known one by one.
    """
    noise = accumulated.background(session, run).background
    vetoes = accumulated.vetoes(session, run)
    wanted = limit + offset
    least = -np.inf
    if 0 < wanted <= noise.loud.size:
        least = noise.loud[noise.loud.size - wanted]
    elif noise.quiet.size:
        raise InvalidError(
            f"expected offset and limit of {noise.loud.size} events together at most, "
            f"the loudest of {noise.size} that are at hand one by one; found {wanted}. "
            "The export has all of them"
        )
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
        .where(BlockRow.run_id == run.id, BlockRow.peak >= float(least))
        .execution_options(yield_per=16)
    )
    found: list[tuple[float, int, int, int]] = []
    for row in rows:
        events = np.frombuffer(row.events, dtype=EVENT)
        events = events[events["statistic"] >= least]
        events = events[~vetoed_block_events(row, events, ifos, vetoes)]
        found += zip(
            (-events["statistic"]).tolist(),
            block_times(row, events).tolist(),
            [row.number] * events.size,
            events["slide"].tolist(),
            strict=True,
        )
    return [
        EventAnswer(
            time_ns=time,
            time=seconds(time),
            statistic=-negative,
            stream=f"{block}/{slide}",
        )
        for negative, time, block, slide in sorted(found)[offset:wanted]
    ]
