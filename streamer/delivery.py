"""Delivers the remaining results when a run ends, and reports failures."""

import logging

from chirpwatch.errors import ApiError
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.results_api import ResultsApi

log = logging.getLogger("chirpwatch.outbox")


def deliver(outbox: Outbox) -> int:
    """Deliver the waiting results, and log those that the API refused.

    Returns:
        Number of results that still wait.

    Raises:
        ApiError: See ``Outbox.check``.
    """
    try:
        return outbox.deliver()
    finally:
        for refusal in outbox.refused:
            log.error("refused by the API, set aside: %s", refusal)


def check_delivered(waiting: int, run: str, outbox: Outbox, api: ResultsApi) -> None:
    """Raise an error if results still wait.

    Args:
        waiting: Number of results that wait.
        run: Identifier of the run.
        outbox: The outbox.
        api: The results API.

    Raises:
        ApiError: Results wait; with the reason why an API that was started here ended.
    """
    if not waiting:
        return
    text = (
        f"{waiting} results of run {run} wait in {outbox.directory}; the next run with "
        "this directory delivers them"
    )
    try:
        if api.process is not None:
            api.process.check()
    except ApiError as error:
        raise ApiError(f"{error}\n{text}") from None
    raise ApiError(f"no API at {api.client.url}: {text}")
