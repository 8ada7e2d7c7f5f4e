"""Triton servers that commands start, and those of a background run."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from chirpwatch.errors import (
    ModelError,
    ServerError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.timeslides import Timeslides

START_PAUSE_LENGTH = 5.0
"""Pause before a server is started that died before a job was done, s."""

DEATH_LENGTH = 3.0
"""Longest time that a server takes to end after the process of a model, s."""


@contextlib.contextmanager
def explained(server: TritonServer | None) -> Iterator[None]:
    """Say with a server failure how the server that was started here ended.

    Args:
        server: That server; None where it was started by somebody else.

    Raises:
        ServerError: The failure, with the server's end, if it ended, and its log.
    """
    try:
        yield
    except ServerError as failure:
        if server is None:
            raise
        try:
            server.check(DEATH_LENGTH)
        except ServerError as death:
            reason = str(death)
        else:
            reason = f"the Triton server's log is {server.log_path}"
        raise ServerError(f"{failure}\n{reason}") from None


class Servers:
    """Triton servers; a context manager that starts one where no address is given.

    Args:
        addresses: gRPC addresses of servers that run.
        repository: Model repository for the one that is started.
        log: File for its log, as ``TritonServer`` takes it.
        console: Where a server's end is reported.

    Attributes:
        addresses: gRPC addresses, once the context is entered.
        server: The server that was started, or None.

    Raises:
        ServerError: On entry: the server did not start.
    """

    def __init__(
        self,
        addresses: tuple[str, ...],
        repository: Path,
        log: Path | None,
        console: Console,
    ) -> None:
        self.addresses = addresses
        self.server = None if addresses else TritonServer(repository, log=log)
        self._console = console
        self._stack = contextlib.ExitStack()
        self._next_start = 0.0
        self._jobs = 0

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

    def supervise(self, jobs: int) -> None:
        """Start the server again, at the same address, if it died.

        At once if a job was done since it was last started. Otherwise after a pause: it
        may die of what it is asked.

        Args:
            jobs: Number of jobs done so far.
        """
        if self.server is None:
            return
        if jobs == self._jobs and time.monotonic() < self._next_start:
            return
        try:
            self.server.check()
        except ServerError as death:
            self._say(f"{death}\nstarting it again ...")
            self._stack.__exit__(type(death), death, death.__traceback__)
            # Where that fails too, jobs fail until it succeeds or patience ends.
            try:
                self._stack.enter_context(self.server)
            except ServerError as failure:
                self._say(str(failure))
            self._jobs = jobs
            self._next_start = time.monotonic() + START_PAUSE_LENGTH

    def _say(self, what: str) -> None:
        # A log may hold what Rich takes for markup.
        self._console.print(what, markup=False, highlight=False)
