"""Reading: which runs there are, and where they stand."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select

from chirpwatch.api.analysis import progress
from chirpwatch.api.analysis.compare import compare
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.answers import Comparison
from chirpwatch.api.contract.refusals import (
    InvalidError,
)
from chirpwatch.api.contract.requests import Identifier
from chirpwatch.api.contract.status import (
    Runs,
    RunStatus,
    StreamAnswer,
)
from chirpwatch.api.storage.database import RunRow
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    NOT_MODIFIED,
    AccumulatedOf,
    DatabaseOf,
    Limit,
    Offset,
    RunId,
    Unchanged,
)

router = APIRouter(tags=["runs"])
_run_errors = problem_responses(404, 422, 503)


@router.get("/v1/runs", responses=problem_responses(422, 503))
def list_runs(database: DatabaseOf, limit: Limit = 100, offset: Offset = 0) -> Runs:
    """Runs, the newest first."""
    with database.reading() as session:
        rows = session.scalars(
            select(RunRow)
            .order_by(RunRow.created.desc(), RunRow.id)
            .limit(limit)
            .offset(offset)
        )
        return Runs(
            runs=[progress.run_summary(row) for row in rows],
            total=session.scalar(select(func.count()).select_from(RunRow)) or 0,
        )


@router.get(
    "/v1/runs/{run_id}", dependencies=[Unchanged], responses=NOT_MODIFIED | _run_errors
)
def get_status(
    run_id: RunId, database: DatabaseOf, accumulated: AccumulatedOf
) -> RunStatus:
    """A run with its livetimes and counts."""
    with database.reading() as session:
        return progress.run_status(session, get_run(session, run_id), accumulated)


@router.get(
    "/v1/runs/{run_id}/streams",
    dependencies=[Unchanged],
    responses=NOT_MODIFIED | _run_errors,
)
def list_streams(
    run_id: RunId, database: DatabaseOf, accumulated: AccumulatedOf
) -> list[StreamAnswer]:
    """The streams of a run and how far each got."""
    with database.reading() as session:
        return progress.stream_answers(session, get_run(session, run_id), accumulated)


@router.get("/v1/compare", responses=_run_errors)
def compare_runs(
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    run: Annotated[
        list[Identifier],
        Query(min_length=1, max_length=20, description="Runs, each named once"),
    ],
    far_per_year: Annotated[
        float,
        Query(
            gt=0, allow_inf_nan=False, description="False-alarm rate, per Julian year"
        ),
    ] = 12.0,
) -> Comparison:
    """Runs side by side at one false-alarm rate, each by its own background."""
    if len(set(run)) < len(run):
        raise InvalidError(f"run: expected each once, found {', '.join(run)}")
    with database.reading() as session:
        rows = [get_run(session, one) for one in run]
        return compare(session, rows, accumulated, far_per_year)
