"""What the API answers about runs and streams: where they stand."""

from datetime import datetime

from pydantic import ConfigDict, Field

from chirpwatch.api.contract.answers import Answer
from chirpwatch.api.contract.requests import (
    GeometryBody,
    Kind,
    LatencyMs,
    Run,
    State,
)


class Health(Answer):
    """The service and its database answer."""

    status: str = Field(description="`ok`")
    version: str = Field(description="Version of chirpwatch")


class Readiness(Answer):
    """What the service needs is ready."""

    database: str = Field(description="`ok`")
    triton: str = Field(description="`ok`; `none`: the service was not told of one")


class Stored(Answer):
    """What became of a PUT."""

    created: bool = Field(
        description="Whether there was nothing of this name: 201, else 200"
    )
    changed: bool = Field(
        description="Whether anything was stored: false when the same content was "
        "there already"
    )


class PerKind(Answer):
    """One kind of streams of a run."""

    streams: int = Field(description="Streams declared")
    streams_done: int = Field(description="Streams with every chunk to the last")
    chunks: int = Field(description="Chunks received")
    events: int = Field(description="Events that no veto takes")
    livetime: float = Field(
        description="Valid strides that no veto takes, times the stride, s"
    )
    vetoed: float = Field(description="Valid strides that a veto takes, s")
    analysed: float = Field(description="All strides, valid or not, s")
    gaps: float = Field(
        description="Strides that are not valid, s: warm-up, gaps, bad data"
    )
    planned: float = Field(description="Lengths of the streams' segments, s")


class BackgroundStatus(Answer):
    """The background of a run."""

    blocks: int = Field(description="Blocks received")
    slides: int = Field(description="Timeslides of all blocks together")
    events: int = Field(description="Events that no veto takes")
    livetime: float = Field(
        description="Valid strides that no veto takes, times the stride, s"
    )
    vetoed: float = Field(description="Livetime that vetoes take, s")
    planned: float | None = Field(
        description="Livetime that the run aims at, s; null if it does not say"
    )


class BlockAnswer(Answer):
    """A block of background as it was sent, vetoed or not."""

    number: int = Field(description="The block's number")
    start_ns: int = Field(description="GPS time of the stretch's first sample, ns")
    strides: int = Field(description="Length of the stretch, strides")
    slides: int = Field(description="Timeslides")
    events: int = Field(description="Events of all slides")
    livetime: float = Field(description="Valid time of all slides together, s")


class RunSummary(Run):
    """A run and where it stands."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False)

    id: str = Field(description="The run's identifier")
    geometry: GeometryBody
    geometry_digest: str = Field(description="Digest of the geometry, hexadecimal")
    state: State = Field(description="Where the run stands")
    message: str | None = Field(description="Why, for people to read")
    throughput: float | None = Field(
        description="Strain scored per second of wall time, s/s; null if not reported"
    )
    latency_ms: LatencyMs | None = Field(
        description="Latency of updates, ms; null if not reported"
    )
    revision: int = Field(description="Goes up with every change of the run")
    created: datetime = Field(description="When the run was registered, UTC")
    updated: datetime = Field(description="When it last changed, UTC")


class Runs(Answer):
    """Runs, the newest first."""

    runs: list[RunSummary] = Field(description="Those that were asked for")
    total: int = Field(description="Runs in the database")


class RunStatus(RunSummary):
    """A run with its livetimes and counts."""

    zero_lag: PerKind
    background: BackgroundStatus
    injections: PerKind
    lag: float | None = Field(
        description="By how much the newest zero-lag scores trailed the clock when "
        "they came, s; null where that was more than a day: recorded data"
    )
    arrived: datetime | None = Field(
        description="When those came, UTC; null without any"
    )
    start: float | None = Field(description="First time analysed, GPS s")
    stop: float | None = Field(description="Last time analysed, GPS s")


class StreamAnswer(Answer):
    """A stream and how far it got."""

    id: str = Field(description="The stream's identifier")
    kind: Kind = Field(description="What kind of data it is")
    shifts: dict[str, float] = Field(description="Shift of each detector, s")
    segment: str = Field(description="Segment, `{GPS start in s}-{duration in s}`")
    injection_set: str | None = Field(description="Set of injections in the data")
    chunks: int = Field(description="Chunks received")
    next_number: int = Field(
        description="Smallest chunk number not received: where to resume"
    )
    done: bool = Field(description="Whether every chunk to the last is there")
    events: int = Field(description="Events that no veto takes")
    livetime: float = Field(
        description="Valid strides that no veto takes, times the stride, s"
    )
