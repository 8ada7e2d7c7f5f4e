"""Runs a background plan: gives jobs to workers, stores and sends their results."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker
from distributed import TimeoutError as WaitTimeout
from distributed import wait as wait_for

from chirpwatch import __version__
from chirpwatch.api.client import (
    ApiClient,
    ApiRefused,
    ApiUnavailable,
)
from chirpwatch.backoff import Backoff
from chirpwatch.errors import (
    ConfigurationError,
    ServerError,
)
from chirpwatch.streamer.background.directory import RunDirectory
from chirpwatch.streamer.background.plan import SlideJob
from chirpwatch.streamer.background.worker import (
    JobOutcome,
    Task,
    work,
)
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.source import Source

JOBS_PER_WORKER = 2
"""Jobs submitted for each worker: a running one, and one that waits for it."""

FIRST_PAUSE_LENGTH = 0.5
LAST_PAUSE_LENGTH = 10.0
"""First and last back-off pause before a failed job is retried, s."""

POLL_LENGTH = 0.5
"""Longest time between two checks of workers and servers, s."""


@dataclass
class RunTotals:
    """Work done and time spent by this process and its workers.

    Attributes:
        jobs: Number of finished jobs.
        livetime: Livetime of their slides, s.
        wall_length: Wall time, s.
        read_length: Time in which workers read strain, summed, s.
        server_length: Time in which workers waited for the server, summed, s.
        store_length: Time to store and send results, s.
        retries: Number of failed attempts.
    """

    jobs: int = 0
    livetime: float = 0.0
    wall_length: float = 0.0
    read_length: float = 0.0
    server_length: float = 0.0
    store_length: float = 0.0
    retries: int = 0


@dataclass
class _Waiting:
    """Queue of jobs for workers, with back-off for failed jobs."""

    ready: deque[SlideJob]
    later: list[tuple[float, SlideJob]] = field(default_factory=list)
    backoffs: dict[int, Backoff] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ready or self.later)

    def again(self, job: SlideJob) -> None:
        """Queue a failed job, to be ready after a pause."""
        backoff = self.backoffs.setdefault(
            job.number, Backoff(FIRST_PAUSE_LENGTH, LAST_PAUSE_LENGTH)
        )
        self.later.append((time.monotonic() + backoff.next(), job))

    def next(self) -> SlideJob | None:
        """Remove and return the next ready job; None if no job is ready."""
        now = time.monotonic()
        for entry in [entry for entry in self.later if entry[0] <= now]:
            self.later.remove(entry)
            self.ready.appendleft(entry[1])
        return self.ready.popleft() if self.ready else None


class Coordinator:
    """Runs a plan's remaining jobs.

    Args:
        directory: The run's directory.
        source: Files of the strain, which workers open themselves.
        addresses: gRPC addresses of the Triton servers.
        outbox: Sends the results.
        patience: Longest time in which jobs fail and none succeeds, s.
        supervise: Called regularly with the number of finished jobs; restarts a server
            that this process started and that ended.

    Attributes:
        totals: Work done and time spent so far.
    """

    def __init__(
        self,
        directory: RunDirectory,
        source: Source,
        addresses: Sequence[str],
        outbox: Outbox,
        patience: float,
        supervise: Callable[[int], None] = lambda jobs: None,
    ) -> None:
        self.totals = RunTotals()
        self._directory = directory
        self._source = source
        self._addresses = tuple(addresses)
        self._outbox = outbox
        self._patience = patience
        self._supervise = supervise
        self._failing_since: float | None = None
        self._had_workers = False

    def task(self, job: SlideJob) -> Task:
        """A job with everything that a worker needs to run it."""
        plan, facts = self._directory.plan, self._directory.facts
        stretch = plan.stretches[job.stretch]
        return Task(
            job=job,
            stretch=stretch,
            source=self._source,
            fingerprint=facts["strain"][stretch.segment],
            geometry=plan.geometry,
            model=facts["model"],
            addresses=self._addresses,
        )

    @property
    def throughput(self) -> float | None:
        """Livetime per wall time, s/s; None before the first finished job."""
        totals = self.totals
        return totals.livetime / totals.wall_length if totals.jobs else None

    def run(
        self,
        client: Client,
        jobs: Sequence[SlideJob],
        progress: Callable[[RunTotals], None] = lambda totals: None,
    ) -> None:
        """Run jobs, and store and send their results.

        A job's result is stored before the job counts as finished, so that the process
        may be killed at any time.

        Args:
            client: Client of the workers' Dask scheduler.
            jobs: The jobs.
            progress: Called after each finished job.

        Raises:
            ServerError: Jobs failed for longer than ``patience`` and none succeeded, or
                the scheduler is unreachable.
            ChirpwatchError: A failure that a retry would not change: another model, bad
                strain, a result that the API refused.
        """
        waiting = _Waiting(deque(jobs))
        under_way: dict[Future[Any], SlideJob] = {}
        begin = time.perf_counter()
        try:
            while waiting or under_way:
                self._supervise(self.totals.jobs)
                self._outbox.check()
                limit = JOBS_PER_WORKER * self._count_workers(client)
                while len(under_way) < limit and (job := waiting.next()) is not None:
                    # With `pure`, a retry would get the failed attempt's result.
                    future = client.submit(work, self.task(job), pure=False)
                    under_way[future] = job
                for future in _finished(list(under_way)):
                    if self._take(future, under_way.pop(future), waiting):
                        progress(self.totals)
        finally:
            # An unreachable scheduler cannot cancel them, and need not.
            with contextlib.suppress(OSError, TimeoutError):
                client.cancel(list(under_way), force=True)
            self.totals.wall_length = time.perf_counter() - begin

    def estimate(self, jobs: Sequence[SlideJob]) -> float:
        """Estimate the time of jobs, one at a time, from requests of two sizes.

        Args:
            jobs: The jobs.

        Returns:
            Time, s.

        Raises:
            ChirpwatchError: See ``work``.
        """
        job = max(jobs, key=lambda job: len(job.shifts))
        few, many = max(1, len(job.shifts) // 32), max(2, len(job.shifts) // 8)
        lengths = []
        # The first request includes a server's warm-up, and is not used.
        for size in (1, few, many):
            part = SlideJob(
                job.number, job.stretch, job.shifts[:size], job.strides[:size]
            )
            lengths.append(work(self.task(part)).server_length)
        each = max(lengths[2] - lengths[1], 0.0) / (many - few)
        once = max(lengths[1] - each * few, 0.0)
        stretches = self._directory.plan.stretches
        return sum(
            (once + each * len(other.shifts))
            * stretches[other.stretch].strides
            / stretches[job.stretch].strides
            for other in jobs
        )

    def _count_workers(self, client: Client) -> int:
        """Number of workers; losing the last worker counts as a failure."""
        try:
            count = len(client.nthreads())
        except (OSError, TimeoutError) as error:
            raise ServerError(
                f"the Dask scheduler is unreachable: {error}\n{self._how_to_continue()}"
            ) from None
        if count:
            self._had_workers = True
        elif self._had_workers:
            self._failed("no Dask worker is left")
        return count

    def _take(self, future: Future[Any], job: SlideJob, waiting: _Waiting) -> bool:
        """Take a worker's outcome; return whether the job succeeded."""
        try:
            outcome = future.result()
        except (ServerError, KilledWorker, CancelledError) as error:
            self._failed(str(error))
            self.totals.retries += 1
            waiting.again(job)
            return False
        except ImportError as error:
            raise ConfigurationError(
                f"a Dask worker: expected chirpwatch {__version__} to be installed, "
                f"but an import failed ({error}); install it where workers run"
            ) from None
        self._failing_since = None
        begin = time.perf_counter()
        self._store(job, outcome)
        self.totals.store_length += time.perf_counter() - begin
        return True

    def _store(self, job: SlideJob, outcome: JobOutcome) -> None:
        directory, totals = self._directory, self.totals
        directory.save(job.number, outcome.result)
        self._outbox.put_block(
            directory.run, job.number, outcome.result.block(directory.plan, job)
        )
        strides = int(outcome.result.valid_strides(len(job.shifts)).sum())
        totals.jobs += 1
        totals.livetime += strides * directory.plan.geometry.stride_length
        totals.read_length += outcome.read_length
        totals.server_length += outcome.server_length

    def _failed(self, reason: str) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > self._patience:
            raise ServerError(
                f"no job succeeded for {self._patience:g} s, the last failure: "
                f"{reason}\n{self._how_to_continue()}"
            )

    def _how_to_continue(self) -> str:
        return (
            f"finished jobs are in {self._directory.path}; the same command goes on "
            "from there"
        )


def _finished(futures: list[Future[Any]]) -> list[Future[Any]]:
    """Wait shortly for jobs to end; return those that have ended."""
    if not futures:
        time.sleep(POLL_LENGTH)
        return []
    try:
        return list(wait_for(futures, POLL_LENGTH, "FIRST_COMPLETED").done)
    except WaitTimeout:
        return []


def send_again(
    directory: RunDirectory, done: Sequence[int], client: ApiClient, outbox: Outbox
) -> None:
    """Send results of finished jobs that neither the API nor the outbox has.

    Args:
        directory: The run's directory.
        done: Numbers of the finished jobs.
        client: The results API.
        outbox: Sends the results.

    Raises:
        ApiRefused: The API refused to list the run's results.
    """
    # The outbox is read first: a result that it delivers meanwhile is then in the API.
    missing = set(done) - outbox.blocks(directory.run)
    try:
        missing -= {block.number for block in client.blocks(directory.run)}
    except ApiUnavailable:
        pass  # Unknown which results the API has: sending one twice does no harm.
    except ApiRefused as error:
        if error.status != 404:
            raise
    for number in sorted(missing):
        job = directory.plan.jobs[number]
        block = directory.load(number).block(directory.plan, job)
        outbox.put_block(directory.run, number, block)
