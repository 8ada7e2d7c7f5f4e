"""The FastAPI application of the results service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles

import chirpwatch
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.contract.answers import Problem
from chirpwatch.api.storage.database import Database
from chirpwatch.api.web.change_feed import ChangeFeed
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
    candidates,
    data,
    ingest,
    injections,
    page,
    rates,
    runs,
    service,
)

DESCRIPTION = """
Results of a search for gravitational waves. Clients send chunks of scores and blocks of
background; the service answers with false-alarm rates, candidates and efficiencies.

- Times are GPS: integer nanoseconds in fields `*_ns` (JavaScript numbers do not hold
  them exactly), seconds elsewhere. Rates are per Julian year.
- A false-alarm rate is (n + 1) / T for n background events at least as loud. Where n is
  zero, `saturated` is true and the rate is an upper limit. The livetime T is the number
  of valid strides times the stride.
- A run's statistics are compared only with background of the same model.
- Errors are problem details (RFC 9457).
"""


def create_app(
    database_url: str, token: str | None = None, triton: str | None = None
) -> FastAPI:
    """Make the application.

    Args:
        database_url: SQLAlchemy URL, or the path of an SQLite file (made if missing).
        token: Bearer token that writing needs; if None, anybody may write.
        triton: gRPC address of the Triton server that `/readyz` checks; none if None.

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
        # FastAPI's documentation pages load scripts from the internet.
        docs_url=None,
        redoc_url=None,
    )
    app.state.database = database
    app.state.cache = RunCache()
    app.state.feed = ChangeFeed(database)
    app.state.triton = triton
    app.state.metrics, response_times = make_registry(
        database, app.state.cache, app.state.feed
    )
    modules = (service, runs, rates, candidates, injections, data, page)
    readers = [module.router for module in modules]
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
    app.add_middleware(Timing, response_times=response_times)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's manual does
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    # Problem responses refer to this schema. FastAPI does not add it, since they have a
    # media type of their own.
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    return schema
