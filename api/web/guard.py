"""Middleware before every request: token, size limit, security headers."""

import secrets

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chirpwatch.api.web.problems import (
    ProblemError,
    problem_response,
)

TOKEN_SCHEME = HTTPBearer(
    auto_error=False, description="The token that the API was started with"
)
"""Describes the token in OpenAPI; `Guard` checks it."""

READING = {"GET", "HEAD", "OPTIONS"}
"""Methods that need no token."""

MAX_BODY_SIZE = 16 * 1024 * 1024
"""Largest request body, bytes."""

HEADERS = [
    # The page loads everything from this service. Plots become PNG files by way of
    # blobs in the browser.
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


def _too_large() -> ProblemError:
    return ProblemError(
        413,
        "too-large",
        f"expected a body of at most {MAX_BODY_SIZE} bytes, found more; send it in "
        "smaller parts",
    )


def _token_refusal(authorization: bytes, token: str) -> ProblemError | None:
    """Reason to refuse an `Authorization` header; None if it has the token."""
    scheme, _, credentials = authorization.partition(b" ")
    bearer = scheme.lower() == b"bearer"
    if bearer and secrets.compare_digest(credentials.strip(), token.encode()):
        return None
    return ProblemError(
        401,
        "token",
        "expected `Authorization: Bearer TOKEN` with the token that the API was "
        f"started with, found {'another token' if bearer else 'no token'}",
    )


class Guard:
    """ASGI middleware that checks the token and body size, and adds security headers.

    Args:
        app: The application.
        token: Token that writing requests must carry; if None, anybody may write.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            problem = problem_response(
                Request(scope), refusal.status_code, refusal.kind, refusal.detail
            )
            problem.headers.update(refusal.headers or {})
            # The body is not read, so the connection cannot be used again.
            problem.headers["Connection"] = "close"
            await problem(scope, receive, with_headers)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_SIZE:
                raise _too_large()
            return message

        await self._app(scope, bounded, with_headers)

    def _refusal(self, scope: Scope) -> ProblemError | None:
        """Reason to refuse a request before reading its body; None to accept it."""
        headers = dict(scope["headers"])
        if self._token is not None and scope["method"] not in READING:
            refusal = _token_refusal(headers.get(b"authorization", b""), self._token)
            if refusal is not None:
                return refusal
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_SIZE:
            return _too_large()
        return None
