"""What routes share: database, cache, path parameters, ETags."""

from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

import chirpwatch
from chirpwatch.api.analysis.cache import (
    RunCache,
    background_run,
)
from chirpwatch.api.analysis.intervals import Interval
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.fields import (
    MAX_TIME_NS,
    Identifier,
)
from chirpwatch.api.contract.refusals import InvalidError
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.database import Database
from chirpwatch.api.web.problems import (
    NotModified,
    problem_responses,
)

Arguments = ParamSpec("Arguments")

RunId = Annotated[Identifier, Path(description="The run's identifier")]
StreamId = Annotated[Identifier, Path(description="The stream's identifier")]
SetName = Annotated[Identifier, Path(description="The injection set's name")]
TimePath = Annotated[int, Path(ge=0, le=MAX_TIME_NS, description="GPS time, ns")]
VetoName = Annotated[Identifier, Path(description="The veto's name")]
ChunkNumber = Annotated[
    int, Path(ge=0, lt=2**31, description="The chunk's number in its stream, from 0")
]
BlockNumber = Annotated[
    int, Path(ge=0, lt=2**31, description="The block's number, chosen by the client")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Most items to return")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Items to skip")]
StartNs = Annotated[int, Query(ge=0, le=MAX_TIME_NS, description="Start, GPS ns")]
StopNs = Annotated[int, Query(ge=0, le=MAX_TIME_NS, description="End, GPS ns")]
Finite = Annotated[float, Query(allow_inf_nan=False)]
Far = Annotated[Finite, Query(gt=0, description="False-alarm rate, per Julian year")]


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _cache(request: Request) -> RunCache:
    cache: RunCache = request.app.state.cache
    return cache


DatabaseOf = Annotated[Database, Depends(_database)]
CacheOf = Annotated[RunCache, Depends(_cache)]


class Writer:
    """Runs a writer of `api.storage` in a transaction, and sets the answer's status."""

    def __init__(self, database: DatabaseOf, response: Response) -> None:
        self._database, self._response = database, response

    def __call__(
        self,
        put: Callable[Concatenate[Session, Arguments], Stored],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Stored:
        """Call `put` with a session of a new transaction and the arguments."""
        with self._database.writing() as session:
            stored = put(session, *arguments, **named)
        self._response.status_code = 201 if stored.created else 200
        return stored


WriterOf = Annotated[Writer, Depends()]


def interval(start_ns: int, stop_ns: int) -> Interval:
    """Check that a requested interval of time is not empty.

    Raises:
        InvalidError: It does not end after it starts.
    """
    if stop_ns <= start_ns:
        raise InvalidError(
            f"stop_ns: expected a time after start_ns = {start_ns}, found {stop_ns}"
        )
    return start_ns, stop_ns


def _tag(
    request: Request, response: Response, database: DatabaseOf, run_id: RunId
) -> None:
    """Reply 304 if the client's ETag is the run's current revision.

    The tag is made before the answer. If the run changes in between, a newer answer has
    an older tag, and the client will request it again.
    """
    with database.reading() as session:
        run = get_run(session, run_id)
        background = background_run(session, run)
    # The time of creation tells apart runs of one name in two databases.
    created = round(run.created.timestamp() * 1e6)
    tag = f'"{chirpwatch.__version__}-{created:x}-{run.revision}-{background.revision}"'
    # Clients may cache the answer, and revalidate it each time.
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    tags = request.headers.get("if-none-match", "").split(",")
    if {tag, "*"} & {text.strip().removeprefix("W/") for text in tags}:
        raise NotModified(headers)
    response.headers.update(headers)


Tagged = Depends(_tag)
"""Dependency of routes whose answer depends on one run: adds an ETag, replies 304."""

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The client's ETag (`If-None-Match`) is current"}
}
RUN_ERRORS = problem_responses(404, 422, 503)
RATE_ERRORS = problem_responses(404, 409, 422, 503)


def results_router() -> APIRouter:
    """Make a router for results of one run, with ETags."""
    return APIRouter(tags=["results"], dependencies=[Tagged], responses=NOT_MODIFIED)
