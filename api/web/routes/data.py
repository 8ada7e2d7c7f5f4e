"""Routes for a run's data: events, scores, and the export of everything."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from chirpwatch.api.analysis.background import background_events
from chirpwatch.api.analysis.export import write_export
from chirpwatch.api.analysis.progress import stream_events
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.analysis.scores import thinned_scores
from chirpwatch.api.contract.answers import (
    Events,
    ScoresAnswer,
)
from chirpwatch.api.contract.fields import (
    MAX_TIME_NS,
    EventKind,
    Identifier,
    Kind,
)
from chirpwatch.api.web.routes.dependencies import (
    RUN_ERRORS,
    CacheOf,
    DatabaseOf,
    Limit,
    Offset,
    RunId,
    StartNs,
    StopNs,
    interval,
    results_router,
)

router = results_router()
HDF5 = "application/x-hdf5"
_binary = {"schema": {"type": "string", "format": "binary"}}
_file: dict[int | str, dict[str, Any]] = {
    200: {"description": "The HDF5 file", "content": {HDF5: _binary}}
}


@router.get("/v1/runs/{run_id}/events", responses=RUN_ERRORS)
def get_events(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    kind: Annotated[EventKind, Query(description="Kind of data")],
    limit: Limit = 1000,
    offset: Offset = 0,
) -> Events:
    """Events of one kind outside vetoed time, loudest first."""
    with database.reading() as session:
        run = get_run(session, run_id)
        if kind == "background":
            return background_events(session, run, cache, limit, offset)
        return stream_events(session, run, cache, kind, limit, offset)


@router.get("/v1/runs/{run_id}/scores", responses=RUN_ERRORS)
def get_scores(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    stream: Annotated[
        Identifier | None,
        Query(description="One stream; default: all streams of `kind`"),
    ] = None,
    kind: Annotated[
        Kind, Query(description="Kind of the streams; ignored if `stream` is given")
    ] = "zero_lag",
    start_ns: StartNs = 0,
    stop_ns: StopNs = MAX_TIME_NS,
    points: Annotated[
        int, Query(ge=1, le=20_000, description="Number of points, approximately")
    ] = 2000,
) -> ScoresAnswer:
    """Scores between two times; each point holds the extremes of its bucket."""
    between = interval(start_ns, stop_ns)
    with database.reading() as session:
        return thinned_scores(
            session,
            get_run(session, run_id),
            cache,
            kind=kind,
            stream=stream,
            between=between,
            points=points,
        )


@router.get(
    "/v1/runs/{run_id}/export.hdf5",
    response_class=FileResponse,
    responses=_file | RUN_ERRORS,
)
def export_run(run_id: RunId, database: DatabaseOf, response: Response) -> FileResponse:
    """The whole run as an HDF5 file with tables of events, slides and injections."""
    folder = tempfile.mkdtemp(prefix="chirpwatch-export-")
    try:
        path = Path(folder) / f"{run_id}.hdf5"
        with database.reading() as session:
            write_export(session, get_run(session, run_id), path)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        path,
        media_type=HDF5,
        filename=path.name,
        # The run's ETag, instead of one that Starlette makes from the file.
        headers={name: response.headers[name] for name in ("etag", "cache-control")},
        background=BackgroundTask(shutil.rmtree, folder),
    )
