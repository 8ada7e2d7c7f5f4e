"""Routes that write. Every PUT may be repeated: the same content changes nothing."""

from typing import Any

from fastapi import APIRouter

from chirpwatch.api.analysis import progress
from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.contract.injection_set import InjectionSet
from chirpwatch.api.contract.requests import (
    Block,
    Chunk,
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
    injections,
    runs,
    strain,
    vetoes,
)
from chirpwatch.api.storage.store import digest_of
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    BlockNumber,
    CacheOf,
    ChunkNumber,
    DatabaseOf,
    RunId,
    SetName,
    StreamId,
    TimePath,
    VetoName,
    WriterOf,
)

router = APIRouter(prefix="/v1/runs", tags=["ingest"])

_created: dict[int | str, dict[str, Any]] = {
    201: {"model": Stored, "description": "Created"}
}
_responses = _created | problem_responses(400, 404, 409, 413, 422, 503)


@router.put(
    "/{run_id}", responses=_created | problem_responses(400, 409, 413, 422, 503)
)
def put_run(run_id: RunId, body: Run, write: WriterOf) -> Stored:
    """Register a run under an identifier that the client chooses."""
    return write(runs.put_run, run_id, body)


@router.patch("/{run_id}", responses=problem_responses(400, 404, 413, 422, 503))
def patch_run(
    run_id: RunId, body: RunUpdate, database: DatabaseOf, cache: CacheOf
) -> RunStatus:
    """Update a run's state, throughput or latency."""
    with database.writing() as session:
        runs.update_run(session, run_id, body)
    with database.reading() as session:
        return progress.run_status(session, get_run(session, run_id), cache)


@router.put("/{run_id}/streams/{stream_id}", responses=_responses)
def put_stream(
    run_id: RunId, stream_id: StreamId, body: Stream, write: WriterOf
) -> Stored:
    """Declare a stream of scores."""
    return write(runs.put_stream, run_id, stream_id, body)


@router.put("/{run_id}/streams/{stream_id}/chunks/{number}", responses=_responses)
def put_chunk(
    run_id: RunId,
    stream_id: StreamId,
    number: ChunkNumber,
    body: Chunk,
    write: WriterOf,
) -> Stored:
    """Store a chunk of scores and events; chunks may arrive in any order."""
    digest = digest_of(body)
    return write(chunks.put_chunk, run_id, stream_id, number, body, digest)


# The converter `int` leaves `background/blocks`, which takes no PUT, to its own route.
@router.put("/{run_id}/background/{number:int}", responses=_responses)
def put_block(
    run_id: RunId, number: BlockNumber, body: Block, write: WriterOf
) -> Stored:
    """Store a block: background from one stretch of strain at many timeslides."""
    return write(blocks.put_block, run_id, number, body, blocks.pack(body))


@router.put("/{run_id}/injections/{set_name}", responses=_responses)
def put_injections(
    run_id: RunId, set_name: SetName, body: InjectionSet, write: WriterOf
) -> Stored:
    """Store an injection set with all its injections."""
    return write(injections.put_injections, run_id, set_name, body, digest_of(body))


@router.put("/{run_id}/strain/{start_ns}", responses=_responses)
def put_strain(
    run_id: RunId, start_ns: TimePath, body: Strain, write: WriterOf
) -> Stored:
    """Store strain around an event, for the candidate's page."""
    return write(strain.put_strain, run_id, start_ns, body, digest_of(body))


@router.put("/{run_id}/vetoes/{veto}", responses=_responses)
def put_veto(run_id: RunId, veto: VetoName, body: Veto, write: WriterOf) -> Stored:
    """Store a veto, which removes its segments from events and livetime.

    It replaces a veto with the same name.
    """
    return write(vetoes.put_veto, run_id, veto, body, digest_of(body))


@router.delete(
    "/{run_id}/vetoes/{veto}",
    status_code=204,
    responses=problem_responses(404, 422, 503),
)
def delete_veto(run_id: RunId, veto: VetoName, database: DatabaseOf) -> None:
    """Delete a veto, which restores its events and livetime."""
    with database.writing() as session:
        vetoes.delete_veto(session, run_id, veto)
