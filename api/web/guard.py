"""What stands before every request: its size, its token, what a browser may load."""

import secrets

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chirpwatch.api.web.problems import (
    ProblemError,
    answer,
)

TOKEN_SCHEME = HTTPBearer(
    auto_error=False, description="The token the API started with"
)
"""What writing needs, for the description of the API; the guard asks for it."""

READING = {"GET", "HEAD", "OPTIONS"}
MAX_BODY_SIZE = 16 * 1024 * 1024
"""Largest request body, bytes."""

HEADERS = [
    # Everything the page needs comes from this service.
    # A plot becomes a picture by way of the browser's own memory.
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
        f"expected at most {MAX_BODY_SIZE} bytes; send it in smaller parts",
    )


class Guard:
    """ASGI middleware: writes need the token, bodies are bounded, headers are set.

    Args:
        app: The application.
        token: What every request but reading ones must carry; none: anybody may write.
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
            problem = answer(
                Request(scope), refusal.status_code, refusal.kind, refusal.detail
            )
            problem.headers.update(refusal.headers or {})
            # Nothing of the body is read: the connection ends with the answer.
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
        """Why a request is refused before anything of its body is read."""
        headers = dict(scope["headers"])
        if self._token is not None and scope["method"] not in READING:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            bearer = scheme.lower() == b"bearer"
            if not (
                bearer and secrets.compare_digest(given.strip(), self._token.encode())
            ):
                return ProblemError(
                    401,
                    "token",
                    "writing needs `Authorization: Bearer TOKEN` with the token that "
                    "the API was started with; found "
                    + ("another one" if bearer else "none"),
                )
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_SIZE:
            return _too_large()
        return None
