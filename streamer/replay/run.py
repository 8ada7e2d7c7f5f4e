"""Replay: segments through the served detector, as fast as it answers."""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from chirpwatch.api.contract.requests import (
    Chunk,
    Event,
    GeometryBody,
    Injection,
    InjectionSet,
    Kind,
    LatencyMs,
    PopulationBody,
    Run,
    RunUpdate,
    Stream,
    ended_by,
    one_line,
)
from chirpwatch.clustering import (
    CLUSTER_LENGTH,
    Clusterer,
    ScoreEvent,
)
from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
    SignalError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.streamer.background.directory import JobResult
from chirpwatch.streamer.background.plan import Job as SlideJob
from chirpwatch.streamer.background.plan import (
    Plan,
    make_plan,
    most_slides,
)
from chirpwatch.streamer.client import (
    Detector,
    Scores,
)
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.replay.jobs import Job
from chirpwatch.streamer.snippets import Loudest
from chirpwatch.streamer.timeslides import Timeslides

LATENCY_STRIDES = 400
"""Single-stride updates that the latency is measured with."""

MAX_REQUEST_STRIDES = 32_768
"""A chunk holds the scores of a request, and the API bounds what it takes."""


@dataclass(frozen=True)
class Replay:
    """What a replay analyses, and how.

    Attributes:
        segments: The strain.
        slides: Most timeslides of each stretch of strain.
        slide_length: Step of their shifts, s; the least possible where it is None.
        signals: For each segment's name the sets of signals that are injected into its
            zero-lag data, by names that no other segment's sets have.
        request_length: Strain in one request, s.
        workers: Sequences under way at once.
    """

    segments: Sequence[Segment]
    slides: int = 100
    slide_length: float | None = None
    signals: Mapping[str, Mapping[str, ProjectedSignals]] = field(default_factory=dict)
    request_length: float = 64.0
    workers: int = 2

    def jobs(self, geometry: Geometry) -> tuple[list[Job], list[str]]:
        """Each segment as it is, with its injections, if it is long enough.

        Returns:
            The jobs, and what was left out and why.

        Raises:
            StrainError: No segment is as long as the warm-up; or see ``Job``.
            ConfigurationError: The length of a request is no whole number of strides.
            SignalError: Two segments have an injection set of the same name.
        """
        self._check(geometry)
        still = (0.0,) * len(geometry.ifos)
        jobs, left_out = [], []
        for segment in self.segments:
            if segment.duration < geometry.psd_min_length:
                left_out.append(
                    f"{segment.source}, segment {segment.name}: {segment.duration:g} s,"
                    f" less than the warm-up of {geometry.psd_min_length:g} s"
                )
                continue
            signals = self.signals.get(segment.name, {})
            jobs.append(Job(segment, geometry, still, signals))
        if not jobs:
            raise StrainError(left_out[0] if left_out else "no segments to analyse")
        return jobs, left_out

    def background(self, geometry: Geometry) -> tuple[Plan | None, list[str]]:
        """The timeslides of each segment, as many as were asked for and fit in.

        Returns:
            The plan, none without slides, and what was left out and why.

        Raises:
            ChirpwatchError: See ``make_plan``.
        """
        if not self.slides:
            return None, []
        most, left_out = most_slides(
            self.segments, geometry, step_length=self.slide_length
        )
        if not most:
            return None, [f"of timeslides, {what}" for what in left_out]
        plan = make_plan(
            self.segments,
            geometry,
            slides=min(self.slides, most),
            step_length=self.slide_length,
        )
        if most < self.slides:
            left_out.append(
                f"timeslides {most + 1} to {self.slides}: the longest stretch gives "
                f"{most}"
            )
        return plan, [f"of timeslides, {what}" for what in left_out]

    def _check(self, geometry: Geometry) -> None:
        strides = self.request_length * geometry.inference_sampling_rate
        if not (strides % 1 == 0 and 1 <= strides <= MAX_REQUEST_STRIDES):
            raise ConfigurationError(
                f"request length: expected a multiple of {geometry.stride_length:g} s, "
                f"at most {MAX_REQUEST_STRIDES * geometry.stride_length:g} s, found "
                f"{self.request_length:g} s"
            )
        names = Counter(name for sets in self.signals.values() for name in sets)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise SignalError(
                "expected the names of injection sets once each, found "
                f"{', '.join(twice)} in several segments"
            )


