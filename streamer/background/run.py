"""The coordinator of a background run: hands jobs to workers, keeps their results."""

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
from chirpwatch.streamer.background.plan import Job
from chirpwatch.streamer.background.worker import (
    Done,
    Task,
    work,
)
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.source import Source

JOBS_PER_WORKER = 2
"""Jobs under way for each worker: one that it does, one that it finds ready."""

FIRST_PAUSE_LENGTH = 0.5
LAST_PAUSE_LENGTH = 10.0
"""Time until a job that failed is tried again, s: it doubles from first to last."""

LOOK_LENGTH = 0.5
"""Longest time between two looks at workers and servers, s."""


@dataclass
class Measured:
    """Where the time went, and what was done in it.

    Attributes:
        jobs: Jobs done.
        livetime: Livetime of their slides, s.
        wall_length: From the first to the last job, s.
        read_length: Time that workers read strain, s.
        server_length: Time that workers waited for the server, s.
        store_length: Time that it took to keep results, s.
        retries: Jobs that were tried again.
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
    """Jobs that no worker has: those that may go, and those that failed a while ago."""

    ready: deque[Job]
    later: list[tuple[float, Job]] = field(default_factory=list)
    backoffs: dict[int, Backoff] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ready or self.later)

    def again(self, job: Job) -> None:
        """Try a job again after a pause."""
        backoff = self.backoffs.setdefault(
            job.number, Backoff(FIRST_PAUSE_LENGTH, LAST_PAUSE_LENGTH)
        )
        self.later.append((time.monotonic() + backoff.next(), job))

    def next(self) -> Job | None:
        """A job that may go now."""
        now = time.monotonic()
        for entry in [entry for entry in self.later if entry[0] <= now]:
            self.later.remove(entry)
            self.ready.appendleft(entry[1])
        return self.ready.popleft() if self.ready else None


class Coordinator:
    """Runs the jobs of a plan that are not done.

    Args:
        directory: The run's directory.
        source: Where the strain is, as workers find it.
        addresses: gRPC addresses of the Triton servers.
        outbox: Where results go.
        patience: How long no job may succeed while jobs fail, s.
        supervise: Called now and then with the number of jobs done so far; brings back
            a server that this process started.

    Attributes:
        measured: What was done so far, and where the time went.
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
        self.measured = Measured()
        self._directory = directory
        self._source = source
        self._addresses = tuple(addresses)
        self._outbox = outbox
        self._patience = patience
        self._supervise = supervise
        self._failing_since: float | None = None
        self._had_workers = False

    def task(self, job: Job) -> Task:
        """A job with all that a worker needs."""
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
        """Livetime per wall time, s/s; None where nothing was done."""
        measured = self.measured
        return measured.livetime / measured.wall_length if measured.jobs else None

    def run(
        self,
        client: Client,
        jobs: Sequence[Job],
        progress: Callable[[Measured], None] = lambda measured: None,
    ) -> None:
        """Do jobs, and keep and send their results.

        A job is kept before it counts as done, so that this may be killed at any time.

        Args:
            client: The workers.
            jobs: What is to be done.
            progress: Told of each job that is done.

        Raises:
            ServerError: Jobs failed for longer than ``patience`` and none succeeded.
            ChirpwatchError: What trying again does not change: another model, bad
                strain, a result that the API refuses.
        """
        waiting = _Waiting(deque(jobs))
        under_way: dict[Future[Any], Job] = {}
        begin = time.perf_counter()
        try:
            while waiting or under_way:
                self._supervise(self.measured.jobs)
                self._outbox.check()
                limit = JOBS_PER_WORKER * self._count_workers(client)
                while len(under_way) < limit and (job := waiting.next()) is not None:
                    # Not pure: a job that failed must not be taken for its new try.
                    future = client.submit(work, self.task(job), pure=False)
                    under_way[future] = job
                for future in _finished(list(under_way)):
                    if self._take(future, under_way.pop(future), waiting):
                        progress(self.measured)
        finally:
            # A scheduler that is away has forgotten them.
            with contextlib.suppress(OSError, TimeoutError):
                client.cancel(list(under_way), force=True)
            self.measured.wall_length = time.perf_counter() - begin

    def estimate(self, jobs: Sequence[Job]) -> float:
        """How long jobs take, one at a time, from two requests of different size.

        Args:
            jobs: What is to be done.

        Returns:
            Time, s.

        Raises:
            ChirpwatchError: See ``work``.
        """
        job = max(jobs, key=lambda job: len(job.shifts))
        few, many = max(1, len(job.shifts) // 32), max(2, len(job.shifts) // 8)
        lengths = []
        # The first answer includes what a server does once.
        for size in (1, few, many):
            part = Job(job.number, job.stretch, job.shifts[:size], job.strides[:size])
            lengths.append(work(self.task(part)).server_length)
        each = max(lengths[2] - lengths[1], 0.0) / (many - few)
        once = max(lengths[1] - each * few, 0.0)
        stretches = self._directory.plan.stretches
        return sum(
            (once + each * len(one.shifts))
            * stretches[one.stretch].strides
            / stretches[job.stretch].strides
            for one in jobs
        )

    def _count_workers(self, client: Client) -> int:
        """Workers there are; that there are none any more counts as a failure."""
        try:
            count = len(client.nthreads())
        except (OSError, TimeoutError) as error:
            raise ServerError(
                f"the Dask scheduler is away: {error}\n{self._goes_on()}"
            ) from None
        if count:
            self._had_workers = True
        elif self._had_workers:
            self._failed("no Dask worker is left")
        return count

    def _take(self, future: Future[Any], job: Job, waiting: _Waiting) -> bool:
        """Take what a worker handed back; return whether a job is done."""
        try:
            done = future.result()
        except (ServerError, KilledWorker, CancelledError) as error:
            self._failed(str(error))
            self.measured.retries += 1
            waiting.again(job)
            return False
        except ImportError as error:
            raise ConfigurationError(
                f"a Dask worker: expected chirpwatch {__version__} to be installed, "
                f"found none: {error}"
            ) from None
        self._failing_since = None
        begin = time.perf_counter()
        self._keep(job, done)
        self.measured.store_length += time.perf_counter() - begin
        return True

    def _keep(self, job: Job, done: Done) -> None:
        directory, measured = self._directory, self.measured
        directory.save(job.number, done.result)
        self._outbox.put_block(
            directory.run, job.number, done.result.block(directory.plan, job)
        )
        strides = int(done.result.valid_strides(len(job.shifts)).sum())
        measured.jobs += 1
        measured.livetime += strides * directory.plan.geometry.stride_length
        measured.read_length += done.read_length
        measured.server_length += done.server_length

    def _failed(self, reason: str) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > self._patience:
            raise ServerError(
                f"no job succeeded for {self._patience:g} s, the last failure: "
                f"{reason}\n{self._goes_on()}"
            )

    def _goes_on(self) -> str:
        return (
            f"the jobs done are kept in {self._directory.path}: the same command goes "
            "on from there"
        )


def _finished(futures: list[Future[Any]]) -> list[Future[Any]]:
    """Wait a moment for a job to end."""
    if not futures:
        time.sleep(LOOK_LENGTH)
        return []
    try:
        return list(wait_for(futures, LOOK_LENGTH, "FIRST_COMPLETED").done)
    except WaitTimeout:
        return []


def send_again(
    directory: RunDirectory, done: Sequence[int], client: ApiClient, outbox: Outbox
) -> None:
    """Send the results of jobs done earlier that neither API nor outbox has.

    Args:
        directory: The run's directory.
        done: Numbers of the jobs that are done.
        client: The API.
        outbox: Where results go.
    """
    # Asked first: what the outbox delivers between the two questions is in both.
    missing = set(done) - outbox.blocks(directory.run)
    try:
        missing -= {block.number for block in client.blocks(directory.run)}
    except ApiUnavailable:
        pass  # It may have them or not: sending one twice changes nothing.
    except ApiRefused as error:
        if error.status != 404:
            raise
    for number in sorted(missing):
        job = directory.plan.jobs[number]
        block = directory.load(number).block(directory.plan, job)
        outbox.put_block(directory.run, number, block)
