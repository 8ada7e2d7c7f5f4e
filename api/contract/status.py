"""Answers about the service, runs and streams: state, progress and livetime."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from chirpwatch.api.contract.answers import Answer
from chirpwatch.api.contract.fields import (
    Kind,
    State,
)
from chirpwatch.api.contract.requests import (
    GeometryBody,
    LatencyMs,
    Run,
)

EventCount = Annotated[int, Field(description="Events outside vetoed time")]
Livetime = Annotated[
    float,
    Field(description="Number of valid strides outside vetoed time, times stride, s"),
]


class Health(Answer):
    """The service runs and reaches its database."""

    status: str = Field(description="Always `ok`")
    version: str = Field(description="Version of chirpwatch")


class Readiness(Answer):
    """The database and the Triton server are ready."""

    database: str = Field(description="Always `ok`")
    triton: str = Field(
        description="`ok`, or `none` where the service was started without `--triton`"
    )


class Stored(Answer):
    """What a PUT changed."""

    created: bool = Field(
        description="Whether nothing was stored under this name before (status 201; "
        "else 200)"
    )
    changed: bool = Field(
        description="Whether the request changed stored data; false if the same "
        "content was stored before"
    )


class PerKind(Answer):
    """Progress and livetime of a run's streams of one kind."""

    streams: int = Field(description="Streams declared")
    streams_done: int = Field(description="Streams whose chunks have all arrived")
    chunks: int = Field(description="Chunks received")
    events: EventCount
    livetime: Livetime
    vetoed: float = Field(description="Valid time that vetoes remove, s")
    analysed: float = Field(description="Time with scores, valid or not, s")
    gaps: float = Field(
        description="Time without valid scores, s: PSD warm-up, missing or bad data"
    )
    planned: float = Field(description="Total length of the streams' segments, s")


class BackgroundStatus(Answer):
    """Progress and livetime of a run's background."""

    blocks: int = Field(description="Blocks received")
    slides: int = Field(description="Timeslides, summed over the blocks")
    events: EventCount
    livetime: Livetime
    vetoed: float = Field(description="Valid time that vetoes remove, s")
    planned: float | None = Field(
        description="Livetime that the run aims for, s; null: not declared"
    )


class BlockAnswer(Answer):
    """A block of background as it was received, before vetoes."""

    number: int = Field(description="The block's number")
    start_ns: int = Field(description="GPS time of the stretch's first sample, ns")
    strides: int = Field(description="Length of the stretch, strides")
    slides: int = Field(description="Number of timeslides")
    events: int = Field(description="Events, summed over the timeslides")
    livetime: float = Field(description="Valid time, summed over the timeslides, s")


class RunSummary(Run):
    """A run's declaration and its current state."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False)

    id: str = Field(description="The run's identifier")
    geometry: GeometryBody
    geometry_digest: str = Field(description="Digest of the geometry, hexadecimal")
    state: State = Field(description="Whether the run goes on, or how it ended")
    message: str | None = Field(description="Reason for the state, free text")
    throughput: float | None = Field(
        description="Strain scored per second of wall time, s/s; null: not reported"
    )
    latency_ms: LatencyMs | None = Field(
        description="Latency of updates, ms; null: not reported"
    )
    revision: int = Field(description="Grows with every change of the run")
    created: datetime = Field(description="When the run was registered, UTC")
    updated: datetime = Field(description="When the run last changed, UTC")


class Runs(Answer):
    """Runs, newest first."""

    runs: list[RunSummary] = Field(description="The requested page of runs")
    total: int = Field(description="Runs in the database")


class RunStatus(RunSummary):
    """A run with the livetime and event counts of each kind of data."""

    zero_lag: PerKind
    background: BackgroundStatus
    injections: PerKind
    lag: float | None = Field(
        description="Latency of the newest zero-lag scores: their arrival less the "
        "time at which their strain ends, s. Null above a day, as for recorded strain"
    )
    arrived: datetime | None = Field(
        description="When the newest zero-lag scores arrived, UTC; null: no scores"
    )
    start: float | None = Field(description="First time analysed, GPS s")
    stop: float | None = Field(description="Last time analysed, GPS s")


class StreamAnswer(Answer):
    """A stream and its progress."""

    id: str = Field(description="The stream's identifier")
    kind: Kind = Field(description="Zero-lag data, or data with injections")
    shifts: dict[str, float] = Field(description="Time shift of each detector, s")
    segment: str = Field(description="Segment, `{GPS start in s}-{duration in s}`")
    injection_set: str | None = Field(description="Injection set added to the data")
    chunks: int = Field(description="Chunks received")
    next_number: int = Field(
        description="Smallest chunk number not received; resume there"
    )
    done: bool = Field(description="Whether all chunks have arrived")
    events: EventCount
    livetime: Livetime
