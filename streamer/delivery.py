"""The end of a run: what waits is delivered, and what cannot be is told."""

from rich.console import Console

from chirpwatch.api.process import ApiProcess
from chirpwatch.errors import ApiError
from chirpwatch.streamer.outbox import Outbox


def deliver(outbox: Outbox, console: Console) -> int:
    """Deliver what waits, and tell what the API will never take.

    Returns:
        How many results still wait.

    Raises:
        ApiError: See ``Outbox.check``.
    """
    try:
        return outbox.deliver()
    finally:
        for what in outbox.refused:
            console.print(f"refused by the API, kept aside: {what}")


def check_delivered(
    waiting: int, run: str, outbox: Outbox, url: str, service: ApiProcess | None
) -> None:
    """Raise an error if results still wait.

    Args:
        waiting: How many do.
        run: The run's identifier.
        outbox: Where they wait.
        url: Address of the API.
        service: The API, where this process started it.

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
        if service is not None:
            service.check()
    except ApiError as error:
        raise ApiError(f"{error}\n{kept}") from None
    raise ApiError(f"no API at {url}: {kept}")
