"""What is sent to the API. Every field says its unit; nothing unknown is accepted."""

import base64
import json
from dataclasses import asdict
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)
from pydantic.config import JsonDict

from chirpwatch.api.contract import examples
from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry
from chirpwatch.text import LINE_SIZE, one_line
from chirpwatch.volume import Population

MAX_STRIDES = 65_536
MAX_STRETCH_STRIDES = 2**24
MAX_SLIDES = 4096
MAX_DELAY = 60.0
MAX_SHIFT = 1e8
MAX_SINGLE = 3.4e38
MAX_INJECTIONS = 20_000
MAX_MASS = 1e12
MAX_SEGMENTS = 200_000
MAX_STRAIN = 2**21
VOLUME_PARAMETERS = {"mass_1", "mass_2", "redshift"}
# 64-bit with room for sums; GPS 4e9 s lies in the year 2106.
MAX_TIME_NS = 4_000_000_000_000_000_000

Kind = Literal["zero_lag", "injections"]
EventKind = Literal["zero_lag", "background", "injections"]
State = Literal["running", "complete", "failed"]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

# Printable: PostgreSQL stores no NUL, and a line break has no place in a heading.
Line = Annotated[
    str,
    StringConstraints(
        pattern=r"^[^\x00-\x1f\x7f]*$", min_length=1, max_length=LINE_SIZE
    ),
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

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GEOMETRY]})

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

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RUN]})

    name: Line = Field(description="What people call this run")
    model: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] = Field(
        description="Digest of the served model, hexadecimal; statistics of a run "
        "use background of this run, and so of this model, alone"
    )
    geometry: GeometryBody
    simulated: bool = Field(description="Whether the strain is simulated")
    data: Line = Field(description="What was analysed, for people to read")
    planned_background: FiniteFloat | None = Field(
        None, ge=0, description="Background livetime that the run aims at, s"
    )
    background_run: Identifier | None = Field(
        None,
        description="Run, of the same model and geometry, whose background this one's "
        "rates rest on; null: its own",
    )


class LatencyMs(Body):
    """Time from sending an update of strain to having its scores."""

    p50: FiniteFloat = Field(ge=0, description="Median, ms")
    p90: FiniteFloat = Field(ge=0, description="90th percentile, ms")
    p99: FiniteFloat = Field(ge=0, description="99th percentile, ms")
    max: FiniteFloat = Field(ge=0, description="Largest, ms")


class RunUpdate(Body):
    """What changes while a run goes on; a field left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPDATE]})

    state: State | None = Field(None, description="Where the run stands")
    message: Line | None = Field(None, description="Why, for people to read")
    throughput: FiniteFloat | None = Field(
        None, ge=0, description="Strain scored per second of wall time, s/s"
    )
    latency_ms: LatencyMs | None = Field(None, description="Latency of updates, ms")


def ended_by(error: BaseException) -> RunUpdate:
    """The update of a run that an error, or the user, ended."""
    message = one_line(str(error))
    if not message:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        message = "interrupted" if stopped else type(error).__name__
    return RunUpdate(state="failed", message=message)


class Stream(Body):
    """One sequence of scores: a segment at one set of shifts."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STREAM]})

    kind: Kind = Field(
        description="zero_lag: the data as they are; injections: the data with "
        "signals added. Background comes in blocks"
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
        if self.kind == "zero_lag" and any(self.shifts.values()):
            raise ValueError(f"a zero_lag stream has no shifts; found {self.shifts}")
        if (self.kind == "injections") != (self.injection_set is not None):
            raise ValueError("injection_set goes with kind `injections`, and only so")
        if max(map(abs, self.shifts.values()), default=0) > MAX_SHIFT:
            raise ValueError(
                f"expected shifts of at most {MAX_SHIFT:g} s, found {self.shifts}"
            )
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

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHUNK]})

    start_ns: TimeNs = Field(
        description="GPS time of the right edge of the first score's data, ns"
    )
    stride_ns: Annotated[int, Field(gt=0, le=10**12)] = Field(
        description="Time between two scores, ns; 1 / inference_sampling_rate"
    )
    valid: Annotated[list[bool], FailFast()] = Field(
        min_length=1,
        max_length=MAX_STRIDES,
        description="For each stride, whether its score rests on real, gap-free data. "
        "Livetime is the number of true ones times the stride; it is never sent",
    )
    scores: Annotated[list[FiniteFloat], FailFast()] = Field(
        max_length=MAX_STRIDES,
        description="For each stride the score (logit), kept in single precision",
    )
    events: Annotated[list[Event], FailFast()] = Field(
        max_length=MAX_STRIDES, description="Events of this stretch"
    )
    last: bool = Field(False, description="Whether the stream ends here")

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if len(self.scores) != len(self.valid):
            raise ValueError(
                f"expected as many scores as valid flags, found {len(self.scores)} "
                f"and {len(self.valid)}"
            )
        if max(map(abs, self.scores)) > MAX_SINGLE:
            raise ValueError("a score exceeds single precision")
        return self

    @property
    def stop_ns(self) -> int:
        """GPS time of the right edge of the last score's data, ns."""
        return self.start_ns + (len(self.valid) - 1) * self.stride_ns


