"""Runs a replay: scores its segments, and sends the results to the API."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from chirpwatch.api.contract.requests import LatencyMs, RunUpdate, ended_by
from chirpwatch.streamer.background.directory import JobResult
from chirpwatch.streamer.background.plan import SlideJob
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.replay.bodies import injections_body, run_body
from chirpwatch.streamer.replay.inputs import Replay
from chirpwatch.streamer.replay.jobs import SequenceJob
from chirpwatch.streamer.replay.speed import ReplaySpeed, measure_latency
from chirpwatch.streamer.replay.streams import JobStream
from chirpwatch.streamer.run_ids import new_run_id
from chirpwatch.streamer.served import other_model
from chirpwatch.streamer.snippets import Loudest
from chirpwatch.streamer.timeslides import Timeslides


class ReplayRun:
    """Runs a replay, and sends its results to the API.

    Args:
        replay: Input and settings.
        address: gRPC address of the Triton server.
        outbox: Sends the results.
        name: Name of the run for people.
        progress: Called with the strain that is scored and the total, s.

    Attributes:
        id: The run's identifier.

    Raises:
        ChirpwatchError: The input is bad, or the server is unreachable.
    """

    def __init__(
        self,
        replay: Replay,
        address: str,
        outbox: Outbox,
        name: str,
        progress: Callable[[float, float], None] = lambda done, total: None,
    ) -> None:
        self._replay, self._address, self._outbox = replay, address, outbox
        self._name, self._progress = name, progress
        score_client = ScoreClient(address)
        self._geometry, self._model = score_client.geometry, score_client.model
        self._jobs, _ = replay.jobs(self._geometry)
        self._plan, _ = replay.background(self._geometry)
        self._slide_jobs = self._plan.jobs if self._plan else ()
        self._loudest = Loudest(self._geometry.ifos)
        self._total = self.strain_length + self.slides_length
        self._done = 0.0
        self._counting = threading.Lock()
        self._failed = threading.Event()
        self.id = new_run_id()

    @property
    def strain_length(self) -> float:
        """Strain to score in sequences, s; each injection set counts again."""
        return sum(
            (1 + len(job.signals)) * job.strides * self._geometry.stride_length
            for job in self._jobs
        )

    @property
    def slides_length(self) -> float:
        """Strain to score in timeslides, s."""
        if self._plan is None:
            return 0.0
        return sum(self._plan.length(job) for job in self._slide_jobs)

    def run(self) -> ReplaySpeed:
        """Score all jobs and timeslides.

        Returns:
            Throughput and latency.

        Raises:
            ChirpwatchError: The input is bad, the server failed, or the API refused a
                result. A run that has begun is then marked as failed.
        """
        outbox = self._outbox
        injections = {
            set_name: injections_body(signals)
            for job in self._jobs
            for set_name, signals in job.signals.items()
        }
        latencies = measure_latency(self._address, self._jobs[0])
        body = run_body(
            self._name, self._model, self._geometry, self._replay.segments, self._plan
        )
        outbox.put_run(self.id, body)
        try:
            for set_name, bodies in injections.items():
                outbox.put_injections(self.id, set_name, bodies)
            wall_length = self._run_all(self._search, self._jobs)
            slides_wall_length = self._run_all(self._slide, self._slide_jobs)
            for start_ns, strain in self._loudest.strain():
                outbox.put_strain(self.id, start_ns, strain)
        except BaseException as error:
            outbox.update_run(self.id, ended_by(error))
            raise
        speed = ReplaySpeed(
            self.strain_length,
            wall_length,
            self.slides_length,
            slides_wall_length,
            latencies,
        )
        outbox.update_run(
            self.id,
            RunUpdate(
                state="complete",
                throughput=speed.throughput,
                latency_ms=LatencyMs(**speed.latency_ms),
            ),
        )
        return speed

    def _run_all(self, work: Callable[[Any], None], jobs: Sequence[Any]) -> float:
        """Do jobs in parallel; return the wall time, s."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(self._replay.workers) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return time.perf_counter() - begin

    def _search(self, job: SequenceJob) -> None:
        """Score a job's strain, at zero-lag and with each injection set."""
        streams = [
            JobStream(self.id, job, set_name, self._outbox, self._loudest)
            for set_name in (None, *job.signals)
        ]
        geometry = self._geometry
        score_client = ScoreClient(self._address)
        self._check(score_client.model)
        request_strides = round(
            self._replay.request_length * geometry.inference_sampling_rate
        )
        for scores in score_client.stream(
            job.read, job.strides, request_strides, offsets=job.offsets
        ):
            if self._failed.is_set():
                return
            self._outbox.check()
            for stream in streams:
                stream.push(scores)
            self._count(len(streams) * len(scores.valid) * geometry.stride_length)
        for stream in streams:
            stream.finish()

    def _slide(self, job: SlideJob) -> None:
        """Score a job's timeslides."""
        plan = self._plan
        assert plan is not None
        if self._failed.is_set():
            return
        server = Timeslides(self._address)
        self._check(server.model)
        stretch = plan.stretches[job.stretch]
        strain = stretch.read(self._replay.segments, self._geometry)
        events = server.events(strain, np.array(job.shifts))
        block = JobResult.of(events).block(plan, job)
        self._outbox.put_block(self.id, job.number, block)
        self._count(plan.length(job))

    def _check(self, model: str) -> None:
        """Raise if the API refused a result, or if the served model changed."""
        self._outbox.check()
        if model != self._model:
            raise other_model(self._address, self._model, model)

    def _count(self, length: float) -> None:
        """Add to the strain that is scored, s."""
        with self._counting:
            self._done += length
            self._progress(self._done, self._total)
