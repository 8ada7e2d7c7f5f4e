"""The results service's HTTP server."""

from types import FrameType

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A server that does not wait at its end for those who listen to changes.

    Args:
        app: The results service, as ``api.app.create_app`` makes it.
    """

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                log_config=None,
                timeout_graceful_shutdown=3,
                lifespan="on",
            )
        )
        self._changes = app.state.changes

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._changes.close()
        super().handle_exit(sig, frame)
