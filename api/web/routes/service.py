"""Routes for the service itself: health, readiness, metrics, live changes."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

import chirpwatch
from chirpwatch.api.contract.status import (
    Health,
    Readiness,
)
from chirpwatch.api.web.change_feed import event_stream
from chirpwatch.api.web.problems import (
    ProblemError,
    problem_responses,
)
from chirpwatch.api.web.readiness import triton_fault
from chirpwatch.api.web.routes.dependencies import DatabaseOf

router = APIRouter(tags=["service"])


def _plain(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """Describe a text response for OpenAPI."""
    content = {media_type: {"schema": {"type": "string"}}}
    return {200: {"description": description, "content": content}}


@router.get("/healthz", responses=problem_responses(503))
def health(database: DatabaseOf) -> Health:
    """Check that the service reaches its database."""
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok", version=chirpwatch.__version__)


@router.get("/readyz", responses=problem_responses(503))
def ready(request: Request, database: DatabaseOf) -> Readiness:
    """Check that the database and the Triton server are ready."""
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    address = request.app.state.triton
    if address is None:
        return Readiness(database="ok", triton="none")
    fault = triton_fault(address)
    if fault is not None:
        raise ProblemError(503, "not-ready", fault)
    return Readiness(database="ok", triton="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses=_plain("text/plain", "Metrics") | problem_responses(503),
)
def metrics(request: Request) -> Response:
    """Prometheus metrics of the service and of the runs that changed last."""
    page = generate_latest(request.app.state.metrics)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/v1/live",
    response_class=StreamingResponse,
    responses=_plain("text/event-stream", "Events `runs` and `alive`"),
)
async def live(request: Request) -> StreamingResponse:
    """Report the runs that change, as server-sent events.

    The data of a `runs` event are a JSON object of run identifiers and revisions: first
    of the 200 runs that changed last, then of those that change. An `alive` event is
    the keep-alive after 15 s without a change.
    """
    return StreamingResponse(
        event_stream(request.app.state.feed),
        media_type="text/event-stream",
        # Proxies such as Nginx would otherwise buffer events.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
