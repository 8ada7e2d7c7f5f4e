"""Runs a job in a worker process: reads a stretch, and has its slides scored."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import (
    ChirpwatchError,
    ModelError,
    ServerError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.streamer.background.directory import JobResult
from chirpwatch.streamer.background.plan import (
    SlideJob,
    Stretch,
)
from chirpwatch.streamer.source import (
    Source,
    open_once,
)
from chirpwatch.streamer.timeslides import Timeslides


@dataclass(frozen=True)
class Task:
    """A job with everything that a worker process needs to run it.

    Attributes:
        job: The job.
        stretch: The job's stretch.
        source: Files of the strain.
        fingerprint: ``source.fingerprint`` of the stretch's segment.
        geometry: The plan's geometry.
        model: Digest of the plan's model.
        addresses: gRPC addresses of the Triton servers.
    """

    job: SlideJob
    stretch: Stretch
    source: Source
    fingerprint: str
    geometry: Geometry
    model: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class JobOutcome:
    """A finished job's result and timing.

    Attributes:
        result: The events.
        read_length: Time to read the strain, s.
        server_length: Time in which the server scored it, s.
    """

    result: JobResult
    read_length: float
    server_length: float


def work(task: Task) -> JobOutcome:
    """Run a job.

    Jobs are shared among the servers by number; if a server fails, the next is tried.

    Raises:
        StrainError: The strain is missing, not finite, or not the plan's.
        ModelError: A server serves another model than the plan's.
        ServerError: All servers failed.
    """
    try:
        return _work(task)
    except ChirpwatchError as error:
        failure = error
    # Raise without the cause: a gRPC exception cannot be pickled, and Dask would send
    # an unrelated exception in its place.
    raise type(failure)(str(failure))


def _work(task: Task) -> JobOutcome:
    begin = time.perf_counter()
    strain = _read(task)
    read = time.perf_counter()
    shifts = np.array(task.job.shifts, np.int64)
    turn = task.job.number % len(task.addresses)
    failure: ServerError | None = None
    for address in task.addresses[turn:] + task.addresses[:turn]:
        try:
            server = Timeslides(address)
            if server.model != task.model:
                raise ModelError(
                    f"the server at {address}: expected model {task.model}, found "
                    f"{server.model}; results of two models do not mix"
                )
            events = server.events(strain, shifts)
        except ServerError as error:
            failure = error
            continue
        result = JobResult.of(events)
        return JobOutcome(result, read - begin, time.perf_counter() - read)
    assert failure is not None
    raise failure


def _read(task: Task) -> NDArray[Any]:
    """Read the stretch's strain, float32 [ifos, size]; verify its fingerprint."""
    segments, fingerprints = open_once(task.source, task.geometry)
    number, geometry = task.stretch.segment, task.geometry
    if number >= len(segments) or fingerprints[number] != task.fingerprint:
        raise StrainError(
            f"{task.source.name}, segment {number}: expected the plan's "
            "strain, found other strain; restore the file if it was changed, and make "
            "sure that the worker's machine has the same file"
        )
    strain: NDArray[Any] = task.stretch.read(segments, geometry)
    return strain
