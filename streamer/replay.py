"""Replay: segments through the served detector, as fast as it answers."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np
from pydantic import ValidationError

from api.schema import (
    Chunk,
    Event,
    GeometryBody,
    Injection,
    LatencyMs,
    Run,
    RunUpdate,
    Stream,
)
from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
    ShiftError,
    SignalError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS, Segment
from streamer.client import Detector, Scores
from streamer.events import CLUSTER_LENGTH, Clusterer
from streamer.jobs import Job
from streamer.outbox import Outbox

LATENCY_STRIDES = 400
"""Single-stride updates that the latency is measured with."""

MAX_REQUEST_STRIDES = 32_768
"""A chunk holds the scores of a request, and the API bounds what it takes."""


@dataclass(frozen=True)
class Replay:
    """What a replay analyses, and how.

    Attributes:
        segments: The strain.
        slides: Timeslides beside zero-lag; slide *k* shifts the second detector by
            ``k * slide_length``.
        slide_length: Step of the shifts, s.
        signals: For each segment's name the signals that are injected into its
            zero-lag data, in a second row of the same requests.
        request_length: Strain in one request, s.
        workers: Sequences under way at once.
    """

    segments: Sequence[Segment]
    slides: int = 4
    slide_length: float = 4.0
    signals: dict[str, ProjectedSignals] = field(default_factory=dict)
    request_length: float = 64.0
    workers: int = 2

    def jobs(self, geometry: Geometry) -> tuple[list[Job], list[str]]:
        """Zero-lag and slides of each segment, as far as they are long enough.

        Slide *k* shifts the first detector by nothing, the second by *k* steps, a third
        by 2 *k*, so that no two stay in coincidence.

        Returns:
            The jobs, and what was left out and why.

        Raises:
            StrainError: No segment is as long as the warm-up; or see :class:`Job`.
            ShiftError: A step so small that two slides would share a kernel's data, or
                slides of one detector.
            ConfigurationError: The length of a request is no whole number of strides.
        """
        self._check(geometry)
        order = range(len(geometry.ifos))
        jobs, left_out = [], []
        for segment in self.segments:
            where = f"{segment.source}, segment {segment.name}"
            for k in range(self.slides + 1):
                shifts = tuple(i * k * self.slide_length for i in order)
                left = segment.duration - shifts[-1]
                if left < geometry.psd_min_length:
                    left_out.append(
                        f"{where} at shifts {shifts}: {max(left, 0):g} s are left, "
                        f"less than the warm-up of {geometry.psd_min_length:g} s"
                    )
                    continue
                signals = None if k else self.signals.get(segment.name)
                jobs.append(Job(segment, geometry, shifts, signals))
        if not jobs:
            raise StrainError(left_out[0] if left_out else "no segments to analyse")
        return jobs, left_out

    def _check(self, geometry: Geometry) -> None:
        strides = self.request_length * geometry.inference_sampling_rate
        if not (strides % 1 == 0 and 1 <= strides <= MAX_REQUEST_STRIDES):
            raise ConfigurationError(
                f"request length: expected a multiple of {geometry.stride_length:g} s, "
                f"at most {MAX_REQUEST_STRIDES * geometry.stride_length:g} s, found "
                f"{self.request_length:g} s"
            )
        least = geometry.kernel_length + geometry.fduration
        if self.slides and self.slide_length < least:
            raise ShiftError(
                f"slides: expected a step of at least kernel and filter, {least:g} s, "
                f"found {self.slide_length:g} s"
            )
        if self.slides and len(geometry.ifos) < 2:
            raise ShiftError("slides need two detectors; found one")


@dataclass(frozen=True)
class Measured:
    """How fast a replay was.

    Attributes:
        strain_length: Strain scored, every row of every sequence counted, s.
        wall_length: Time it took, s.
        latencies: Of single-stride updates, one at a time, s.
    """

    strain_length: float
    wall_length: float
    latencies: np.ndarray

    @property
    def throughput(self) -> float:
        """Strain scored per second of wall time, s/s."""
        return self.strain_length / self.wall_length

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the latency, ms."""
        p50, p90, p99 = np.percentile(self.latencies, (50, 90, 99)) * 1e3
        return {
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": self.latencies.max() * 1e3,
        }


