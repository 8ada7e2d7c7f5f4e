"""The results API that a command sends to: a given one, or one that it starts."""

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
    """Where a results API is.

    Attributes:
        url: Its address.
        token: Its token, if it has one.
    """

    url: str
    token: str | None


@dataclass(frozen=True)
class ResultsApi:
    """A results API that runs.

    Attributes:
        client: Its client.
        process: The API, if this process started it.
    """

    client: ApiClient
    process: ApiProcess | None


@contextlib.contextmanager
def results_api(connection: Connection | None, directory: Path) -> Iterator[ResultsApi]:
    """Connect to the API, or start one that ends with the context.

    Args:
        connection: Where it is; None starts one.
        directory: Where the database and log of the one that is started are kept.

    Raises:
        ApiError: It did not start.
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
