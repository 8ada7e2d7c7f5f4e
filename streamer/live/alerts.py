"""Sends candidates to sinks: a file, a webhook, GraceDB."""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from chirpwatch.backoff import Backoff
from chirpwatch.errors import (
    ChirpwatchError,
    ConfigurationError,
)
from chirpwatch.streamer.live.ledger import Candidate, Ledger
from chirpwatch.streamer.live.metrics import LiveMetrics

log = logging.getLogger("chirpwatch.alerts")

FIRST_PAUSE, LAST_PAUSE = 0.5, 60.0
"""First and last back-off pause while a sink is unreachable, s."""

TIMEOUT = 10.0
"""Longest wait for a sink's response, s."""


class NotReachedError(ChirpwatchError):
    """The candidate certainly did not arrive: it may be sent again."""


class RefusedError(ChirpwatchError):
    """The sink rejected the candidate for good: it is not sent again."""


def check_status(status: int) -> None:
    """Raise the error that matches the HTTP status of a delivery.

    Raises:
        NotReachedError: The sink asks to retry later (429, 503).
        RefusedError: The sink rejected the candidate (other 4xx).
        ChirpwatchError: Any other status: the candidate may have arrived.
    """
    if 200 <= status < 300:
        return
    text = f"HTTP status {status}"
    if status in {429, 503}:
        raise NotReachedError(text)
    if 400 <= status < 500:
        raise RefusedError(text)
    raise ChirpwatchError(text)


class Sink(ABC):
    """A destination of candidates.

    Attributes:
        name: Name in the ledger and in metrics.
    """

    name: str

    @abstractmethod
    def send(self, candidate: dict[str, Any]) -> None:
        """Send a candidate.

        Raises:
            NotReachedError: It certainly did not arrive.
            RefusedError: The sink rejected it for good.
            Exception: It may have arrived.
        """


