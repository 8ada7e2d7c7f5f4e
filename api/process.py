"""The API as a child process that never outlives its parent."""

import secrets
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from chirpwatch.api.cli import (
    READY,
    TOKEN_VARIABLE,
)
from chirpwatch.api.client import (
    ApiClient,
    ApiUnavailable,
)
from chirpwatch.errors import ApiError
from chirpwatch.process import (
    start,
    stop,
    wait_until_ready,
)

START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0


class ApiProcess:
    """Starts the API, waits until it answers, stops it at the end.

    The child ends when the thread that started it does, even if by SIGKILL.

    Args:
        database: Database URL or SQLite file.
        port: Port on loopback; 0 for a free one.
        log: File that the API's output is appended to.
        token: Token for writing; a new random one if not given.
        triton: gRPC address of the Triton server that /readyz asks as well.

    Attributes:
        url: Where the API is.
        token: Token for writing.
        pid: Process id.

    Raises:
        ApiError: On entering: the API did not start; with the end of its log.
    """

    url: str
    pid: int

    def __init__(
        self,
        database: str | Path,
        port: int = 0,
        log: str | Path = "api.log",
        token: str | None = None,
        triton: str | None = None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self._command = [sys.executable, "-m", "chirpwatch.api"]
        self._command += ["--database", str(database), "--port", str(port)]
        self._command += ["--triton", triton] if triton else []
        self._log = Path(log)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the API and wait until it answers."""
        try:
            with self._log.open("ab") as log:
                self._log_start = log.tell()
                environment = {TOKEN_VARIABLE: self.token}
                self._process = start(self._command, log, environment)
        except OSError as error:
            raise ApiError(f"the API cannot be started ({error})") from None
        self.pid = self._process.pid
        try:
            if wait_until_ready(self._ready_url, START_TIMEOUT) is None:
                raise ApiError(
                    f"the API did not answer within {START_TIMEOUT:g} s; end of "
                    f"{self._log}:\n{self._tail()}"
                )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def client(self) -> ApiClient:
        """A client with this API's address and token."""
        return ApiClient(self.url, self.token)

    def check(self) -> None:
        """Raise an ApiError with the end of the log if the API is no longer running."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise ApiError(
                f"the API ended with exit status {code}; end of {self._log}:\n"
                + self._tail()
            )

    def stop(self) -> None:
        """Stop the API: ask first, then kill. Harmless when it is gone already."""
        process, self._process = self._process, None
        if process is not None:
            stop(process, STOP_TIMEOUT)

    def _ready_url(self) -> str | None:
        """The address, once the API answers there."""
        self.check()
        address = self._printed_address()
        if address is None:
            return None
        self.url = address
        with self.client() as client:
            try:
                client.health()
            except ApiUnavailable:
                return None
        return address

    def _output(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _printed_address(self) -> str | None:
        for line in self._output().splitlines(keepends=True):
            # Without its end the line may not be written out yet.
            if line.startswith(READY) and line.endswith("\n"):
                return line.removeprefix(READY).strip()
        return None

    def _tail(self) -> str:
        return "\n".join(self._output().splitlines()[-20:]) or "(nothing)"
