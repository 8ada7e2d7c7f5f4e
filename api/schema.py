"""What is sent to the API. Every field says its unit; nothing unknown is accepted."""

import json
from dataclasses import asdict
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)
from pydantic.config import JsonDict

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry

MAX_STRIDES = 65_536
MAX_INJECTIONS = 20_000
# 64-bit with room for sums; GPS 4e9 s lies in the year 2106.
MAX_TIME_NS = 4_000_000_000_000_000_000

Kind = Literal["zero_lag", "background", "injections"]
State = Literal["running", "complete", "failed"]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# Printable: PostgreSQL stores no NUL, and a line break has no place in a heading.
Line = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", min_length=1, max_length=500)
]
TimeNs = Annotated[
    int,
    Field(ge=0, le=MAX_TIME_NS, description="GPS time, integer ns"),
]
Ifo = Annotated[str, StringConstraints(pattern=r"^[A-Z][0-9]$")]


# Of a dictionary with patterned keys, the generated description forgets to say it.
ONLY_SUCH_NAMES: JsonDict = {"additionalProperties": False}


class Body(BaseModel):
    """Base of the request bodies."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, frozen=True, strict=True
    )


class GeometryBody(Body):
    """How strain is cut, whitened and scored; the fields of `chirpwatch.geometry`."""

    ifos: list[Ifo] = Field(description="Detectors, in the order of the arrays")
    sample_rate: int = Field(description="Rate of the strain, Hz")
    kernel_length: float = Field(description="Whitened data under one score, s")
    inference_sampling_rate: float = Field(description="Scores per second, Hz", gt=0)
    frame_size: int = Field(description="Samples between two feature frames", gt=0)
    psd_length: float = Field(description="Most data in one PSD, s")
    psd_min_length: float = Field(description="Least data in one PSD, s")
    psd_refresh_length: float = Field(description="Spacing of the PSDs, s")
    fftlength: float = Field(description="Length of one periodogram, s")
    fduration: float = Field(description="Length of the whitening filter, s")
    highpass: float = Field(description="Lowest frequency that is kept, Hz")

    @model_validator(mode="after")
    def _describes_an_analysis(self) -> Self:
        try:
            self.geometry()
        except (GeometryError, OverflowError) as error:
            raise ValueError(str(error)) from None
        return self

    def geometry(self) -> Geometry:
        """The same as a `Geometry`, which checks that the lengths fit together."""
        return Geometry(**(self.model_dump() | {"ifos": tuple(self.ifos)}))

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """The body that describes `geometry`."""
        return cls(**json.loads(json.dumps(asdict(geometry))))


class Run(Body):
    """One analysis: a model, a geometry and the data they are applied to."""

    name: Line = Field(description="What people call this run")
    model: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] = Field(
        description="Digest of the served model, hexadecimal; statistics of a run "
        "use background of this run, and so of this model, alone"
    )
    geometry: GeometryBody
    simulated: bool = Field(description="Whether the strain is simulated")
    data: Line = Field(description="What was analysed, for people to read")


class LatencyMs(Body):
    """Time from sending an update of strain to having its scores."""

    p50: FiniteFloat = Field(ge=0, description="Median, ms")
    p90: FiniteFloat = Field(ge=0, description="90th percentile, ms")
    p99: FiniteFloat = Field(ge=0, description="99th percentile, ms")
    max: FiniteFloat = Field(ge=0, description="Largest, ms")


class RunUpdate(Body):
    """What changes while a run goes on; a field left out stays as it is."""

    state: State | None = Field(None, description="Where the run stands")
    message: Line | None = Field(None, description="Why, for people to read")
    throughput: FiniteFloat | None = Field(
        None, ge=0, description="Strain scored per second of wall time, s/s"
    )
    latency_ms: LatencyMs | None = Field(None, description="Latency of updates, ms")


class Stream(Body):
    """One sequence of scores: a segment at one set of shifts."""

    kind: Kind = Field(
        description="zero_lag: the data as they are; background: detectors shifted "
        "against each other; injections: the data with signals added"
    )
    shifts: dict[Ifo, FiniteFloat] = Field(
        description="Shift of each detector of the run's geometry, s",
        json_schema_extra=ONLY_SUCH_NAMES,
    )
    segment: Annotated[
        str, StringConstraints(pattern=r"^\d{1,10}(\.\d{1,9})?-\d{1,9}(\.\d{1,9})?$")
    ] = Field(description="Segment as `{GPS start in s}-{duration in s}`")
    injection_set: Identifier | None = Field(
        None, description="Set of injections in the data; kind `injections` only"
    )
    cluster_length: FiniteFloat = Field(
        8.0,
        ge=0,
        le=3600,
        description="Window that scores are clustered in, s: the longest that a chunk "
        "may lie behind an event it reports",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        apart = len(set(self.shifts.values())) > 1
        if self.kind == "background" and not apart:
            raise ValueError(
                "a background stream needs detectors shifted against each other; "
                f"found shifts {self.shifts}: unshifted data hold real signals"
            )
        if self.kind == "zero_lag" and any(self.shifts.values()):
            raise ValueError(f"a zero_lag stream has no shifts; found {self.shifts}")
        if (self.kind == "injections") != (self.injection_set is not None):
            raise ValueError("injection_set goes with kind `injections`, and only so")
        if self.duration <= 0:
            raise ValueError(f"segment: expected a duration, found {self.segment}")
        return self

    @property
    def duration(self) -> float:
        """Length of the segment, s."""
        return float(self.segment.split("-")[1])


class Event(Body):
    """A local maximum of the integrated score."""

    time_ns: TimeNs = Field(description="GPS time of the merger, ns")
    statistic: FiniteFloat = Field(description="Detection statistic, dimensionless")


class Chunk(Body):
    """Scores of consecutive strides, and the events among them."""

    start_ns: TimeNs = Field(
        description="GPS time of the right edge of the first score's data, ns"
    )
    stride_ns: Annotated[int, Field(gt=0, le=10**12)] = Field(
        description="Time between two scores, ns; 1 / inference_sampling_rate"
    )
    valid: list[bool] = Field(
        min_length=1,
        max_length=MAX_STRIDES,
        description="For each stride, whether its score rests on real, gap-free data. "
        "Livetime is the number of true ones times the stride; it is never sent",
    )
    scores: list[FiniteFloat] | None = Field(
        description="For each stride the score (logit), kept in single precision; "
        "null for a background stream"
    )
    events: list[Event] = Field(
        max_length=MAX_STRIDES, description="Events of this stretch"
    )
    last: bool = Field(False, description="Whether the stream ends here")

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if self.scores is not None and len(self.scores) != len(self.valid):
            raise ValueError(
                f"expected as many scores as valid flags, found {len(self.scores)} "
                f"and {len(self.valid)}"
            )
        if self.scores and max(map(abs, self.scores)) > 3.4e38:
            raise ValueError("a score exceeds single precision")
        return self

    @property
    def stop_ns(self) -> int:
        """GPS time of the right edge of the last score's data, ns."""
        return self.start_ns + (len(self.valid) - 1) * self.stride_ns


class Injection(Body):
    """A simulated signal that was added to the strain."""

    time_ns: TimeNs = Field(description="GPS time of the merger, ns")
    snr: FiniteFloat = Field(ge=0, description="Network SNR")
    parameters: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")], FiniteFloat
    ] = Field(
        max_length=64,
        json_schema_extra=ONLY_SUCH_NAMES,
        description="Parameters by name: masses in solar masses (detector frame), "
        "distance in Mpc, angles in radians",
    )


InjectionList = Annotated[list[Injection], Field(max_length=MAX_INJECTIONS)]
