"""Connects to Dask workers: local, of a given scheduler, or in a batch system."""

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
"""Class of dask-jobqueue for each batch system."""

LOOPBACK = "127.0.0.1:0"
"""Address of Dask's dashboard: a free port, as runs may share a machine."""

CONNECT_TIMEOUT = 10
"""Longest wait for a connection to the scheduler, s."""


@contextlib.contextmanager
def connect(
    workers: int, scheduler: str | None = None, batch: str | None = None
) -> "Iterator[Client]":
    """Start Dask workers, or connect to running ones; a context manager.

    Args:
        workers: Number of workers to start; ignored with ``scheduler``.
        scheduler: Address of a running scheduler.
        batch: Batch system to submit workers to, a key of ``BATCH_SYSTEMS``. Dask's
            configuration sets the resources of its jobs.

    Yields:
        A client of the scheduler. Workers that were started end with the context.

    Raises:
        ServerError: No scheduler answers at the address.
        ConfigurationError: Dask's configuration has no settings for the batch system.
    """
    from distributed import Client, LocalCluster

    # Dask logs every worker that dies; the coordinator retries and reports lost jobs.
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
            f"{batch}: expected the resources of its jobs in Dask's configuration "
            f"(jobqueue.{batch}, in {dask.config.PATH}), found: {error}"
        ) from None
    # adapt(), as scale() would not replace a worker whose job reached its time limit.
    cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
    return cluster
