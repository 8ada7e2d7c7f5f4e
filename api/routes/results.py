"""Reading: rates, candidates, efficiency, scores."""

import math
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy import select

from api import background, queries, scores, sensitivity
from api.answers import (
    BackgroundAnswer,
    Candidate,
    Candidates,
    Events,
    FarAnswer,
    IfarAnswer,
    IfarPointAnswer,
    InjectionsAnswer,
    Scores,
)
from api.database import StreamRow
from api.problems import ProblemError, invalid, not_found, problem_responses
from api.routes.parts import BackgroundsOf, DatabaseOf, Limit, Offset, RunId
from api.schema import MAX_TIME_NS, EventKind, Identifier
from api.status import BlockAnswer
from chirpwatch.statistics import JULIAN_YEAR, Background

router = APIRouter(tags=["results"])
_run_errors = problem_responses(404, 422, 503)
_rate_errors = problem_responses(404, 409, 422, 503)

Finite = Annotated[float, Query(allow_inf_nan=False)]


@router.get("/v1/runs/{run_id}/far", responses=_rate_errors)
def get_far(
    run_id: RunId,
    database: DatabaseOf,
    backgrounds: BackgroundsOf,
    statistic: Annotated[Finite, Query(description="Detection statistic")],
) -> FarAnswer:
    """False-alarm rate of a statistic, from this run's background alone."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        rate = backgrounds.of(session, run).far(statistic)
        return FarAnswer(
            statistic=statistic,
            ifar_years=1 / rate.far_per_year,
            model=run.model,
            **asdict(rate),
        )


@router.get("/v1/runs/{run_id}/ifar", responses=_rate_errors)
def get_ifar(
    run_id: RunId, database: DatabaseOf, backgrounds: BackgroundsOf
) -> IfarAnswer:
    """The curve of inverse false-alarm rate against statistic."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise = backgrounds.of(session, run)
    points = []
    for point in noise.ifar_curve():
        values = asdict(point)
        if math.isinf(point.ifar_years_high):
            values["ifar_years_high"] = None
        points.append(IfarPointAnswer(**values))
    return IfarAnswer(
        points=points,
        livetime=noise.livetime,
        events=noise.statistics.size,
        model=run.model,
    )


@router.get("/v1/runs/{run_id}/candidates", responses=_run_errors)
def get_candidates(
    run_id: RunId,
    database: DatabaseOf,
    backgrounds: BackgroundsOf,
    limit: Limit = 50,
) -> Candidates:
    """Zero-lag events, loudest first, with their false-alarm rates."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise: Background | None
        try:
            noise = backgrounds.of(session, run)
        except ProblemError:
            # A candidate is worth showing before there is anything to compare with.
            noise = None
        candidates = []
        for event in queries.loudest_events(session, run, "zero_lag", limit):
            rate = noise.far(event.statistic) if noise else None
            candidates.append(
                Candidate(
                    **dict(event),
                    far_per_year=rate.far_per_year if rate else None,
                    saturated=rate.saturated if rate else True,
                )
            )
        return Candidates(
            candidates=candidates,
            total=queries.count_events(session, run, "zero_lag"),
            livetime=queries.livetime(session, run, "zero_lag"),
            background_livetime=noise.livetime if noise else 0.0,
            model=run.model,
        )


@router.get("/v1/runs/{run_id}/background", responses=_run_errors)
def get_background(run_id: RunId, database: DatabaseOf) -> BackgroundAnswer:
    """Counts and livetime of the background, slide by slide."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        slides = background.slides(session, run)
    livetime = sum(slide.livetime for slide in slides)
    return BackgroundAnswer(
        events=sum(slide.events for slide in slides),
        livetime=livetime,
        lowest_far_per_year=JULIAN_YEAR / livetime if livetime else None,
        slides=slides,
        model=run.model,
    )


@router.get("/v1/runs/{run_id}/background/blocks", responses=_run_errors)
def list_blocks(run_id: RunId, database: DatabaseOf) -> list[BlockAnswer]:
    """The blocks of background that are there: what a resumed run need not send."""
    with database.reading() as session:
        return background.blocks(session, queries.get_run(session, run_id))


@router.get("/v1/runs/{run_id}/injections", responses=_rate_errors)
def get_injections(
    run_id: RunId,
    database: DatabaseOf,
    backgrounds: BackgroundsOf,
    far_per_year: Annotated[
        Finite, Query(gt=0, description="False-alarm rate, per Julian year")
    ],
) -> InjectionsAnswer:
    """Injections found and missed at a false-alarm rate.

    409 when the background is too short to reach that rate.
    """
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        return sensitivity.found_and_missed(
            session, run, backgrounds.of(session, run), far_per_year
        )


@router.get("/v1/runs/{run_id}/events", responses=_run_errors)
def get_events(
    run_id: RunId,
    database: DatabaseOf,
    kind: Annotated[EventKind, Query(description="Which kind of data")],
    limit: Limit = 1000,
    offset: Offset = 0,
) -> Events:
    """Events of one kind, loudest first."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        if kind == "background":
            return Events(
                events=background.loudest_events(session, run, limit, offset),
                total=background.count_events(session, run),
            )
        return Events(
            events=queries.loudest_events(session, run, kind, limit, offset),
            total=queries.count_events(session, run, kind),
        )


@router.get("/v1/runs/{run_id}/scores", responses=_run_errors)
def get_scores(
    run_id: RunId,
    database: DatabaseOf,
    stream: Annotated[Identifier | None, Query(description="One stream")] = None,
    kind: Annotated[
        Literal["zero_lag", "injections"],
        Query(description="All streams of a kind, where no one stream is named"),
    ] = "zero_lag",
    start_ns: Annotated[
        int, Query(ge=0, le=MAX_TIME_NS, description="Begin, GPS ns")
    ] = 0,
    stop_ns: Annotated[
        int, Query(ge=0, le=MAX_TIME_NS, description="End, GPS ns")
    ] = MAX_TIME_NS,
    points: Annotated[
        int, Query(ge=1, le=20_000, description="Most points to answer, about")
    ] = 2000,
) -> Scores:
    """Scores between two times; each point holds the extremes of its bucket."""
    if stop_ns <= start_ns:
        raise invalid("stop_ns must come after start_ns")
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        if stream is not None:
            known = select(StreamRow.id).where(
                StreamRow.run_id == run.id, StreamRow.name == stream
            )
            if session.scalar(known) is None:
                raise not_found("stream", stream)
        chunks = scores.load_chunks(
            session,
            run,
            kind=None if stream else kind,
            stream=stream,
            start_ns=start_ns,
            stop_ns=stop_ns,
        )
        return scores.thin(chunks, start_ns, stop_ns, points)
