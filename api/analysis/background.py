"""Answers about a run's background: progress, blocks, timeslides and events."""

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.background_sums import (
    RunBackground,
    block_events,
)
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.queries import stride_length
from chirpwatch.api.contract.answers import (
    BackgroundAnswer,
    EventAnswer,
    Events,
    SlideAnswer,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
)
from chirpwatch.api.contract.status import (
    BackgroundStatus,
    BlockAnswer,
)
from chirpwatch.api.storage.tables import (
    BlockRow,
    RunRow,
)
from chirpwatch.errors import StatisticsError
from chirpwatch.geometry import Geometry


def insufficient(error: StatisticsError) -> ConflictError:
    """Make the refusal of a request that the background is too short for."""
    return ConflictError(str(error), "insufficient-background")


def list_blocks(session: Session, run: RunRow) -> list[BlockAnswer]:
    """Describe a run's blocks, by number."""
    length = stride_length(run)
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


def background_status(
    session: Session, run: RunRow, cache: RunCache
) -> BackgroundStatus:
    """Report the progress and livetime of a run's own background."""
    own = cache.own_background(session, run)
    return BackgroundStatus(
        blocks=own.blocks,
        slides=sum(slide.blocks for slide in own.slides.values()),
        events=own.background.size,
        livetime=own.background.livetime,
        vetoed=own.vetoed * stride_length(run),
        planned=run.planned_background,
    )


def background_answer(
    session: Session, run: RunRow, cache: RunCache, limit: int, offset: int
) -> BackgroundAnswer:
    """Describe a run's own background, with one page of its timeslides."""
    own = cache.own_background(session, run)
    slides = list_slides(run, own)
    return BackgroundAnswer(
        events=own.background.size,
        livetime=own.background.livetime,
        lowest_far_per_year=cache.background(session, run).lowest_far_per_year,
        slides=slides[offset : offset + limit],
        total=len(slides),
        vetoes=list(cache.vetoes(session, run).names),
        model=run.model,
    )


def span(session: Session, run: RunRow) -> tuple[int | None, int | None]:
    """First and last time of a run's blocks, GPS ns; None without blocks."""
    start, stop = session.execute(
        select(func.min(BlockRow.start_ns), func.max(BlockRow.stop_ns)).where(
            BlockRow.run_id == run.id
        )
    ).one()
    return start, stop


def list_slides(run: RunRow, own: RunBackground) -> list[SlideAnswer]:
    """Describe a run's timeslides, loudest first, as the IFAR curve ends with them."""
    ifos = Geometry.from_json(run.geometry).ifos
    length = stride_length(run)
    loudest_first = sorted(
        own.slides.items(),
        key=lambda item: (
            -np.inf if item[1].loudest is None else item[1].loudest,
            item[0],
        ),
        reverse=True,
    )
    return [
        SlideAnswer(
            shifts=dict(zip(ifos, map(seconds, shifts), strict=True)),
            blocks=slide.blocks,
            events=slide.events,
            livetime=slide.valid * length,
            loudest=slide.loudest,
        )
        for shifts, slide in loudest_first
    ]


def background_events(
    session: Session, run: RunRow, cache: RunCache, limit: int, offset: int
) -> Events:
    """List background events outside vetoed time, loudest first.

    Events with equal statistics are listed in order of time.

    Raises:
        InvalidError: The page reaches beyond the events whose exact statistics are
            cached.
    """
    background = cache.own_background(session, run).background
    vetoes = cache.vetoes(session, run)
    wanted = limit + offset
    lowest = -np.inf
    if 0 < wanted <= background.loud.size:
        lowest = background.loud[background.loud.size - wanted]
    elif background.quiet.size:
        raise InvalidError(
            f"expected offset + limit of at most {background.loud.size}, the loudest "
            f"of {background.size} events, found {wanted}; the export has all events"
        )
    order: list[tuple[float, int, int, int]] = []
    for block in block_events(session, run, vetoes, lowest):
        order += zip(
            (-block.events["statistic"]).tolist(),
            block.times_ns.tolist(),
            [block.number] * block.events.size,
            block.events["slide"].tolist(),
            strict=True,
        )
    return Events(
        events=[
            EventAnswer(
                time_ns=time_ns,
                time=seconds(time_ns),
                statistic=-negative,
                stream=f"{number}/{slide}",
            )
            for negative, time_ns, number, slide in sorted(order)[offset:wanted]
        ],
        total=background.size,
    )
