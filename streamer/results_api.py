"""Connects a command to a running results API, or starts an API."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chirpwatch.api.client import ApiClient
from chirpwatch.api.process import ApiProcess

log = logging.getLogger("chirpwatch.api")


@dataclass(frozen=True)
class Connection:
    """Address and token of a results API.

    Attributes:
        url: Its URL.
        token: Its token, or None.
    """

    url: str
    token: str | None


@dataclass(frozen=True)
class ResultsApi:
    """A running results API.

    Attributes:
        client: A client of it.
        process: Its process, if it was started here; otherwise None.
    """

    client: ApiClient
    process: ApiProcess | None


@contextlib.contextmanager
def results_api(connection: Connection | None, directory: Path) -> Iterator[ResultsApi]:
    """Connect to an API, or start an API that ends with the context.

    Args:
        connection: Address and token of a running API; None starts an API.
        directory: Directory for the database and log of an API that is started.

    Raises:
        ApiError: The API did not start.
    """
    if connection is not None:
        with ApiClient(connection.url, connection.token) as client:
            yield ResultsApi(client, None)
        return
    log.info("starting the results API")
    with (
        ApiProcess(directory / "results.db", log=directory / "api.log") as process,
        process.client() as client,
    ):
        yield ResultsApi(client, process)
