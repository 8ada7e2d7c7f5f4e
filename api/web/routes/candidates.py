"""Routes for candidates, and their strain."""

from typing import Annotated

from fastapi import Path, Query

from chirpwatch.api.analysis import (
    candidate_strain,
    candidates,
)
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.candidate_answers import (
    CandidateDetail,
    Candidates,
    QTransform,
    Whitened,
)
from chirpwatch.api.contract.fields import (
    MAX_TIME_NS,
    Ifo,
)
from chirpwatch.api.web.routes.dependencies import (
    RATE_ERRORS,
    RUN_ERRORS,
    CacheOf,
    DatabaseOf,
    Finite,
    Limit,
    Offset,
    RunId,
    StartNs,
    StopNs,
    TimePath,
    interval,
    results_router,
)

router = results_router()


@router.get("/v1/runs/{run_id}/candidates", responses=RATE_ERRORS)
def get_candidates(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    limit: Limit = 50,
    offset: Offset = 0,
    merger_rate: Annotated[
        Finite | None,
        Query(
            gt=0,
            description="Mergers of the injections' population, per Gpc^3 and year; "
            "adds `odds` to each candidate",
        ),
    ] = None,
    start_ns: StartNs = 0,
    stop_ns: StopNs = MAX_TIME_NS,
) -> Candidates:
    """Zero-lag events with their false-alarm rates, loudest first.

    With `merger_rate`, each candidate has the probability that it is a merger. The
    answer is then 409 if the injections were not drawn in volume, or if there are too
    few injections or background events.
    """
    between = interval(start_ns, stop_ns)
    with database.reading() as session:
        return candidates.list_candidates(
            session,
            get_run(session, run_id),
            cache,
            limit,
            offset,
            # Without the condition on time, the query uses the index on statistics.
            None if between == (0, MAX_TIME_NS) else between,
            merger_rate,
        )


@router.get("/v1/runs/{run_id}/candidates/{time_ns}", responses=RUN_ERRORS)
def get_candidate(
    run_id: RunId, time_ns: TimePath, database: DatabaseOf, cache: CacheOf
) -> CandidateDetail:
    """A candidate, and the events and data quality nearby."""
    with database.reading() as session:
        run = get_run(session, run_id)
        return candidates.candidate_detail(session, run, cache, time_ns)


@router.get("/v1/runs/{run_id}/candidates/{time_ns}/whitened", responses=RUN_ERRORS)
def get_whitened(run_id: RunId, time_ns: TimePath, database: DatabaseOf) -> Whitened:
    """Whitened strain of all detectors around a candidate."""
    with database.reading() as session:
        run = get_run(session, run_id)
        row = candidate_strain.required_strain(session, run, time_ns)
    # Whitening takes time, so it holds no database connection.
    return candidate_strain.whitened(run, row, time_ns)


@router.get(
    "/v1/runs/{run_id}/candidates/{time_ns}/q-transform/{ifo}", responses=RUN_ERRORS
)
def get_q_transform(
    run_id: RunId,
    time_ns: TimePath,
    ifo: Annotated[Ifo, Path(description="Detector")],
    database: DatabaseOf,
) -> QTransform:
    """Q-transform of one detector's strain around a candidate."""
    with database.reading() as session:
        run = get_run(session, run_id)
        row = candidate_strain.required_strain(session, run, time_ns)
    return candidate_strain.q_transform(row, time_ns, ifo)
