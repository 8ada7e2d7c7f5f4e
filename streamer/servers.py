"""The Triton servers of a background run: given ones, or one that is kept up."""

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from chirpwatch.errors import ModelError, ServerError
from chirpwatch.geometry import Geometry
from serve.embedded import TritonServer
from streamer.timeslides import Timeslides

START_PAUSE_LENGTH = 5.0
"""Least time between two starts of a server that dies, s."""


class Servers:
    """Triton servers; a context manager that starts one where no address is given.

    Args:
        addresses: gRPC addresses of servers that run.
        repository: Model repository for the one that is started.
        console: Where a server's death is told.

    Attributes:
        addresses: gRPC addresses, once the context is entered.
        server: The server that was started, or None.

    Raises:
        ServerError: On entry: the server did not start.
    """

    def __init__(
        self, addresses: tuple[str, ...], repository: Path, console: Console
    ) -> None:
        self.addresses = addresses
        self.server = None if addresses else TritonServer(repository)
        self._console = console
        self._stack = contextlib.ExitStack()
        self._next_start = 0.0

    def __enter__(self) -> Self:
        if self.server is not None:
            self._console.print("starting Triton ...")
            self._stack.enter_context(self.server)
            self.addresses = (self.server.address,)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def served(self) -> tuple[Geometry, str]:
        """Geometry and digest of the models that all servers serve.

        Raises:
            ServerError: A server is not there.
            ModelError: One serves no timeslides, or other models than the first.
        """
        first, *others = [Timeslides(address) for address in self.addresses]
        for other in others:
            if other.model != first.model:
                raise ModelError(
                    f"the server at {other.address}: expected model {first.model}, "
                    f"which {first.address} serves, found {other.model}; results of "
                    "two models do not mix"
                )
        return first.geometry, first.model

    def supervise(self) -> None:
        """Start the server again, at the same address, if it died."""
        if self.server is None or time.monotonic() < self._next_start:
            return
        try:
            self.server.check()
        except ServerError as error:
            self._console.print(f"{error}\nstarting it again ...")
            self._stack.close()
            # Where that fails too, jobs fail until it succeeds or patience ends.
            with contextlib.suppress(ServerError):
                self._stack.enter_context(self.server)
            self._next_start = time.monotonic() + START_PAUSE_LENGTH
