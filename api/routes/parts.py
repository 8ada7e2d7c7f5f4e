"""What the routes share: the database, identifiers in paths, descriptions of errors."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from api.accumulated import Accumulated
from api.database import Database
from api.schema import Identifier


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _accumulated(request: Request) -> Accumulated:
    accumulated: Accumulated = request.app.state.accumulated
    return accumulated


DatabaseOf = Annotated[Database, Depends(_database)]
AccumulatedOf = Annotated[Accumulated, Depends(_accumulated)]
RunId = Annotated[Identifier, Path(description="The run's identifier")]
StreamId = Annotated[Identifier, Path(description="The stream's identifier")]
SetName = Annotated[Identifier, Path(description="Name of the injection set")]
VetoName = Annotated[Identifier, Path(description="Name of the list of segments")]
ChunkNumber = Annotated[
    int, Path(ge=0, le=2**31, description="Place of the chunk in its stream, from 0")
]
BlockNumber = Annotated[
    int, Path(ge=0, le=2**31, description="Number of the block, of the client's choice")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Most items to answer")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Items to pass over")]
