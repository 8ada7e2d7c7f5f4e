"""The API as a child process."""

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
"""Longest wait for the API to answer after its start, s."""

STOP_TIMEOUT = 5.0
"""Longest wait for the API to end before it is killed, s."""


class ApiProcess:
    """Context manager that runs the API as a child process.

    It starts the API, waits until it answers, and stops it at the end. The child ends
    with the thread that started it, even after SIGKILL.

    Args:
        database: Database URL, or path of an SQLite file.
        port: Port on loopback; 0 for a free one.
        log: File to append the API's output to.
        token: Token for writing; a new random one if None.
        triton: gRPC address of the Triton server that /readyz checks.

    Attributes:
        url: Address of the API.
        token: Token for writing.
        pid: Process id.

    Raises:
        ApiError: On entering, if the API does not start; with the end of its log.
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
        """Make a client of this API, with its token."""
        return ApiClient(self.url, self.token)

    def check(self) -> None:
        """Check that the API is running.

        Raises:
            ApiError: It has ended; with the end of its log.
        """
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise ApiError(
                f"the API ended with exit status {code}; end of {self._log}:\n"
                + self._tail()
            )

    def stop(self) -> None:
        """Terminate the API; kill it if it does not end. Repeating this is harmless."""
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
            # A line without its end may be incomplete.
            if line.startswith(READY) and line.endswith("\n"):
                return line.removeprefix(READY).strip()
        return None

    def _tail(self) -> str:
        return "\n".join(self._output().splitlines()[-20:]) or "(nothing)"
