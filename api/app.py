"""The application: routes, errors and guards put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles

import chirpwatch
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.contract.answers import Problem
from chirpwatch.api.storage.database import Database
from chirpwatch.api.web.change_feed import Changes
from chirpwatch.api.web.guard import (
    TOKEN_SCHEME,
    Guard,
)
from chirpwatch.api.web.metrics import (
    Timing,
    make_registry,
)
from chirpwatch.api.web.problems import (
    add_problem_handlers,
    problem_responses,
)
from chirpwatch.api.web.routes import (
    ingest,
    page,
    results,
    runs,
    service,
)

DESCRIPTION = """
Results of a search for gravitational waves: chunks of scores and blocks of
background come in, false-alarm rates, candidates and efficiencies go out.

- Times are GPS: integer nanoseconds in `*_ns` (more than JavaScript's numbers hold
  exactly), seconds elsewhere. Rates are per Julian year.
- A false-alarm rate is (n + 1) / T, with `saturated` where n is zero: then it is only
  an upper limit. Livetime T is the number of valid strides times the stride.
- Statistics of a run use background of the same run, and so of the same model.
- Errors are problem details (RFC 9457).
"""


def create_app(
    database_url: str, token: str | None = None, triton: str | None = None
) -> FastAPI:
    """Make the application.

    Args:
        database_url: SQLAlchemy URL, or the path of an SQLite file (made if missing).
        token: What writes must carry as bearer token; none: anybody may write.
        triton: Address (gRPC) of the Triton server whose state belongs to this
            service's, if there is one.

    Raises:
        ApiError: The database cannot be opened.
    """
    database = Database(database_url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        database.close()

    app = FastAPI(
        title="chirpwatch",
        version=chirpwatch.__version__,
        description=DESCRIPTION,
        license_info={"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        lifespan=lifespan,
        # Their scripts come from elsewhere; the page must work without a network.
        docs_url=None,
        redoc_url=None,
    )
    app.state.database = database
    app.state.accumulated = Accumulated()
    app.state.changes = Changes(database)
    app.state.triton = triton
    app.state.metrics, answers = make_registry(
        database, app.state.accumulated, app.state.changes
    )
    readers = [service.router, runs.router, results.router, page.router]
    app.state.routers = [ingest.router, *readers]
    if token is None:
        app.include_router(ingest.router)
    else:
        app.include_router(
            ingest.router,
            dependencies=[Depends(TOKEN_SCHEME)],
            responses=problem_responses(401),
        )
    for router in readers:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=page.STATIC), name="static")
    add_problem_handlers(app)
    app.add_middleware(Guard, token=token)
    app.add_middleware(Timing, answers=answers)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    description = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    # The problem answers refer to it, by a media type that FastAPI doesn't generate.
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    return description
