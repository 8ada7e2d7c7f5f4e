"""Uses running Triton servers, or starts a server and restarts it if it dies."""

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
"""Pause between two restarts without a finished job in between, s."""

DEATH_LENGTH = 3.0
"""Longest time from the death of a model's process to the end of the server, s."""


@contextlib.contextmanager
def explained(server: TritonServer | None) -> Iterator[None]:
    """Add to a server failure how the server ended, or where its log is.

    Args:
        server: The server that was started here, or None.

    Raises:
        ServerError: The failure, with the addition.
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
    """Use a running Triton server, or start a server that ends with the context.

    Args:
        address: gRPC address of a running server; None starts a server.
        repository: Model repository of a server that is started.
        log_path: Log file of a server that is started.

    Yields:
        The address; and the server that was started, or None.

    Raises:
        ServerError: The server did not start; or, within the context, see
            ``explained``.
    """
    if address is not None:
        yield address, None
        return
    log.info("starting Triton")
    with TritonServer(repository, log=log_path) as server, explained(server):
        yield server.address, server


class Servers:
    """The Triton servers of a background run; a context manager.

    Without addresses, it starts a server, which ends with the context.

    Args:
        addresses: gRPC addresses of running servers.
        repository: Model repository of a server that is started.
        log_path: Log file of a server that is started; see ``TritonServer``.

    Attributes:
        addresses: gRPC addresses of all servers, once the context is entered.
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
        """Geometry, and digest of the models, that all servers serve.

        Raises:
            ServerError: A server is unreachable.
            ModelError: A server does not serve ``timeslides``, or serves another model
                than the first server.
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
        """Restart the server at the same address if it died.

        The restart is immediate if a job has finished since the last restart. Otherwise
        it waits for a pause, as the requests may cause the crash.

        Args:
            jobs: Number of jobs finished so far.
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
            # If the restart fails, jobs fail until it succeeds or the patience is over.
            try:
                self._stack.enter_context(self.server)
            except ServerError as failure:
                log.warning("%s", failure)
            self._jobs = jobs
            self._next_start = time.monotonic() + START_PAUSE_LENGTH
