"""What stands before every request: its size, its token, what a browser may load."""

import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError, answer

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
    """ASGI middleware that bounds request bodies and sets the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_SIZE:
            refusal = answer(Request(scope), 413, "too-large", _too_large().detail)
            # Nothing of the body is read: the connection ends with the answer.
            refusal.headers["Connection"] = "close"
            await refusal(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_SIZE:
                raise _too_large()
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, bounded, with_headers)


def token_check(token: str) -> Callable[..., None]:
    """A dependency that lets requests pass that carry `token`."""
    scheme = HTTPBearer(auto_error=False, description="The token the API started with")

    def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> None:
        if given is None or not secrets.compare_digest(
            given.credentials.encode(), token.encode()
        ):
            raise ProblemError(
                401,
                "token",
                "writing needs `Authorization: Bearer TOKEN` with the token that the "
                "API was started with; found "
                + ("none" if given is None else "another one"),
            )

    return check
