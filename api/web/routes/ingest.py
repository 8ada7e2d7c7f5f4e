"""Writing. Every PUT may be repeated: the same content changes nothing."""

from typing import Any

from fastapi import APIRouter, Response

from chirpwatch.api.analysis import progress
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.requests import (
    Block,
    Chunk,
    InjectionSet,
    Run,
    RunUpdate,
    Strain,
    Stream,
    Veto,
)
from chirpwatch.api.contract.status import (
    RunStatus,
    Stored,
)
from chirpwatch.api.storage import (
    blocks,
    chunks,
    store,
)
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    AccumulatedOf,
    BlockNumber,
    ChunkNumber,
    DatabaseOf,
    RunId,
    SetName,
    StreamId,
    TimePath,
    VetoName,
)

router = APIRouter(prefix="/v1/runs", tags=["ingest"])

_created: dict[int | str, dict[str, Any]] = {
    201: {"model": Stored, "description": "Stored now"}
}
_responses = _created | problem_responses(400, 404, 409, 413, 422, 503)


def _answer(response: Response, created: bool, changed: bool = False) -> Stored:
    response.status_code = 201 if created else 200
    return Stored(created=created, changed=created or changed)


@router.put(
    "/{run_id}", responses=_created | problem_responses(400, 409, 413, 422, 503)
)
def put_run(
    run_id: RunId, body: Run, database: DatabaseOf, response: Response
) -> Stored:
    """Register a run under an identifier of the client's choice."""
    with database.writing() as session:
        created = store.put_run(session, run_id, body)
    return _answer(response, created)


@router.patch("/{run_id}", responses=problem_responses(400, 404, 413, 422, 503))
def patch_run(
    run_id: RunId, body: RunUpdate, database: DatabaseOf, accumulated: AccumulatedOf
) -> RunStatus:
    """Report the state, throughput or latency of a run."""
    with database.writing() as session:
        store.update_run(session, run_id, body)
    with database.reading() as session:
        return progress.run_status(session, get_run(session, run_id), accumulated)


@router.put("/{run_id}/streams/{stream_id}", responses=_responses)
def put_stream(
    run_id: RunId,
    stream_id: StreamId,
    body: Stream,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Declare a sequence of scores."""
    with database.writing() as session:
        created = store.put_stream(session, run_id, stream_id, body)
    return _answer(response, created)


@router.put("/{run_id}/streams/{stream_id}/chunks/{number}", responses=_responses)
def put_chunk(
    run_id: RunId,
    stream_id: StreamId,
    number: ChunkNumber,
    body: Chunk,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Store scores and events, in one transaction and in any order."""
    digest = store.digest_of(body)
    with database.writing() as session:
        created = chunks.put_chunk(session, run_id, stream_id, number, body, digest)
    return _answer(response, created)


# Only numbers: `background/blocks` is another address, which takes no PUT.
@router.put("/{run_id}/background/{number:int}", responses=_responses)
def put_block(
    run_id: RunId,
    number: BlockNumber,
    body: Block,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Store the background of one stretch of strain, many timeslides at once."""
    packed = blocks.pack(body)
    with database.writing() as session:
        created = blocks.put_block(session, run_id, number, body, packed)
    return _answer(response, created)


@router.put("/{run_id}/injections/{set_name}", responses=_responses)
def put_injections(
    run_id: RunId,
    set_name: SetName,
    body: InjectionSet,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Store a set of injections, all of them at once."""
    digest = store.digest_of(body)
    with database.writing() as session:
        created = store.put_injections(session, run_id, set_name, body, digest)
    return _answer(response, created)


@router.put("/{run_id}/strain/{start_ns}", responses=_responses)
def put_strain(
    run_id: RunId,
    start_ns: TimePath,
    body: Strain,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Store strain around an event, for the candidate's page."""
    digest = store.digest_of(body)
    with database.writing() as session:
        created = store.put_strain(session, run_id, start_ns, body, digest)
    return _answer(response, created)


@router.put("/{run_id}/vetoes/{veto}", responses=_responses)
def put_veto(
    run_id: RunId,
    veto: VetoName,
    body: Veto,
    database: DatabaseOf,
    response: Response,
) -> Stored:
    """Take segments out of events and livetime; replaces a list of this name."""
    digest = store.digest_of(body)
    with database.writing() as session:
        created, changed = store.put_veto(session, run_id, veto, body, digest)
    return _answer(response, created, changed)


@router.delete(
    "/{run_id}/vetoes/{veto}",
    status_code=204,
    responses=problem_responses(404, 422, 503),
)
def delete_veto(run_id: RunId, veto: VetoName, database: DatabaseOf) -> None:
    """Take a list of vetoed segments back."""
    with database.writing() as session:
        store.delete_veto(session, run_id, veto)
