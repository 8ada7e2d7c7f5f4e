"""Results on their way to the API: on disk first, delivered in order, never lost."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from api.client import ApiClient, ApiRefused, ApiUnavailable
from api.schema import Chunk, Injection, Run, RunUpdate, Stream
from chirpwatch.atomic import replacing
from chirpwatch.errors import ApiError

RETRY_LENGTH = 1.0
"""Time between two tries while the API is away, s."""


class Outbox:
    """A directory of results that wait for the API.

    Each result is a file, whole before it is sent and removed once the API has it.
    Sending one twice changes nothing, so a process may die at any point. While the API
    is away the results gather; they are delivered when it is there again, those that
    an earlier process left before the new ones.

    Args:
        directory: Where results wait; made where it is not there.
        client: The API.
    """

    def __init__(self, directory: str | Path, client: ApiClient) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._client = client
        self._lock = threading.Lock()
        self._next_try = 0.0
        self._next = max((int(path.stem) for path in self.waiting()), default=0) + 1

    def waiting(self) -> list[Path]:
        """The files that are not delivered yet, in order."""
        return sorted(self.directory.glob("*.json"), key=lambda path: int(path.stem))

    def put_run(self, run: str, body: Run) -> None:
        """Register a run."""
        self._put({"what": "run", "run": run, "body": body})

    def update_run(self, run: str, body: RunUpdate) -> None:
        """Report the state of a run."""
        self._put({"what": "update", "run": run, "body": body})

    def put_injections(self, run: str, name: str, body: list[Injection]) -> None:
        """Store a set of injections."""
        self._put({"what": "injections", "run": run, "name": name, "body": body})

    def put_stream(self, run: str, stream: str, body: Stream) -> None:
        """Declare a stream."""
        self._put({"what": "stream", "run": run, "stream": stream, "body": body})

    def put_chunk(self, run: str, stream: str, number: int, body: Chunk) -> None:
        """Store a chunk of a stream."""
        self._put(
            {
                "what": "chunk",
                "run": run,
                "stream": stream,
                "number": number,
                "body": body,
            }
        )

    def _put(self, message: dict[str, Any]) -> None:
        with self._lock:
            path = self.directory / f"{self._next:012d}.json"
            self._next += 1
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(message, default=_plain))
            if time.monotonic() >= self._next_try:
                self._deliver()

    def deliver(self) -> int:
        """Try to deliver everything that waits.

        Returns:
            How many results still wait: none, or the API is away.

        Raises:
            ApiError: The API refused a result; it is kept aside, with the reason.
        """
        with self._lock:
            return self._deliver()

    def _deliver(self) -> int:
        paths = self.waiting()
        for done, path in enumerate(paths):
            try:
                self._send(json.loads(path.read_text()))
            except ApiUnavailable:
                self._next_try = time.monotonic() + RETRY_LENGTH
                return len(paths) - done
            except (ApiRefused, ValueError) as error:
                # ValueError: no result, or one of another version.
                aside = path.with_suffix(".refused")
                path.replace(aside)
                raise ApiError(f"{error}; the result is kept in {aside}") from None
            path.unlink()
        return 0

    def _send(self, message: dict[str, Any]) -> None:
        run, body = message["run"], json.dumps(message["body"])
        match message["what"]:
            case "run":
                self._client.put_run(run, Run.model_validate_json(body))
            case "update":
                self._client.update_run(run, RunUpdate.model_validate_json(body))
            case "injections":
                injections = [
                    Injection.model_validate_json(json.dumps(one))
                    for one in message["body"]
                ]
                self._client.put_injections(run, message["name"], injections)
            case "stream":
                stream = Stream.model_validate_json(body)
                self._client.put_stream(run, message["stream"], stream)
            case "chunk":
                chunk = Chunk.model_validate_json(body)
                self._client.put_chunk(run, message["stream"], message["number"], chunk)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no result")
