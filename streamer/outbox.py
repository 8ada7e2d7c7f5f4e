"""Queue of results on disk, delivered to the results API in order."""

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
"""First and last back-off pause while the API is unreachable, s."""

# Not found, conflict, too large, invalid: the API would refuse the result again. Other
# refusals, such as a missing token, do not depend on the result.
FINAL_REFUSALS = {404, 409, 413, 422}


class Outbox:
    """A queue of results in a directory; a context manager.

    Each result is written to a file atomically, and the file is removed once the API
    has stored the result. A thread delivers the files, so that a slow or unreachable
    API does not hold up the search. Delivery is idempotent, so that the process may
    die at any time: the next process with the same directory delivers the remaining
    results, and marks runs that did not end as failed.

    Args:
        directory: Directory of the results; created if it does not exist.
        client: The results API.

    Attributes:
        refused: Files of results that the API refused for good, with the reasons.

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
        self._wake = threading.Event()
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
        """Files of the undelivered results, in order."""
        return sorted(self.directory.glob("*.json"), key=lambda path: int(path.stem))

    def put_run(self, run: str, body: Run) -> None:
        """Register a run."""
        (self.directory / f"{run}.running").touch()
        self._put({"what": "run", "run": run, "body": body})

    def update_run(self, run: str, body: RunUpdate) -> None:
        """Change a run's state, message or speed; after its end, put nothing more."""
        self._put({"what": "update", "run": run, "body": body})
        if body.state in {"complete", "failed"}:
            (self.directory / f"{run}.running").unlink(missing_ok=True)

    def put_injections(self, run: str, name: str, body: InjectionSet) -> None:
        """Store an injection set."""
        self._put({"what": "injections", "run": run, "name": name, "body": body})

    def put_stream(self, run: str, stream: str, body: Stream) -> None:
        """Declare a stream."""
        self._put({"what": "stream", "run": run, "stream": stream, "body": body})

    def put_chunk(self, run: str, stream: str, number: int, body: Chunk) -> None:
        """Store a chunk of a stream."""
        message = {"what": "chunk", "run": run, "stream": stream, "number": number}
        self._put(message | {"body": body})

    def put_strain(self, run: str, start_ns: int, body: Strain) -> None:
        """Store strain around an event; it starts at GPS ``start_ns``."""
        message = {"what": "strain", "run": run, "start_ns": start_ns}
        self._put(message | {"body": body})

    def put_block(self, run: str, number: int, body: Block) -> None:
        """Store a block of background."""
        self._put({"what": "block", "run": run, "number": number, "body": body})

    def blocks(self, run: str) -> set[int]:
        """Numbers of a run's undelivered blocks."""
        numbers = set()
        for path in self.waiting():
            # The thread may deliver and remove it meanwhile.
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
        self._wake.set()

    def check(self) -> None:
        """Raise the error that stopped delivery, if any.

        Raises:
            ApiError: The API refused a result of this process's runs, or its token.
        """
        if self._failure is not None:
            raise self._failure

    def deliver(self) -> int:
        """End the delivery thread, and try once more to deliver the waiting results.

        Returns:
            Number of results that still wait; not 0 if the API is unreachable.

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
        self._wake.set()
        self._thread.join()

    def _deliver_until_ended(self) -> None:
        backoff = Backoff(FIRST_RETRY_LENGTH, LAST_RETRY_LENGTH)
        unreachable = False
        while not self._ended.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self._deliver()
            except ApiUnavailable as error:
                if not unreachable:
                    log.warning("results wait: %s", error)
                unreachable = True
                self._ended.wait(backoff.next())
                self._wake.set()
            else:
                if unreachable:
                    log.info(
                        "the API is reachable again; all waiting results are delivered"
                    )
                unreachable = False
                backoff.reset()

    def _deliver(self) -> None:
        """Deliver the waiting results in order; set refused results aside."""
        for path in self.waiting():
            message = json.loads(path.read_text())
            try:
                self._send(message)
            except ApiUnavailable:
                raise
            except (ApiRefused, ValueError) as error:
                # ValueError: a result from another version.
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
    raise TypeError(f"expected a result's body, found {type(value).__name__}")
