"""Dask workers: on this machine, at a scheduler's, or as jobs of a batch system."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chirpwatch.errors import (
    ConfigurationError,
    ServerError,
)

if TYPE_CHECKING:
    import dask_jobqueue
    from distributed import Client

BATCH_SYSTEMS = {"htcondor": "HTCondorCluster", "slurm": "SLURMCluster"}
"""Class of dask-jobqueue for each."""

LOOPBACK = "127.0.0.1:0"
"""Where Dask's own page is: any free port, as a second run may have one too."""

CONNECT_TIMEOUT = 10
"""Longest wait for a scheduler, s."""


@contextlib.contextmanager
def connect(
    workers: int, scheduler: str | None = None, batch: str | None = None
) -> "Iterator[Client]":
    """Workers, as a context manager.

    Args:
        workers: How many to start; of no meaning with ``scheduler``.
        scheduler: Address of a scheduler that runs already.
        batch: Batch system to submit workers to, of ``BATCH_SYSTEMS``; what a job
            asks for stands in Dask's own configuration.

    Yields:
        A client of their scheduler. Workers that this started end with the context.

    Raises:
        ServerError: There is no scheduler at that address.
        ConfigurationError: Dask's configuration does not say what a job of the batch
            system asks for.
    """
    from distributed import Client, LocalCluster

    # Dask logs every worker that dies; what is lost here is done again, and told.
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if scheduler is not None:
            where: object = scheduler
        elif batch is not None:
            where = stack.enter_context(_submit(batch, workers))
        else:
            where = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=LOOPBACK,
                    silence_logs=logging.CRITICAL,
                    # A job's memory is bounded by its stretch: no need to guess.
                    memory_limit=0,
                )
            )
        try:
            client = stack.enter_context(Client(where, timeout=CONNECT_TIMEOUT))
        except (OSError, ValueError) as error:
            raise ServerError(f"no Dask scheduler at {where}: {error}") from None
        yield client


def _submit(batch: str, workers: int) -> "dask_jobqueue.JobQueueCluster":
    import dask
    import dask_jobqueue

    try:
        cluster: dask_jobqueue.JobQueueCluster = getattr(
            dask_jobqueue, BATCH_SYSTEMS[batch]
        )(scheduler_options={"dashboard_address": LOOPBACK})
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{batch}: expected Dask's configuration to say what a job asks for "
            f"(jobqueue.{batch}, in {dask.config.PATH}): {error}"
        ) from None
    # Not scale(): a worker whose job ended, by its time limit for one, is replaced.
    cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
    return cluster
