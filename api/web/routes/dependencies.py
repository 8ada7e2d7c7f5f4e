"""What the routes share: the database, identifiers in paths, descriptions of errors."""

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

import chirpwatch
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.analysis.summaries import (
    Accumulated,
    noise_run,
)
from chirpwatch.api.contract.requests import (
    MAX_TIME_NS,
    Identifier,
)
from chirpwatch.api.storage.database import Database
from chirpwatch.api.web.problems import (
    NotModified,
)

RunId = Annotated[Identifier, Path(description="The run's identifier")]


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _accumulated(request: Request) -> Accumulated:
    accumulated: Accumulated = request.app.state.accumulated
    return accumulated


def _unchanged(
    request: Request,
    response: Response,
    database: Annotated[Database, Depends(_database)],
    run_id: RunId,
) -> None:
    """Answer that nothing changed to who has the answer of this state of the run.

    The tag is of the state before the answer is made: of a run that changes meanwhile,
    a newer answer has an older tag, and is asked for again.
    """
    with database.reading() as session:
        run = get_run(session, run_id)
        noise = noise_run(session, run)
    # Another database may have a run of this name as well.
    made = round(run.created.timestamp() * 1e6)
    tag = f'"{chirpwatch.__version__}-{made:x}-{run.revision}-{noise.revision}"'
    # It may be kept, and is asked about each time.
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    asked = request.headers.get("if-none-match", "").split(",")
    if {tag, "*"} & {one.strip().removeprefix("W/") for one in asked}:
        raise NotModified(headers)
    response.headers.update(headers)


Unchanged = Depends(_unchanged)
"""Of a route that answers from one run alone: tags its answers by the run's state."""

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer with the tag of `If-None-Match` is still true"}
}

DatabaseOf = Annotated[Database, Depends(_database)]
AccumulatedOf = Annotated[Accumulated, Depends(_accumulated)]
StreamId = Annotated[Identifier, Path(description="The stream's identifier")]
SetName = Annotated[Identifier, Path(description="Name of the injection set")]
TimePath = Annotated[int, Path(ge=0, le=MAX_TIME_NS, description="GPS time, ns")]
VetoName = Annotated[Identifier, Path(description="Name of the list of segments")]
ChunkNumber = Annotated[
    int, Path(ge=0, lt=2**31, description="Place of the chunk in its stream, from 0")
]
BlockNumber = Annotated[
    int, Path(ge=0, lt=2**31, description="Number of the block, of the client's choice")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Most items to answer")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Items to pass over")]
