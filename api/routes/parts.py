"""What the routes share: the database, identifiers in paths, descriptions of errors."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from api.database import Database
from api.schema import Identifier


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


DatabaseOf = Annotated[Database, Depends(_database)]
RunId = Annotated[Identifier, Path(description="The run's identifier")]
StreamId = Annotated[Identifier, Path(description="The stream's identifier")]
SetName = Annotated[Identifier, Path(description="Name of the injection set")]
ChunkNumber = Annotated[
    int, Path(ge=0, le=2**31, description="Place of the chunk in its stream, from 0")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Most items to answer")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Items to pass over")]
