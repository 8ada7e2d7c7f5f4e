"""The HTTP server of the results service."""

from types import FrameType

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A Uvicorn server that ends live streams when it shuts down.

    Otherwise it would wait for their clients.


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
        self._feed = app.state.feed

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the live streams, and begin to shut down."""
        self._feed.close()
        super().handle_exit(sig, frame)
