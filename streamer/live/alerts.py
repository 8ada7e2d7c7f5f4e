"""Where candidates go: a file, a webhook, GraceDB."""

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
"""Between two tries while a sink is away, s."""

TIMEOUT = 10.0
"""Longest wait for a sink's answer, s."""


class NotReachedError(ChirpwatchError):
    """A sink certainly did not take what was sent: it may be sent again."""


class RefusedError(ChirpwatchError):
    """A sink will never take what was sent."""


def check_status(status: int) -> None:
    """Raise what an HTTP status says of a candidate that was sent.

    Raises:
        NotReachedError: It was not taken, for now.
        RefusedError: It never will be.
        ChirpwatchError: Whether it was taken is not known.
    """
    if 200 <= status < 300:
        return
    what = f"status {status}"
    if status in {429, 503}:
        raise NotReachedError(what)
    if 400 <= status < 500:
        raise RefusedError(what)
    raise ChirpwatchError(what)


class Sink(ABC):
    """Takes candidates.

    Attributes:
        name: What the ledger calls it.
    """

    name: str

    @abstractmethod
    def send(self, candidate: dict[str, Any]) -> None:
        """Send a candidate.

        Raises:
            NotReachedError: It certainly did not arrive.
            RefusedError: It will never be taken.
            Exception: Whether it arrived is not known.
        """


class JsonLines(Sink):
    """A file with a line of JSON for each candidate.

    Args:
        path: The file; lines are appended to it.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, candidate: dict[str, Any]) -> None:
        """Append a line, and wait until it is on the disk."""
        line = json.dumps(candidate).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            before = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                # A part of a line on a full disk must not stay.
                file.truncate(before)
                raise NotReachedError(f"{self._path}: {error}") from None


class Webhook(Sink):
    """An address that takes candidates as JSON by POST.

    ``X-Chirpwatch-Signature`` is ``sha256=`` and the HMAC-SHA256 of the body with the
    shared secret, hexadecimal; ``Idempotency-Key`` is the candidate's id.

    Args:
        url: The address.
        secret: The shared secret; none: no signature.
    """

    name = "webhook"

    def __init__(self, url: str, secret: bytes | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"webhook: expected an address with http:// or https://, found {url!r}"
            )
        self._url, self._secret = url, secret
        self._http = httpx.Client(timeout=TIMEOUT)

    def send(self, candidate: dict[str, Any]) -> None:
        """POST it."""
        body = json.dumps(candidate).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": candidate["id"],
        }
        if self._secret is not None:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["X-Chirpwatch-Signature"] = f"sha256={digest}"
        try:
            answer = self._http.post(self._url, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReachedError(f"{type(error).__name__}") from None
        check_status(answer.status_code)


class GraceDb(Sink):
    """GraceDB, by LIGO's own client.

    Args:
        url: Address of its API; the test instance's by default.
        group: The analysis group that an event is created for.
        pipeline: Name of the pipeline, as GraceDB knows it.
        client: Makes the client; LIGO's own unless a test has another server's.
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
        """Create an event."""
        import requests

        content = json.dumps(candidate)
        try:
            answer = self._client.create_event(
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
        check_status(answer.status_code)


class AlertSender(threading.Thread):
    """Sends one sink what the ledger has for it, until it is ended.

    Args:
        sink: The sink.
        ledger: What there is to send.
        on_outcome: Called with each outcome: ``told``, ``refused``, ``unknown`` or
            ``not_reached``, and how long it took, s.
    """

    def __init__(
        self,
        sink: Sink,
        ledger: Ledger,
        on_outcome: Callable[[str, float], None] = lambda outcome, length: None,
    ) -> None:
        super().__init__(daemon=True)
        self._sink, self._ledger, self._on_outcome = sink, ledger, on_outcome
        self._news = threading.Event()
        self._ended = threading.Event()
        self._away = False

    def wake(self) -> None:
        """Look into the ledger: there may be more."""
        self._news.set()

    def end(self) -> None:
        """Send what waits, once, and end."""
        self._ended.set()
        self._news.set()
        self.join(2 * TIMEOUT)

    def run(self) -> None:
        """Send."""
        backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)
        while True:
            reached = self._send_all()
            if self._ended.is_set():
                return
            if reached:
                backoff.reset()
                self._news.wait()
            else:
                self._ended.wait(backoff.next())
            self._news.clear()

    def _mark(self, number: int, state: str, detail: str = "") -> bool:
        """Write down what becomes of a candidate; false where the disk is full."""
        try:
            self._ledger.mark(number, self._sink.name, state, detail)
        except sqlite3.OperationalError:
            return False
        return True

    def _send_all(self) -> bool:
        """Send what waits; return false where the sink is away."""
        for number, candidate in self._ledger.waiting(self._sink.name):
            begin = time.monotonic()
            # From here on a process that ends does not know whether it arrived.
            if not self._mark(number, "sending"):
                return False
            state, detail = self._send(candidate)
            while not self._mark(number, state, detail):
                # It was sent: nothing else may be before that is written down.
                if self._ended.wait(FIRST_PAUSE):
                    return False
            outcome = "not_reached" if state == "waiting" else state
            self._on_outcome(outcome, time.monotonic() - begin)
            self._log(candidate["id"], state, detail)
            if state == "waiting":
                return False
        return True

    def _log(self, candidate: str, state: str, detail: str) -> None:
        """Log what did not arrive, and when a sink is away or back."""
        name = self._sink.name
        if state == "waiting":
            if not self._away:
                log.warning("%s is away, candidates wait: %s", name, detail)
        elif self._away:
            log.info("%s is back", name)
        if state in {"refused", "unknown"}:
            log.error("candidate %s at %s: %s, %s", candidate, name, state, detail)
        self._away = state == "waiting"

    def _send(self, candidate: dict[str, Any]) -> tuple[str, str]:
        """Send a candidate; return the state that it is in then, and why."""
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
    """Writes candidates down and has them sent; a context manager.

    Args:
        directory: Where they are written down.
        sinks: Where they are sent.
        metrics: Where outcomes are counted.
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
        """Write a candidate down and have it sent; false where it is there already."""
        if not self._ledger.add(candidate):
            return False
        for sender in self._senders:
            sender.wake()
        return True

    def _count(self, sink: str, outcome: str, length: float) -> None:
        self._metrics.told.labels(sink, outcome).inc()
        self._metrics.telling.labels(sink).observe(length)