@dataclass(frozen=True)
class Measured:
    """How fast a replay was.

    Attributes:
        strain_length: Strain searched, s: every sequence once for its row 0, and once
            for each of its injection sets.
        wall_length: Time it took, s.
        slides_length: Strain searched in timeslides, every slide counted, s.
        slides_wall_length: Time that took, s.
        latencies: Of single-stride updates, one at a time, s.
    """

    strain_length: float
    wall_length: float
    slides_length: float
    slides_wall_length: float
    latencies: NDArray[Any]

    @property
    def throughput(self) -> float:
        """Strain searched per second of wall time, s/s."""
        return self.strain_length / self.wall_length

    @property
    def slides_throughput(self) -> float | None:
        """Slide-seconds per second of wall time, s/s; None without slides."""
        if not self.slides_length:
            return None
        return self.slides_length / self.slides_wall_length

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
    plan, _ = replay.background(geometry)
    injections = {
        set_name: _injections(signals)
        for job in jobs
        for set_name, signals in job.signals.items()
    }
    latencies = _measure_latency(address, jobs[0])
    run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    outbox.put_run(run, _describe_run(name, model, geometry, replay.segments, plan))
    strain_length = sum(
        (1 + len(job.signals)) * job.strides * geometry.stride_length for job in jobs
    )
    slide_jobs = plan.jobs if plan else ()
    slides_length = sum(plan.length(job) for job in slide_jobs) if plan else 0.0
    total = strain_length + slides_length
    requests = round(replay.request_length * geometry.inference_sampling_rate)
    done = 0.0
    counting = threading.Lock()
    failed = threading.Event()

    def count(length: float) -> None:
        nonlocal done
        with counting:
            done += length
            progress(done, total)

    def check(served: str) -> None:
        outbox.check()
        if served != model:
            raise ModelError(
                f"the server at {address} began with model {model} and now serves "
                f"{served}; results of two models do not mix"
            )

    loudest = Loudest(geometry.ifos)

    def search(job: Job) -> None:
        streams = [
            _Stream(run, job, name, outbox, loudest) for name in (None, *job.signals)
        ]
        detector = Detector(address)
        check(detector.model)
        pieces = detector.stream(job.read, job.strides, requests, offsets=job.offsets)
        for scores in pieces:
            if failed.is_set():
                return
            outbox.check()
            for stream in streams:
                stream.push(scores)
            count(len(streams) * len(scores.valid) * geometry.stride_length)
        for stream in streams:
            stream.finish()

    def slide(job: SlideJob) -> None:
        assert plan is not None
        if failed.is_set():
            return
        server = Timeslides(address)
        check(server.model)
        strain = plan.stretches[job.stretch].read(replay.segments, geometry)
        events = server.events(strain, np.array(job.shifts))
        outbox.put_block(run, job.number, JobResult.of(events).block(plan, job))
        count(plan.length(job))

    def run_all(work: Callable[[Any], None], jobs: Sequence[Any]) -> float:
        begin = time.perf_counter()
        with ThreadPoolExecutor(replay.workers) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return time.perf_counter() - begin

    try:
        for set_name, bodies in injections.items():
            outbox.put_injections(run, set_name, bodies)
        wall_length = run_all(search, jobs)
        slides_wall_length = run_all(slide, slide_jobs)
        for start_ns, strain in loudest.strain():
            outbox.put_strain(run, start_ns, strain)
    except BaseException as error:
        outbox.update_run(run, ended_by(error))
        raise
    measured = Measured(
        strain_length, wall_length, slides_length, slides_wall_length, latencies
    )
    outbox.update_run(
        run,
        RunUpdate(
            state="complete",
            throughput=measured.throughput,
            latency_ms=LatencyMs(**measured.latency_ms),
        ),
    )
    return run, measured


