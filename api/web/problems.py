"""Error responses as problem details (RFC 9457)."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from chirpwatch.api.contract.answers import Problem
from chirpwatch.api.contract.refusals import (
    BusyError,
    ConflictError,
    InvalidError,
    NotFoundError,
    RefusalError,
)

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Malformed request",
    401: "Token required",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict with stored data",
    413: "Request too large",
    422: "Invalid request",
    500: "Internal error",
    503: "Service unavailable",
}
"""Title of the problem with each HTTP status."""

STATUSES: dict[type, int] = {
    NotFoundError: 404,
    ConflictError: 409,
    InvalidError: 422,
    BusyError: 503,
}
"""HTTP status of each class of refusal."""


class ProblemError(HTTPException):
    """A problem of HTTP itself, such as a missing token.

    Attributes:
        kind: Stable name of the problem, for programs.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        super().__init__(status, detail, headers)
        self.kind = kind


class NotModified(HTTPException):
    """The client's copy is current: reply 304 with these headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(304, None, headers)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problem responses with these statuses for OpenAPI."""
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": TITLES[status], "content": {MEDIA_TYPE: reference}}
        for status in statuses
    }


def problem_response(
    request: Request, status: int, kind: str, detail: str, **more: Any
) -> Response:
    """Make the response that describes a problem.

    Args:
        request: The request.
        status: HTTP status.
        kind: Stable name of the problem.
        detail: What was expected, what was found, what to do.
        more: Further fields of `Problem`.
    """
    problem = Problem(
        type=f"urn:chirpwatch:{kind}",
        title=TITLES.get(status, "Request failed"),
        status=status,
        detail=detail,
        instance=request.url.path,
        **more,
    )
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    status = next(STATUSES[c] for c in type(error).__mro__ if c in STATUSES)
    return problem_response(request, status, error.kind, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 304:
        return Response(status_code=304, headers=error.headers)
    kind = (
        error.kind if isinstance(error, ProblemError) else f"http-{error.status_code}"
    )
    response = problem_response(request, error.status_code, kind, str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods(request: Request) -> set[str]:
    """All methods of the request's path."""
    # Starlette only names the methods of the first route with this path.
    return {
        method
        for router in request.app.state.routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.path_regex.match(request.url.path)
        for method in route.methods or ()
    }


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The invalid input is left out: it may be huge, and NaN is not JSON.
    errors = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors()[:20]
    ]
    return problem_response(
        request, 422, "invalid", "; ".join(errors[:3]), errors=errors
    )


async def _database_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, IntegrityError | OperationalError | PoolTimeoutError)
    if isinstance(error, IntegrityError):
        detail = "another request stored the same item meanwhile; send it again"
    elif isinstance(error, PoolTimeoutError):
        detail = "too many requests at once; send the request again later"
    else:
        # The driver's message may name hosts and users, so it goes to the log only.
        logging.getLogger("uvicorn.error").warning("database: %s", error.orig)
        detail = (
            "the database is busy or cannot be reached; send the request again later"
        )
    response = problem_response(request, 503, "database", detail)
    response.headers["Retry-After"] = "1"
    return response


async def _fault(request: Request, error: Exception) -> Response:
    logging.getLogger("uvicorn.error").exception("unexpected", exc_info=error)
    return problem_response(
        request, 500, "fault", f"{type(error).__name__}; see the service's log"
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Register handlers that turn every error into a problem response."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(OperationalError, _database_busy)
    app.add_exception_handler(IntegrityError, _database_busy)
    # Raised when all database connections are in use.
    app.add_exception_handler(PoolTimeoutError, _database_busy)
    app.add_exception_handler(Exception, _fault)
