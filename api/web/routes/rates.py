"""Routes for background and rates: FAR, IFAR, drift, timeslides, blocks, vetoes."""

from typing import Annotated

from fastapi import Query

from chirpwatch.api.analysis import (
    background,
    ranking,
    vetoes,
)
from chirpwatch.api.analysis.drift import drift
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.answers import (
    BackgroundAnswer,
    DriftAnswer,
    FarAnswer,
    IfarAnswer,
    VetoAnswer,
    VetoDetail,
)
from chirpwatch.api.contract.status import BlockAnswer
from chirpwatch.api.web.routes.dependencies import (
    RATE_ERRORS,
    RUN_ERRORS,
    CacheOf,
    DatabaseOf,
    Finite,
    Limit,
    Offset,
    RunId,
    VetoName,
    results_router,
)

router = results_router()


@router.get("/v1/runs/{run_id}/far", responses=RATE_ERRORS)
def get_far(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    statistic: Annotated[Finite, Query(description="Detection statistic")],
    observing_time: Annotated[
        Finite | None,
        Query(ge=0, description="Time searched, s; default: the zero-lag livetime"),
    ] = None,
    model: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Digest of the model that gave the statistic; 409 if the run "
            "has another model",
        ),
    ] = None,
) -> FarAnswer:
    """False-alarm rate of a statistic, from the run's background."""
    with database.reading() as session:
        run = get_run(session, run_id)
        return ranking.far_answer(session, run, cache, statistic, observing_time, model)


@router.get("/v1/runs/{run_id}/ifar", responses=RATE_ERRORS)
def get_ifar(run_id: RunId, database: DatabaseOf, cache: CacheOf) -> IfarAnswer:
    """Inverse false-alarm rate against statistic."""
    with database.reading() as session:
        return ranking.ifar_answer(session, get_run(session, run_id), cache)


@router.get("/v1/runs/{run_id}/drift", responses=RATE_ERRORS)
def get_drift(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    last: Annotated[
        Finite, Query(gt=0, le=1e8, description="Length of the compared data, s")
    ] = 3600.0,
) -> DriftAnswer:
    """Compare the newest zero-lag event counts with background."""
    with database.reading() as session:
        return drift(session, get_run(session, run_id), cache, last)


@router.get("/v1/runs/{run_id}/background", responses=RUN_ERRORS)
def get_background(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    limit: Limit = 1000,
    offset: Offset = 0,
) -> BackgroundAnswer:
    """Event counts and livetime of the background, timeslide by timeslide."""
    with database.reading() as session:
        run = get_run(session, run_id)
        return background.background_answer(session, run, cache, limit, offset)


@router.get("/v1/runs/{run_id}/background/blocks", responses=RUN_ERRORS)
def list_blocks(run_id: RunId, database: DatabaseOf) -> list[BlockAnswer]:
    """Blocks of background that are stored; a resumed run need not send them."""
    with database.reading() as session:
        return background.list_blocks(session, get_run(session, run_id))


@router.get("/v1/runs/{run_id}/vetoes", responses=RUN_ERRORS)
def list_vetoes(run_id: RunId, database: DatabaseOf) -> list[VetoAnswer]:
    """Vetoes of a run, by name."""
    with database.reading() as session:
        return vetoes.veto_answers(session, get_run(session, run_id))


@router.get("/v1/runs/{run_id}/vetoes/{veto}", responses=RUN_ERRORS)
def get_veto(run_id: RunId, veto: VetoName, database: DatabaseOf) -> VetoDetail:
    """A veto with its segments."""
    with database.reading() as session:
        return vetoes.veto_detail(session, get_run(session, run_id), veto)
