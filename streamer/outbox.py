"""Results on their way to the API: on disk first, delivered in order, never lost."""

import contextlib
import json
import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from chirpwatch.api.client import (
    ApiClient,
    ApiRefused,
    ApiUnavailable,
)
from chirpwatch.api.contract.injection_set import InjectionSet
from chirpwatch.api.contract.requests import (
    Block,
    Chunk,
    Run,
    RunUpdate,
    Strain,
    Stream,
)
from chirpwatch.atomic import replacing
from chirpwatch.backoff import Backoff
from chirpwatch.errors import ApiError
from chirpwatch.lock import locked

log = logging.getLogger("chirpwatch.outbox")

FIRST_RETRY_LENGTH = 0.5
LAST_RETRY_LENGTH = 30.0
"""Time between two tries while the API is away, s: it doubles from first to last."""

# Not found, conflict, too large, invalid: the same result will never be taken. Others,
# such as a missing token, are not the result's fault.
FINAL_REFUSALS = {404, 409, 413, 422}


class Outbox:
    """A directory of results that wait for the API; a context manager.

    Each result is a file, whole before it is sent and removed once the API has it; a
    thread of its own sends them, so that an API that is slow or away holds nobody up.
    Sending one twice changes nothing, so a process may die at any point: the next one
    that uses the directory delivers what is left first, and marks as failed the runs
    that were never ended.

    Args:
        directory: Where results wait; made where it is not there.
        client: The API.

    Attributes:
        refused: Results that the API will never take, kept aside, with its reasons.

    Raises:
        ApiError: On entry: another process uses the directory.
    """

    def __init__(self, directory: str | Path, client: ApiClient) -> None:
        self.directory = Path(directory)
        self.refused: list[str] = []
        self._client = client
        self._runs: set[str] = set()
        self._failure: ApiError | None = None
        self._next = 1
        self._lock = contextlib.ExitStack()
        self._writing = threading.Lock()
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._deliver_until_ended, daemon=True)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        in_use = ApiError(
            f"{self.directory} is in use by another run; give this one a directory of "
            "its own with --directory"
        )
        self._lock.enter_context(locked(self.directory / ".lock", in_use))
        self._next = max((int(path.stem) for path in self.waiting()), default=0) + 1
        for path in self.directory.glob("*.running"):
            message = "the process ended before the run did"
            self.update_run(path.stem, RunUpdate(state="failed", message=message))
        self._runs.clear()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._lock.close()

    def waiting(self) -> list[Path]:
        """The files that are not delivered yet, in order."""
        return sorted(self.directory.glob("*.json"), key=lambda path: int(path.stem))

    def put_run(self, run: str, body: Run) -> None:
        """Register a run."""
        (self.directory / f"{run}.running").touch()
        self._put({"what": "run", "run": run, "body": body})

    def update_run(self, run: str, body: RunUpdate) -> None:
        """Report the state of a run; its end is the last that is put of it."""
        self._put({"what": "update", "run": run, "body": body})
        if body.state in {"complete", "failed"}:
            (self.directory / f"{run}.running").unlink(missing_ok=True)

    def put_injections(self, run: str, name: str, body: InjectionSet) -> None:
        """Store a set of injections."""
        self._put({"what": "injections", "run": run, "name": name, "body": body})

    def put_stream(self, run: str, stream: str, body: Stream) -> None:
        """Declare a stream."""
        self._put({"what": "stream", "run": run, "stream": stream, "body": body})

    def put_chunk(self, run: str, stream: str, number: int, body: Chunk) -> None:
        """Store a chunk of a stream."""
        message = {"what": "chunk", "run": run, "stream": stream, "number": number}
        self._put(message | {"body": body})

    def put_strain(self, run: str, start_ns: int, body: Strain) -> None:
        """Store strain around an event, from GPS ``start_ns`` on."""
        message = {"what": "strain", "run": run, "start_ns": start_ns}
        self._put(message | {"body": body})

    def put_block(self, run: str, number: int, body: Block) -> None:
        """Store a block of background."""
        self._put({"what": "block", "run": run, "number": number, "body": body})

    def blocks(self, run: str) -> set[int]:
        """Numbers of the blocks of a run that are not delivered yet."""
        numbers = set()
        for path in self.waiting():
            # It may be delivered, and removed, just now.
            with contextlib.suppress(FileNotFoundError):
                message = json.loads(path.read_text())
                if message["what"] == "block" and message["run"] == run:
                    numbers.add(message["number"])
        return numbers

    def _put(self, message: dict[str, Any]) -> None:
        with self._writing:
            self._runs.add(message["run"])
            path = self.directory / f"{self._next:012d}.json"
            self._next += 1
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(message, default=_plain))
        self._news.set()

    def check(self) -> None:
        """Raise what stands in the way of delivery.

        Raises:
            ApiError: The API refused a result of this process's runs, or wants another
                token.
        """
        if self._failure is not None:
            raise self._failure

    def deliver(self) -> int:
        """End the sending thread, and try once more to deliver all that waits.

        Returns:
            How many results still wait: none, or the API is away.

        Raises:
            ApiError: See ``check``.
        """
        self._end()
        with contextlib.suppress(ApiUnavailable):
            self._deliver()
        self.check()
        return len(self.waiting())

    def _end(self) -> None:
        self._ended.set()
        self._news.set()
        self._thread.join()

    def _deliver_until_ended(self) -> None:
        backoff = Backoff(FIRST_RETRY_LENGTH, LAST_RETRY_LENGTH)
        away = False
        while not self._ended.is_set():
            self._news.wait()
            self._news.clear()
            try:
                self._deliver()
            except ApiUnavailable as error:
                if not away:
                    log.warning("results wait: %s", error)
                away = True
                self._ended.wait(backoff.next())
                self._news.set()
            else:
                if away:
                    log.info("the API is back; all results that waited are delivered")
                away = False
                backoff.reset()

    def _deliver(self) -> None:
        """Send all that waits, in order, as far as the API takes it."""
        for path in self.waiting():
            message = json.loads(path.read_text())
            try:
                self._send(message)
            except ApiUnavailable:
                raise
            except (ApiRefused, ValueError) as error:
                # ValueError: a result of another version.
                if isinstance(error, ApiRefused) and (
                    error.status not in FINAL_REFUSALS
                ):
                    self._failure = ApiError(f"{error}; the results wait on disk")
                    return
                aside = path.with_suffix(".refused")
                path.replace(aside)
                self.refused.append(f"{aside}: {error}")
                if message["run"] in self._runs:
                    self._failure = ApiError(f"{error}; the result is kept in {aside}")
            else:
                path.unlink()

    def _send(self, message: dict[str, Any]) -> None:
        run, body = message["run"], json.dumps(message["body"])
        match message["what"]:
            case "run":
                self._client.put_run(run, Run.model_validate_json(body))
            case "update":
                self._client.update_run(run, RunUpdate.model_validate_json(body))
            case "injections":
                injections = InjectionSet.model_validate_json(body)
                self._client.put_injections(run, message["name"], injections)
            case "stream":
                stream = Stream.model_validate_json(body)
                self._client.put_stream(run, message["stream"], stream)
            case "chunk":
                chunk = Chunk.model_validate_json(body)
                self._client.put_chunk(run, message["stream"], message["number"], chunk)
            case "strain":
                strain = Strain.model_validate_json(body)
                self._client.put_strain(run, message["start_ns"], strain)
            case "block":
                block = Block.model_validate_json(body)
                self._client.put_block(run, message["number"], block)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no result")