def run_replay(
    replay: Replay,
    address: str,
    outbox: Outbox,
    name: str,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> tuple[str, Measured]:
    """Run a replay and send its results to the API.

    Args:
        replay: What to analyse.
        address: gRPC address of the server.
        outbox: Where results go.
        name: What people call the run.
        progress: Told the strain scored and to be scored, s, now and then.

    Returns:
        The run's identifier and how fast it was.

    Raises:
        ChirpwatchError: The input is bad, the server failed, or the API refused a
            result. A run that was begun is then marked as failed.
    """
    detector = Detector(address)
    geometry, model = detector.geometry, detector.model
    jobs, _ = replay.jobs(geometry)
    injections = {
        _set_name(job): _injections(job.signals)
        for job in jobs
        if job.signals is not None
    }
    latencies = _measure_latency(address, jobs[0])
    run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    sources = sorted({segment.source for segment in replay.segments})
    body = Run(
        name=name,
        model=model,
        geometry=GeometryBody.of(geometry),
        simulated=any(segment.simulated for segment in replay.segments),
        data=f"{', '.join(sources)}: {len(replay.segments)} segment(s), "
        f"{sum(segment.duration for segment in replay.segments):g} s",
    )
    outbox.put_run(run, body)
    total = sum(len(job.kinds) * job.strides * geometry.stride_length for job in jobs)
    requests = round(replay.request_length * geometry.inference_sampling_rate)
    done = 0.0
    counting = threading.Lock()
    failed = threading.Event()

    def work(job: Job) -> None:
        nonlocal done
        streams = [_Stream(run, job, row, outbox) for row in range(len(job.kinds))]
        detector = Detector(address)
        if detector.model != model:
            raise ModelError(
                f"the server at {address} began with model {model} and now serves "
                f"{detector.model}; results of two models do not mix"
            )
        pieces = detector.stream(job.read, job.strides, requests, offsets=job.offsets)
        for scores in pieces:
            if failed.is_set():
                return
            outbox.check()
            for stream in streams:
                stream.push(scores)
            with counting:
                done += len(streams) * len(scores.valid) * geometry.stride_length
                progress(done, total)
        for stream in streams:
            stream.finish()

    begin = time.perf_counter()
    try:
        for set_name, bodies in injections.items():
            outbox.put_injections(run, set_name, bodies)
        with ThreadPoolExecutor(replay.workers) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BaseException as error:
        message = str(error).splitlines()[0][:500] if str(error) else "interrupted"
        outbox.update_run(run, RunUpdate(state="failed", message=message))
        raise
    measured = Measured(total, time.perf_counter() - begin, latencies)
    outbox.update_run(
        run,
        RunUpdate(
            state="complete",
            throughput=measured.throughput,
            latency_ms=LatencyMs(**measured.latency_ms),
        ),
    )
    return run, measured


class _Stream:
    """One row of a job's scores, on its way to the API.

    A chunk is sent when the events of all its strides are decided.
    """

    def __init__(self, run: str, job: Job, row: int, outbox: Outbox) -> None:
        geometry = job.geometry
        self._run, self._job, self._row, self._outbox = run, job, row, outbox
        kind = job.kinds[row]
        shifts = dict(zip(geometry.ifos, job.shifts, strict=True))
        name = "_".join(f"{shift:g}".replace(".", "p") for shift in job.shifts)
        segment = job.segment.name.replace(".", "p")
        self._name = f"{segment}_{kind}_{name}"
        self._kind = kind
        self._clusterer = Clusterer(
            round(CLUSTER_LENGTH * geometry.inference_sampling_rate)
        )
        self._score = np.empty(0, np.float32)
        self._valid = np.empty(0, bool)
        self._sent = 0
        self._number = 0
        outbox.put_stream(
            run,
            self._name,
            Stream(
                kind=kind,
                shifts=shifts,
                segment=job.segment.name,
                injection_set=_set_name(job) if kind == "injections" else None,
                cluster_length=CLUSTER_LENGTH,
            ),
        )

    def push(self, scores: Scores) -> None:
        score = scores.score[self._row]
        self._score = np.append(self._score, score)
        self._valid = np.append(self._valid, scores.valid)
        events = self._clusterer.push(score, scores.delay[self._row], scores.valid)
        self._send(events, last=False)

    def finish(self) -> None:
        self._send(self._clusterer.flush(), last=True)

    def _send(self, events: Sequence, last: bool) -> None:
        until = self._clusterer.decided
        count = until - self._sent
        if count <= 0:
            return
        geometry = self._job.geometry
        stride_ns = round(geometry.stride_length * NANOSECONDS)

        def edge_ns(stride: int) -> int:
            return self._job.t0_ns + (stride + 1) * stride_ns

        self._outbox.put_chunk(
            self._run,
            self._name,
            self._number,
            Chunk(
                start_ns=edge_ns(self._sent),
                stride_ns=stride_ns,
                valid=self._valid[:count].tolist(),
                scores=None
                if self._kind == "background"
                # A score that is not valid may be no number.
                else np.where(self._valid, self._score, 0)[:count].tolist(),
                events=[
                    Event(
                        time_ns=edge_ns(event.stride)
                        - round(event.delay * NANOSECONDS),
                        statistic=event.statistic,
                    )
                    for event in events
                ],
                last=last,
            ),
        )
        self._score, self._valid = self._score[count:], self._valid[count:]
        self._sent = until
        self._number += 1


def _set_name(job: Job) -> str:
    return f"injections_{job.segment.name.replace('.', 'p')}"


def _injections(signals: ProjectedSignals) -> list[Injection]:
    try:
        return [
            Injection(
                time_ns=int(signals.gps_time_ns[i]),
                snr=float(signals.parameters["snr"][i]),
                parameters={
                    name: float(column[i])
                    for name, column in signals.parameters.items()
                    if name != "snr"
                },
            )
            for i in range(len(signals))
        ]
    except ValidationError as error:
        raise SignalError(
            f"signals that the results API does not take: {error}"
        ) from None


def _measure_latency(address: str, job: Job) -> np.ndarray:
    """Time single-stride updates of a job, one at a time."""
    strides = min(LATENCY_STRIDES, job.strides)
    pieces = Detector(address, window=1).stream(job.read, strides, 1)
    # The first answers include the set-up of stream and sequence.
    return np.array([piece.latency for piece in pieces][min(8, strides // 2) :])
