"""Routes for the HTML pages: the live page, and a page for each candidate."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.templating import Jinja2Templates

import chirpwatch
from chirpwatch.api.analysis.candidates import candidate_detail
from chirpwatch.api.analysis.intervals import window_lag
from chirpwatch.api.analysis.progress import (
    run_status,
    run_summary,
)
from chirpwatch.api.analysis.queries import (
    get_run,
    newest_runs,
)
from chirpwatch.api.contract.fields import Identifier
from chirpwatch.api.web.routes.dependencies import (
    RUN_ERRORS,
    CacheOf,
    DatabaseOf,
    RunId,
    TimePath,
)
from chirpwatch.geometry import Geometry
from chirpwatch.utc import unix_offsets

HERE = Path(__file__).parents[1]
STATIC = HERE / "static"
MOST_RUNS = 200
"""Most runs that the page offers for choice."""

_templates = Jinja2Templates(HERE / "templates")
_templates.env.globals["version"] = chirpwatch.__version__
_templates.env.globals["unix_offsets"] = unix_offsets

router = APIRouter(tags=["page"])


@router.get("/", response_class=HTMLResponse, responses=RUN_ERRORS)
def page(
    request: Request,
    database: DatabaseOf,
    cache: CacheOf,
    run: Annotated[
        Identifier | None, Query(description="Run to show; default: the newest")
    ] = None,
) -> Response:
    """The live page of a run."""
    with database.reading() as session:
        runs = newest_runs(session, MOST_RUNS)
        shown = get_run(session, run) if run else next(iter(runs), None)
        if shown is not None and shown not in runs:
            runs = [*runs, shown]
        status = run_status(session, shown, cache) if shown else None
        return _templates.TemplateResponse(
            request,
            "page.html",
            {"runs": runs, "status": status},
        )


@router.get(
    "/runs/{run_id}/candidates/{time_ns}",
    response_class=HTMLResponse,
    responses=RUN_ERRORS,
)
def candidate_page(
    request: Request,
    run_id: RunId,
    time_ns: TimePath,
    database: DatabaseOf,
    cache: CacheOf,
) -> Response:
    """The page of a candidate, at an address that can be shared."""
    with database.reading() as session:
        run = get_run(session, run_id)
        return _templates.TemplateResponse(
            request,
            "candidate.html",
            {
                "run": run_summary(run),
                "candidate": candidate_detail(session, run, cache, time_ns),
                "lag": window_lag(Geometry.from_json(run.geometry)),
            },
        )