def _describe_run(
    name: str,
    model: str,
    geometry: Geometry,
    segments: Sequence[Segment],
    plan: Plan | None,
) -> Run:
    """A run as the results API is told of it.

    Args:
        name: What people call it.
        model: Digest of the served models.
        geometry: The analysis.
        segments: The strain.
        plan: The plan of its background, or None.
    """
    # Whoever reads results need not know where files lie.
    sources = sorted({Path(segment.source).name for segment in segments})
    return Run(
        name=one_line(name),
        model=model,
        geometry=GeometryBody.of(geometry),
        simulated=any(segment.simulated for segment in segments),
        data=one_line(
            f"{', '.join(sources)}: {len(segments)} segment(s), "
            f"{sum(segment.duration for segment in segments):g} s"
        ),
        planned_background=plan.livetime if plan else None,
    )


class _Stream:
    """A job's scores of row 0, or of an injection set, on their way to the API.

    A chunk is sent when the events of all its strides are decided.
    """

    def __init__(
        self,
        run: str,
        job: Job,
        set_name: str | None,
        outbox: Outbox,
        loudest: Loudest,
    ) -> None:
        geometry = job.geometry
        self._loudest = loudest
        self._run, self._job, self._set_name, self._outbox = run, job, set_name, outbox
        kind: Kind = "zero_lag" if set_name is None else "injections"
        shifts = dict(zip(geometry.ifos, job.shifts, strict=True))
        name = "_".join(f"{shift:g}".replace(".", "p") for shift in job.shifts)
        segment = job.segment.name.replace(".", "p")
        self._name = set_name or f"{segment}_{kind}_{name}"
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
                injection_set=set_name,
                cluster_length=CLUSTER_LENGTH,
            ),
        )

    def push(self, scores: Scores) -> None:
        score, delay = self._own(scores)
        self._score = np.append(self._score, score)
        self._valid = np.append(self._valid, scores.valid)
        events = self._clusterer.push(score, delay, scores.valid)
        self._send(events, last=False)

    def _own(self, scores: Scores) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._set_name is None:
            return scores.score[0], scores.delay[0]
        return self._job.foreground.scores(self._set_name, scores)

    def finish(self) -> None:
        self._send(self._clusterer.flush(), last=True)

    def _send(self, events: Sequence[ScoreEvent], last: bool) -> None:
        until = self._clusterer.decided
        count = until - self._sent
        if count <= 0:
            return
        geometry = self._job.geometry
        stride_ns = round(geometry.stride_length * NANOSECONDS)

        def edge_ns(stride: int) -> int:
            return self._job.t0_ns + (stride + 1) * stride_ns

        times = [
            edge_ns(event.stride) - round(event.delay * NANOSECONDS) for event in events
        ]
        if self._set_name is None:
            for event, time_ns in zip(events, times, strict=True):
                self._loudest.offer(event.statistic, time_ns, self._job.segment)
        self._outbox.put_chunk(
            self._run,
            self._name,
            self._number,
            Chunk(
                start_ns=edge_ns(self._sent),
                stride_ns=stride_ns,
                valid=self._valid[:count].tolist(),
                # A score that is not valid may be no number.
                scores=np.where(self._valid, self._score, 0)[:count].tolist(),
                events=[
                    Event(time_ns=time_ns, statistic=event.statistic)
                    for event, time_ns in zip(events, times, strict=True)
                ],
                last=last,
            ),
        )
        self._score, self._valid = self._score[count:], self._valid[count:]
        self._sent = until
        self._number += 1


def _injections(signals: ProjectedSignals) -> InjectionSet:
    try:
        injections = [
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
        return InjectionSet(injections=injections, population=_population(signals))
    except ValidationError as error:
        raise SignalError(
            f"signals that the results API does not take: {error}"
        ) from None


def _population(signals: ProjectedSignals) -> PopulationBody | None:
    """What the signals were drawn from, if they were drawn in volume by chirpwatch."""
    settings = json.loads(signals.attributes.get("settings", "{}"))
    told = PopulationBody.model_fields.keys() - {"rejected"}
    if not told <= settings.keys() or settings.get("snr_range") is not None:
        return None
    values = {name: settings[name] for name in told}
    body = json.dumps(values | {"rejected": signals.num_rejected})
    return PopulationBody.model_validate_json(body)


def _measure_latency(address: str, job: Job) -> NDArray[Any]:
    """Time single-stride updates of a job, one at a time."""
    strides = min(LATENCY_STRIDES, job.strides)
    pieces = Detector(address, window=1).stream(job.read, strides, 1)
    # The first answers include the set-up of stream and sequence.
    return np.array([piece.latency for piece in pieces][min(8, strides // 2) :])
