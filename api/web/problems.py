"""Errors as problem details (RFC 9457): for programs to tell apart, people to read."""

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
    400: "The request cannot be read",
    401: "A token is needed",
    404: "There is no such thing",
    405: "This address does not take this method",
    409: "What is stored does not allow this",
    413: "The request is too large",
    422: "The request's content is not valid",
    500: "A fault of the service",
    503: "The service cannot answer now",
}


STATUSES: dict[type, int] = {
    NotFoundError: 404,
    ConflictError: 409,
    InvalidError: 422,
    BusyError: 503,
}


class ProblemError(HTTPException):
    """A refusal of the web itself; `kind` is its stable name."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        super().__init__(status, detail, headers)
        self.kind = kind


class NotModified(HTTPException):
    """What is asked for is still as the client has it."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(304, None, headers)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of problem answers with these statuses."""
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": TITLES[status], "content": {MEDIA_TYPE: reference}}
        for status in statuses
    }


def answer(
    request: Request, status: int, kind: str, detail: str, **more: Any
) -> Response:
    """The answer that describes a problem; ``more`` are further fields of it."""
    problem = Problem(
        type=f"urn:chirpwatch:{kind}",
        title=TITLES.get(status, "The request failed"),
        status=status,
        detail=detail,
        instance=request.url.path,
        **more,
    )
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    status = next(STATUSES[one] for one in type(error).__mro__ if one in STATUSES)
    return answer(request, status, error.kind, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 304:
        return Response(status_code=304, headers=error.headers)
    kind = (
        error.kind if isinstance(error, ProblemError) else f"http-{error.status_code}"
    )
    response = answer(request, error.status_code, kind, str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods(request: Request) -> set[str]:
    # The framework names the methods of the first route with this path alone.
    return {
        method
        for router in request.app.state.routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.path_regex.match(request.url.path)
        for method in route.methods or ()
    }


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The faulty input itself is left out: it may be huge, and NaN is not JSON.
    errors = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors()[:20]
    ]
    return answer(request, 422, "invalid", "; ".join(errors[:3]), errors=errors)


async def _database_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, IntegrityError | OperationalError | PoolTimeoutError)
    if isinstance(error, IntegrityError):
        detail = "another writer stored the same at the same time; send it again"
    elif isinstance(error, PoolTimeoutError):
        detail = "too many requests at once; send it again later"
    else:
        # What the driver says may name hosts and users.
        logging.getLogger("uvicorn.error").warning("database: %s", error.orig)
        detail = "the database is busy or cannot be reached; send it again later"
    response = answer(request, 503, "database", detail)
    response.headers["Retry-After"] = "1"
    return response


async def _fault(request: Request, error: Exception) -> Response:
    logging.getLogger("uvicorn.error").exception("unexpected", exc_info=error)
    return answer(request, 500, "fault", f"{type(error).__name__}; see the log")


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every error as a problem."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(OperationalError, _database_busy)
    app.add_exception_handler(IntegrityError, _database_busy)
    # The pool of connections is used up.
    app.add_exception_handler(PoolTimeoutError, _database_busy)
    app.add_exception_handler(Exception, _fault)
