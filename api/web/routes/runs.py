"""Routes for runs: list, status, streams, comparison."""

from typing import Annotated

from fastapi import APIRouter, Query

from chirpwatch.api.analysis import progress
from chirpwatch.api.analysis.compare import compare
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.fields import Identifier
from chirpwatch.api.contract.injection_answers import Comparison
from chirpwatch.api.contract.refusals import (
    InvalidError,
)
from chirpwatch.api.contract.status import (
    Runs,
    RunStatus,
    StreamAnswer,
)
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    NOT_MODIFIED,
    RUN_ERRORS,
    CacheOf,
    DatabaseOf,
    Far,
    Limit,
    Offset,
    RunId,
    Tagged,
)

router = APIRouter(tags=["runs"])


@router.get("/v1/runs", responses=problem_responses(422, 503))
def list_runs(database: DatabaseOf, limit: Limit = 100, offset: Offset = 0) -> Runs:
    """Runs, newest first."""
    with database.reading() as session:
        return progress.run_page(session, limit, offset)


@router.get(
    "/v1/runs/{run_id}", dependencies=[Tagged], responses=NOT_MODIFIED | RUN_ERRORS
)
def get_status(run_id: RunId, database: DatabaseOf, cache: CacheOf) -> RunStatus:
    """A run with the livetime and events of each kind of data."""
    with database.reading() as session:
        return progress.run_status(session, get_run(session, run_id), cache)


@router.get(
    "/v1/runs/{run_id}/streams",
    dependencies=[Tagged],
    responses=NOT_MODIFIED | RUN_ERRORS,
)
def list_streams(
    run_id: RunId, database: DatabaseOf, cache: CacheOf
) -> list[StreamAnswer]:
    """Streams of a run and their progress."""
    with database.reading() as session:
        return progress.stream_answers(session, get_run(session, run_id), cache)


@router.get("/v1/compare", responses=RUN_ERRORS)
def compare_runs(
    database: DatabaseOf,
    cache: CacheOf,
    run: Annotated[
        list[Identifier],
        Query(min_length=1, max_length=20, description="Runs, each named once"),
    ],
    far_per_year: Far = 12.0,
) -> Comparison:
    """Compare runs at one false-alarm rate, each by its own background."""
    if len(set(run)) < len(run):
        raise InvalidError(f"run: expected each run once, found {', '.join(run)}")
    with database.reading() as session:
        rows = [get_run(session, run_id) for run_id in run]
        return compare(session, rows, cache, far_per_year)