StrideIndex = Annotated[int, Field(ge=0, le=MAX_STRETCH_STRIDES)]


class BlockSlide(Body):
    """One timeslide of a block; its lists say the same event at the same place."""

    shifts: dict[Ifo, FiniteFloat] = Field(
        description="Shift of each detector of the run's geometry, s: how much later "
        "than the first it is read, circularly within the stretch; the first's is 0",
        json_schema_extra=ONLY_SUCH_NAMES,
    )
    valid: Annotated[
        list[Annotated[list[StrideIndex], Field(min_length=2, max_length=2)]],
        FailFast(),
    ] = Field(
        max_length=MAX_STRIDES,
        description="Strides with valid scores, as ranges [begin, end), ascending "
        "and apart. Livetime is their number times the stride; it is never sent",
    )
    strides: Annotated[list[StrideIndex], FailFast()] = Field(
        description="Stride of each event, ascending, in a valid range"
    )
    delays: Annotated[
        list[Annotated[FiniteFloat, Field(ge=-MAX_DELAY, le=MAX_DELAY)]], FailFast()
    ] = Field(
        description="Of each event, how much the right edge of its stride's strain "
        "lags the merger, s; kept in single precision"
    )
    statistics: Annotated[
        list[Annotated[FiniteFloat, Field(ge=-MAX_SINGLE, le=MAX_SINGLE)]], FailFast()
    ] = Field(
        description="Detection statistic of each event, dimensionless; kept in "
        "single precision"
    )

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        sizes = [len(self.strides), len(self.delays), len(self.statistics)]
        if len(set(sizes)) > 1:
            raise ValueError(
                "expected as many delays and statistics as strides, found "
                f"{sizes[1]}, {sizes[2]} and {sizes[0]}"
            )
        ranges = np.array(self.valid, dtype=np.int64).reshape(-1, 2)
        begins, ends = ranges.T
        if (begins >= ends).any() or (begins[1:] < ends[:-1]).any():
            raise ValueError(
                "valid: expected ascending, disjoint and non-empty ranges [begin, end)"
            )
        strides = np.array(self.strides, dtype=np.int64)
        if (np.diff(strides) <= 0).any():
            raise ValueError("strides: expected ascending and distinct ones")
        # The end of the range that begins last before the event; 0 where none does.
        last = np.concatenate([[0], ends])[np.searchsorted(begins, strides, "right")]
        orphans = strides[strides >= last]
        if orphans.size:
            raise ValueError(f"event at stride {orphans[0]}, which is not valid")
        return self


class Block(Body):
    """Background of one stretch of strain at many timeslides.

    An event's time, at the first detector, is
    `start_ns + (stride + 1) * stride_ns - delay`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BLOCK]})

    start_ns: TimeNs = Field(
        description="GPS time of the stretch's first sample, unshifted, ns"
    )
    strides: Annotated[int, Field(gt=0, le=MAX_STRETCH_STRIDES)] = Field(
        description="Length of the stretch, strides"
    )
    stride_ns: Annotated[int, Field(gt=0, le=10**10)] = Field(
        description="Time between two scores, ns; 1 / inference_sampling_rate"
    )
    slides: list[BlockSlide] = Field(
        min_length=1, max_length=MAX_SLIDES, description="The timeslides"
    )

    @model_validator(mode="after")
    def _holds_its_slides(self) -> Self:
        for index, slide in enumerate(self.slides):
            if slide.valid and slide.valid[-1][1] > self.strides:
                raise ValueError(
                    f"slide {index}: valid ranges end at stride {slide.valid[-1][1]} "
                    f"of a stretch of {self.strides}"
                )
            if max(map(abs, slide.shifts.values()), default=0) > MAX_SHIFT:
                raise ValueError(
                    f"slide {index}: expected shifts of at most {MAX_SHIFT:g} s, "
                    f"found {slide.shifts}"
                )
        return self

    @property
    def stop_ns(self) -> int:
        """GPS time of the stretch's end, ns."""
        return self.start_ns + self.strides * self.stride_ns


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

    @model_validator(mode="after")
    def _has_masses(self) -> Self:
        for name in ("mass_1", "mass_2"):
            if not 0 < self.parameters.get(name, 1.0) < MAX_MASS:
                raise ValueError(
                    f"{name}: expected solar masses above 0 and below {MAX_MASS:g}, "
                    f"found {self.parameters[name]:g}"
                )
        return self


