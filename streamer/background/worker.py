"""What a worker does: one stretch of strain at some timeslides."""

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
    Job,
    Stretch,
)
from chirpwatch.streamer.source import (
    Source,
    open_once,
)
from chirpwatch.streamer.timeslides import Timeslides


@dataclass(frozen=True)
class Task:
    """A job with all that another process needs to do it.

    Attributes:
        job: The job.
        stretch: Its stretch.
        source: Where the strain is.
        fingerprint: What ``source.fingerprint`` said of the segment.
        geometry: The geometry of the plan.
        model: Digest of the models of the plan.
        addresses: gRPC addresses of the Triton servers.
    """

    job: Job
    stretch: Stretch
    source: Source
    fingerprint: str
    geometry: Geometry
    model: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What a worker hands back.

    Attributes:
        result: The events.
        read_length: Time that reading the strain took, s.
        server_length: Time that the server took, s.
    """

    result: JobResult
    read_length: float
    server_length: float


def work(task: Task) -> Done:
    """Do one job.

    The servers take turns by the job's number; where one fails, the next is asked.

    Raises:
        StrainError: The strain is missing, not finite, or not that of the plan.
        ModelError: A server serves other models than those of the plan.
        ServerError: No server did it.
    """
    try:
        return _work(task)
    except ChirpwatchError as error:
        failure = error
    # Without what caused it: an exception of gRPC cannot be sent between processes,
    # and Dask would send a nameless one in its place.
    raise type(failure)(str(failure))


def _work(task: Task) -> Done:
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
        return Done(result, read - begin, time.perf_counter() - read)
    assert failure is not None
    raise failure


def _read(task: Task) -> NDArray[Any]:
    """The strain of a stretch, float32 [ifos, size]."""
    segments, fingerprints = open_once(task.source, task.geometry)
    number, geometry = task.stretch.segment, task.geometry
    if number >= len(segments) or fingerprints[number] != task.fingerprint:
        raise StrainError(
            f"{task.source.name}, segment {number}: expected the strain that the plan "
            "was made of, found another; has the file changed, or is it another one on "
            "the worker's machine?"
        )
    strain: NDArray[Any] = task.stretch.read(segments, geometry)
    return strain
