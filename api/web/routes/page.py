"""The page that a control room keeps open."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy import select

import chirpwatch
from chirpwatch.api.analysis.candidate import candidate_detail
from chirpwatch.api.analysis.progress import (
    run_status,
    run_summary,
)
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.requests import Identifier
from chirpwatch.api.storage.database import RunRow
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    AccumulatedOf,
    DatabaseOf,
    RunId,
    TimePath,
)
from chirpwatch.geometry import Geometry
from chirpwatch.utc import unix_offsets

HERE = Path(__file__).parents[1]
STATIC = HERE / "static"
_templates = Jinja2Templates(HERE / "templates")
_templates.env.globals["version"] = chirpwatch.__version__
_templates.env.globals["unix_offsets"] = unix_offsets

router = APIRouter(tags=["page"])


@router.get(
    "/", response_class=HTMLResponse, responses=problem_responses(404, 422, 503)
)
def page(
    request: Request,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    run: Annotated[
        Identifier | None, Query(description="Run; the newest if none")
    ] = None,
) -> Response:
    """The live page of a run."""
    with database.reading() as session:
        runs = session.scalars(
            select(RunRow).order_by(RunRow.created.desc(), RunRow.id).limit(200)
        ).all()
        shown = get_run(session, run) if run else next(iter(runs), None)
        if shown is not None and shown not in runs:
            runs = [*runs, shown]
        status = run_status(session, shown, accumulated) if shown else None
        return _templates.TemplateResponse(
            request,
            "page.html",
            {"runs": runs, "status": status},
        )


@router.get(
    "/runs/{run_id}/candidates/{time_ns}",
    response_class=HTMLResponse,
    responses=problem_responses(404, 422, 503),
)
def candidate_page(
    request: Request,
    run_id: RunId,
    time_ns: TimePath,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
) -> Response:
    """The page of one candidate, to be shared."""
    with database.reading() as session:
        run = get_run(session, run_id)
        geometry = Geometry.from_json(run.geometry)
        return _templates.TemplateResponse(
            request,
            "candidate.html",
            {
                "run": run_summary(run),
                "candidate": candidate_detail(session, run, accumulated, time_ns),
                # From the centre of a window to its score's time.
                "lag": (geometry.fduration + geometry.kernel_length) / 2,
            },
        )