class Veto(Body):
    """Time in which a detector's data are not to be trusted."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VETO]})

    ifos: list[Ifo] | None = Field(
        None, min_length=1, description="Detectors that it holds for; null: all"
    )
    reason: Line | None = Field(None, description="Why, for people to read")
    segments: Annotated[
        list[Annotated[list[TimeNs], Field(min_length=2, max_length=2)]], FailFast()
    ] = Field(
        max_length=MAX_SEGMENTS,
        description="Begin and end [begin, end) of each segment in the detector's own "
        "time, GPS ns, in any order; they may overlap",
    )

    @model_validator(mode="after")
    def _has_segments_forward_in_time(self) -> Self:
        for index, (begin, end) in enumerate(self.segments):
            if begin >= end:
                raise ValueError(
                    f"segment {index}: expected an end after its begin, found "
                    f"{begin} to {end} ns"
                )
        return self


class Strain(Body):
    """Strain around an event, to be looked at."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STRAIN]})

    sample_rate: Annotated[int, Field(ge=128, le=16_384)] = Field(
        description="Rate, Hz"
    )
    strain: dict[Ifo, Annotated[str, StringConstraints(max_length=MAX_STRAIN)]] = Field(
        min_length=1,
        json_schema_extra=ONLY_SUCH_NAMES,
        description="Of each detector of the run, as many samples each: float32, "
        "little-endian, in base64",
    )

    @model_validator(mode="after")
    def _is_strain(self) -> Self:
        sizes = {ifo: one.size for ifo, one in self.samples().items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                "expected as many samples of each detector, at least one, found "
                f"{sizes}"
            )
        return self

    def samples(self) -> dict[str, NDArray[np.float32]]:
        """The strain of each detector, float32, [size]."""
        result = {}
        for ifo, text in self.strain.items():
            try:
                data = base64.b64decode(text, validate=True)
                series = np.frombuffer(data, dtype="<f4")
            except ValueError as error:
                raise ValueError(
                    f"{ifo}: expected float32 in base64: {error}"
                ) from None
            if not np.isfinite(series).all():
                raise ValueError(f"{ifo}: expected finite strain")
            result[ifo] = series
        return result


class PopulationBody(Body):
    """What a set of injections was drawn from; see `chirpwatch.volume.Population`."""

    rejected: int = Field(
        ge=0, description="Draws that were too faint to be injected, exactly"
    )
    min_mass: FiniteFloat = Field(gt=0, description="Smallest mass, solar masses")
    max_mass: FiniteFloat = Field(gt=0, description="Largest mass, solar masses")
    mass_distribution: Literal["uniform", "log_uniform"] = Field(
        description="Of each component mass"
    )
    source_frame: bool = Field(
        description="Whether masses are the source's; else as the detectors see them"
    )
    reference_share: FiniteFloat = Field(
        ge=0, le=1, description="Share of the draws with the reference masses exactly"
    )
    reference_masses: Annotated[
        list[FiniteFloat], Field(min_length=2, max_length=2)
    ] = Field(description="Those masses, solar masses, in the frame of the others")
    max_redshift: FiniteFloat = Field(
        gt=0,
        le=20,
        description="Largest redshift; uniform in comoving volume, Planck18",
    )
    time_dilation: bool = Field(
        description="Whether draws are weighted by 1 / (1 + redshift)"
    )

    def population(self) -> Population:
        """The same as a `Population`."""
        values = self.model_dump(exclude={"rejected"})
        return Population(**values | {"reference_masses": tuple(self.reference_masses)})


class InjectionSet(Body):
    """A set of injections, complete, so that none can go missing."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.INJECTIONS]})

    injections: Annotated[list[Injection], FailFast()] = Field(
        max_length=MAX_INJECTIONS, description="All that were made, in any order"
    )
    population: PopulationBody | None = Field(
        None,
        description="What they were drawn from: sensitive volume needs it, and "
        "`mass_1`, `mass_2` (detector frame) and `redshift` of each; null: unknown, or "
        "not drawn in volume",
    )

    @model_validator(mode="after")
    def _has_what_a_volume_needs(self) -> Self:
        if self.population is not None:
            for index, injection in enumerate(self.injections):
                missing = VOLUME_PARAMETERS - injection.parameters.keys()
                if missing:
                    raise ValueError(
                        f"injection {index} of a population: expected "
                        f"{', '.join(sorted(VOLUME_PARAMETERS))}, missing "
                        f"{', '.join(sorted(missing))}"
                    )
                redshift = injection.parameters["redshift"]
                if not 0 < redshift <= self.population.max_redshift * (1 + 1e-9):
                    raise ValueError(
                        f"injection {index} of a population: expected a redshift above "
                        f"0 and up to {self.population.max_redshift:g}, found "
                        f"{redshift:g}"
                    )
        return self