class JsonLines(Sink):
    """A JSON lines file.

    Args:
        path: The file; candidates are appended to it.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, candidate: dict[str, Any]) -> None:
        """Append the candidate, and sync the file to the disk."""
        line = json.dumps(candidate).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            before = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                # A full disk may leave a part of a line.
                file.truncate(before)
                raise NotReachedError(f"{self._path}: {error}") from None


class Webhook(Sink):
    """A URL to which candidates are POSTed as JSON.

    ``X-Chirpwatch-Signature`` is ``sha256=`` and the HMAC-SHA256 of the body with the
    shared secret, hexadecimal; ``Idempotency-Key`` is the candidate's id.

    Args:
        url: The URL.
        secret: The shared secret; None: requests are not signed.

    Raises:
        ConfigurationError: The URL is not an HTTP one.
    """

    name = "webhook"

    def __init__(self, url: str, secret: bytes | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"--webhook: expected a URL with http:// or https://, found {url!r}"
            )
        self._url, self._secret = url, secret
        self._http = httpx.Client(timeout=TIMEOUT)

    def send(self, candidate: dict[str, Any]) -> None:
        """POST the candidate."""
        body = json.dumps(candidate).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": candidate["id"],
        }
        if self._secret is not None:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["X-Chirpwatch-Signature"] = f"sha256={digest}"
        try:
            response = self._http.post(self._url, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReachedError(f"{type(error).__name__}") from None
        check_status(response.status_code)


class GraceDb(Sink):
    """GraceDB, through the `ligo-gracedb` client.

    Args:
        url: URL of GraceDB's API.
        group: GraceDB's group of the events.
        pipeline: GraceDB's name of the pipeline.
        client: Makes a client for a URL; None: `ligo-gracedb`'s. For tests.

    Raises:
        ConfigurationError: `ligo-gracedb` is not installed.
    """

    name = "gracedb"

    def __init__(
        self,
        url: str,
        group: str,
        pipeline: str,
        client: Callable[[str], Any] | None = None,
    ) -> None:
        self._group, self._pipeline = group, pipeline
        if client is None:
            try:
                from ligo.gracedb.rest import GraceDb as Client
            except ImportError:
                raise ConfigurationError(
                    "GraceDB needs ligo-gracedb; install chirpwatch with its `live` "
                    "extra: pip install '.[live]'"
                ) from None
            self._client = Client(service_url=url, retries=0)
        else:
            self._client = client(url)

    def send(self, candidate: dict[str, Any]) -> None:
        """Create an event with the candidate as its file."""
        import requests

        content = json.dumps(candidate)
        try:
            response = self._client.create_event(
                self._group,
                self._pipeline,
                f"chirpwatch-{candidate['id']}.json",
                filecontents=content,
                offline=bool(candidate["simulated"]),
            )
        except requests.exceptions.ConnectionError as error:
            raise NotReachedError(type(error).__name__) from None
        except requests.exceptions.HTTPError as error:
            if error.response is None:
                raise
            check_status(error.response.status_code)
            raise
        check_status(response.status_code)


class AlertSender(threading.Thread):
    """Thread that delivers the ledger's waiting candidates to a sink.

    Args:
        sink: The sink.
        ledger: Candidates and their delivery states.
        on_outcome: Called after each delivery with its outcome (``told``, ``refused``,
            ``unknown`` or ``not_reached``) and its duration, s.
    """

    def __init__(
        self,
        sink: Sink,
        ledger: Ledger,
        on_outcome: Callable[[str, float], None] = lambda outcome, length: None,
    ) -> None:
        super().__init__(daemon=True)
        self._sink, self._ledger, self._on_outcome = sink, ledger, on_outcome
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._unreachable = False

    def wake(self) -> None:
        """Check the ledger for new candidates."""
        self._wake.set()

    def end(self) -> None:
        """Try once to send the waiting candidates, and end the thread."""
        self._ended.set()
        self._wake.set()
        self.join(2 * TIMEOUT)

    def run(self) -> None:
        """Deliver candidates until ``end`` is called, with back-off."""
        backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)
        while True:
            reached = self._send_all()
            if self._ended.is_set():
                return
            if reached:
                backoff.reset()
                self._wake.wait()
            else:
                self._ended.wait(backoff.next())
            self._wake.clear()

    def _mark(self, number: int, state: str, detail: str = "") -> bool:
        """Store a delivery state; return False if the disk is full."""
        try:
            self._ledger.mark(number, self._sink.name, state, detail)
        except sqlite3.OperationalError:
            return False
        return True

    def _send_all(self) -> bool:
        """Send the waiting candidates; return False if the sink is unreachable."""
        for number, candidate in self._ledger.waiting(self._sink.name):
            begin = time.monotonic()
            # If the process ends after this, it is unknown whether it arrived.
            if not self._mark(number, "sending"):
                return False
            state, detail = self._send(candidate)
            while not self._mark(number, state, detail):
                # The candidate was sent: store that before anything else is sent.
                if self._ended.wait(FIRST_PAUSE):
                    return False
            outcome = "not_reached" if state == "waiting" else state
            self._on_outcome(outcome, time.monotonic() - begin)
            self._log(candidate["id"], state, detail)
            if state == "waiting":
                return False
        return True

    def _log(self, candidate: str, state: str, detail: str) -> None:
        """Log failed deliveries, and when a sink becomes unreachable or reachable."""
        name = self._sink.name
        if state == "waiting":
            if not self._unreachable:
                log.warning("%s is unreachable, candidates wait: %s", name, detail)
        elif self._unreachable:
            log.info("%s is reachable again", name)
        if state in {"refused", "unknown"}:
            log.error(
                "candidate %s, delivery to %s %s: %s", candidate, name, state, detail
            )
        self._unreachable = state == "waiting"

    def _send(self, candidate: dict[str, Any]) -> tuple[str, str]:
        """Send a candidate; return its new state, and the reason."""
        try:
            self._sink.send(candidate)
        except NotReachedError as error:
            return "waiting", str(error)
        except RefusedError as error:
            return "refused", str(error)
        except Exception as error:
            return "unknown", f"{type(error).__name__}: {error}"
        return "told", ""


class Alerts:
    """Stores candidates, and delivers them to all sinks; a context manager.

    Args:
        directory: Directory for the ledger.
        sinks: Where candidates are sent.
        metrics: Metrics that count deliveries.
    """

    def __init__(
        self, directory: Path, sinks: Sequence[Sink], metrics: LiveMetrics
    ) -> None:
        names = tuple(sink.name for sink in sinks)
        self._ledger = Ledger(directory / "candidates.db", names)
        self._senders = [
            AlertSender(sink, self._ledger, partial(self._count, sink.name))
            for sink in sinks
        ]
        self._metrics, self._stack = metrics, contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._ledger)
        for sender in self._senders:
            sender.start()
            self._stack.callback(sender.end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def add(self, candidate: Candidate) -> bool:
        """Store a candidate and have it sent; return False if it is stored already."""
        if not self._ledger.add(candidate):
            return False
        for sender in self._senders:
            sender.wake()
        return True

    def _count(self, sink: str, outcome: str, length: float) -> None:
        self._metrics.deliveries.labels(sink, outcome).inc()
        self._metrics.delivery_length.labels(sink).observe(length)
