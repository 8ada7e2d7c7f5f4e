"""Triton servers that commands start, and those of a background run."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from chirpwatch.errors import (
    ModelError,
    ServerError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.timeslides import Timeslides

log = logging.getLogger("chirpwatch.triton")

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


@contextlib.contextmanager
def triton_server(
    address: str | None, repository: Path, log_path: Path
) -> Iterator[tuple[str, TritonServer | None]]:
    """Use the Triton server that is given, or start one that ends with the context.

    Args:
        address: gRPC address of a server that runs; None starts one.
        repository: Model repository for that.
        log_path: File for its log.

    Yields:
        The address, and the server, if it was started here.

    Raises:
        ServerError: It did not start; or, from within the context, see ``explained``.
    """
    if address is not None:
        yield address, None
        return
    log.info("starting Triton")
    with TritonServer(repository, log=log_path) as server, explained(server):
        yield server.address, server


class Servers:
    """Triton servers; a context manager that starts one where no address is given.

    Args:
        addresses: gRPC addresses of servers that run.
        repository: Model repository for the one that is started.
        log_path: File for its log, as ``TritonServer`` takes it.

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
        log_path: Path | None,
    ) -> None:
        self.addresses = addresses
        self.server = None if addresses else TritonServer(repository, log=log_path)
        self._stack = contextlib.ExitStack()
        self._next_start = 0.0
        self._jobs = 0

    def __enter__(self) -> Self:
        if self.server is not None:
            log.info("starting Triton")
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
            log.warning("%s\nstarting it again", death)
            self._stack.__exit__(type(death), death, death.__traceback__)
            # Where that fails too, jobs fail until it succeeds or patience ends.
            try:
                self._stack.enter_context(self.server)
            except ServerError as failure:
                log.warning("%s", failure)
            self._jobs = jobs
            self._next_start = time.monotonic() + START_PAUSE_LENGTH
