"""The end of a run: what waits is delivered, and what cannot be is reported."""

import logging

from chirpwatch.errors import ApiError
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.results_api import ResultsApi

log = logging.getLogger("chirpwatch.outbox")


def deliver(outbox: Outbox) -> int:
    """Deliver what waits, and log what the API will never take.

    Returns:
        How many results still wait.

    Raises:
        ApiError: See ``Outbox.check``.
    """
    try:
        return outbox.deliver()
    finally:
        for what in outbox.refused:
            log.error("refused by the API, kept aside: %s", what)


def check_delivered(waiting: int, run: str, outbox: Outbox, api: ResultsApi) -> None:
    """Raise an error if results still wait.

    Args:
        waiting: How many do.
        run: The run's identifier.
        outbox: Where they wait.
        api: The API.

    Raises:
        ApiError: The API is away; with its own reason where it is known.
    """
    if not waiting:
        return
    kept = (
        f"{waiting} results of run {run} wait in {outbox.directory}, and are delivered "
        "by the next run with this directory that finds an API"
    )
    try:
        if api.process is not None:
            api.process.check()
    except ApiError as error:
        raise ApiError(f"{error}\n{kept}") from None
    raise ApiError(f"no API at {api.client.url}: {kept}")
