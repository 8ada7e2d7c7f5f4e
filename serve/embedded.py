"""The embedded server: a real Triton as a child process, from start to teardown."""

import contextlib
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from chirpwatch.errors import ServerError
from chirpwatch.process import (
    free_ports,
    port_is_free,
    start,
    stop,
    wait_until_ready,
)
from chirpwatch.serve.entries import (
    CONFIGURATION,
    ENTRIES,
)
from chirpwatch.serve.reaper import (
    ModelProcess,
    ended_children,
    model_processes,
)
from chirpwatch.serve.runtime import find_runtime

LOG_TAIL_SIZE = 4096
"""Bytes of the server's log quoted by an error if the log has no error lines."""

LOSS_LENGTH = 10.0
"""Longest wait for a starting server to react to a model's process that has ended, s.

Triton notices within 5 s. But if the process ended before it connected to the server,
Triton may wait for it forever."""


class TritonServer:
    """Context manager that starts the embedded Triton server, and stops it.

    Args:
        repository: The model repository.
        grpc_port: Port for gRPC; 0 selects a free one.
        http_port: Port for HTTP and health checks; 0 selects a free one.
        metrics_port: Port for Prometheus metrics; 0 selects a free one.
        host: Address to listen on.
        log: File that the server's log is appended to. If None, a temporary file, which
            is kept if the context ends with an error.
        startup_timeout: Longest wait for the models to be ready, s.
        configuration: Name of the models' configuration to serve, as for Triton's
            ``--model-config-name``; a model without a configuration of that name uses
            its default. None serves the ensembles, model by model.
        entries: The models that clients will send requests to; the models that they are
            composed of are loaded with them. If the repository has none of the entries,
            all its models are loaded.

    Attributes:
        address: ``host:port`` of gRPC, once the server is up.

    Raises:
        ServerError: On entry, with Triton's own reason if it logs one: the platform is
            not supported, a port is taken, the repository is invalid, the log cannot be
            written, the server or a model's process ended, or the models were not ready
            in time.
    """

    def __init__(
        self,
        repository: str | Path,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        host: str = "127.0.0.1",
        log: str | Path | None = None,
        startup_timeout: float = 120,
        configuration: str | None = CONFIGURATION,
        entries: Sequence[str] = ENTRIES,
    ) -> None:
        self.repository = Path(repository)
        self.host = host
        self.startup_timeout = startup_timeout
        self.configuration = configuration
        self.entries = entries
        self._ports = {"gRPC": grpc_port, "HTTP": http_port, "metrics": metrics_port}
        self._log_path = Path(log) if log else None
        self._log_is_temporary = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Address of the gRPC service, ``host:port``."""
        return f"{self.host}:{self._ports['gRPC']}"

    @property
    def metrics_url(self) -> str:
        """URL of the server's Prometheus metrics."""
        return f"http://{self.host}:{self._ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Path of the server's log."""
        assert self._log_path is not None
        return self._log_path

    def __enter__(self) -> Self:
        if not self.repository.is_dir():
            raise ServerError(f"{self.repository}: no such model repository")
        runtime = find_runtime()
        for purpose, port in self._ports.items():
            try:
                free = not port or port_is_free(port, self.host)
            except OSError as error:
                raise ServerError(
                    f"cannot listen on {self.host}, port {port}: {error}"
                ) from None
            if not free:
                raise ServerError(
                    f"port {port} for {purpose} is taken on {self.host}; give another "
                    "one, or 0 for a free one"
                )
        missing = [purpose for purpose, port in self._ports.items() if not port]
        ports = free_ports(len(missing), self.host)
        self._ports.update(zip(missing, ports, strict=True))
        if self._log_path is None:
            self._log_is_temporary = True
            handle, name = tempfile.mkstemp(prefix="chirpwatch-triton-", suffix=".log")
            os.close(handle)
            self._log_path = Path(name)
        here = [name for name in self.entries if (self.repository / name).is_dir()]
        command = [
            str(runtime.executable),
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={runtime.backends}",
            "--disable-auto-complete-config",
            f"--grpc-address={self.host}",
            f"--grpc-port={self._ports['gRPC']}",
            f"--http-address={self.host}",
            f"--http-port={self._ports['HTTP']}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self._ports['metrics']}",
            "--allow-gpu-metrics=false",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in here or ["*"]),
            # The served models cannot change after the start: nobody knows this key.
            f"--grpc-restricted-protocol=model-repository:admin={secrets.token_hex()}",
            f"--http-restricted-api=model-repository:admin={secrets.token_hex()}",
            # A sequence that was left open must not delay the shutdown.
            "--exit-timeout-secs=5",
        ]
        if self.configuration is not None:
            command.append(f"--model-config-name={self.configuration}")
        # An earlier server's lines in this log must not explain this server's end.
        with self._open_log() as log:
            self._log_start = os.fstat(log.fileno()).st_size
            self._process = start(command, log, runtime.environment, process_group=0)
            # It must outlive this process, to clean up if this process is killed too.
            self._reaper = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "chirpwatch.serve.reaper",
                    str(self._process.pid),
                ],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                start_new_session=True,
            )
        try:
            self._send_to_reaper(self._await_ready())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        # A log that an error names is kept.
        if self._log_is_temporary and error is None:
            self.log_path.unlink(missing_ok=True)

    def _open_log(self) -> BinaryIO:
        path = self.log_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("ab")
        except OSError as error:
            raise ServerError(f"the Triton server's log, {path}: {error}") from None

    def _stop(self) -> None:
        assert self._process is not None and self._reaper.stdin is not None
        self._send_to_reaper(None)
        stop(self._process, timeout=10)
        self._reaper.stdin.close()
        self._reaper.wait()

    def _send_to_reaper(self, models: list[ModelProcess] | None) -> None:
        assert self._reaper.stdin is not None
        if self._reaper.stdin.closed:
            return
        # The reaper ends with the server.
        with contextlib.suppress(BrokenPipeError):
            line = json.dumps(models if models is None else [*map(asdict, models)])
            self._reaper.stdin.write(f"{line}\n".encode())

    def check(self, patience: float = 0.0) -> None:
        """Raise a ServerError if the server is no longer running.

        Args:
            patience: Longest wait for it to end, s: a killed process's connections
                break a moment before the process is gone.
        """
        assert self._process is not None
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return
        raise ServerError(
            f"the Triton server ended ({_describe(status)}); its log, "
            f"{self._log_path}, says: {self._reason()}"
        )

    def _await_ready(self) -> list[ModelProcess]:
        """Wait until the models are ready.

        Returns:
            Every process that ran a model meanwhile, including any that has ended.
        """
        models: dict[int, ModelProcess] = {}
        ended: dict[int, float] = {}  # by process id: when it was first seen, s

        def look() -> list[ModelProcess] | None:
            self.check()
            models.update({model.pid: model for model in model_processes(self.pid)})
            if self._is_ready():
                return list(models.values())
            now = time.monotonic()
            since = {pid: ended.get(pid, now) for pid in ended_children(self.pid)}
            ended.clear()
            ended.update(since)
            if ended and now - min(ended.values()) > LOSS_LENGTH:
                names = [models[pid].name for pid in ended if pid in models]
                raise ServerError(
                    f"the process of {', '.join(names) or 'a model'} ended while the "
                    f"Triton server started; its log, {self._log_path}, says: "
                    f"{self._reason()}"
                )
            return None

        ready = wait_until_ready(look, self.startup_timeout)
        if ready is None:
            raise ServerError(
                f"the Triton server was not ready within {self.startup_timeout:g} s; "
                f"its log, {self._log_path}, says: {self._reason()}"
            )
        return ready

    def _is_ready(self) -> bool:
        # Not httpx.get: it loads the CA certificates at each call, which takes 40 ms of
        # CPU time while the server starts.
        connection = http.client.HTTPConnection(self.host, self._ports["HTTP"], 1)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False  # Not listening yet.
        finally:
            connection.close()

    def _reason(self) -> str:
        """Triton's own error lines, or the end of its log if it has none."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace")
        errors = re.findall(r'^E\d{4} .*?\] "?(.*?)"?$', text, flags=re.MULTILINE)
        return "\n  ".join(dict.fromkeys(errors)) or text[-LOG_TAIL_SIZE:].strip()


def _describe(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
