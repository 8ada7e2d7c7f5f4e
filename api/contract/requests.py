"""Request bodies: runs, streams, chunks, blocks, vetoes and strain.

Every field's description gives its unit; fields without a description here are
refused. Injections are in `injection_set`.
"""

import base64
import json
from dataclasses import asdict
from typing import Annotated, Self

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
from chirpwatch.api.contract.fields import (
    Identifier,
    Ifo,
    Kind,
    State,
    TimeNs,
)
from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry
from chirpwatch.text import LINE_SIZE, one_line

MAX_STRIDES = 65_536
"""Most strides of a chunk, and most valid ranges of a timeslide."""

MAX_STRETCH_STRIDES = 2**24
MAX_SLIDES = 4096
MAX_DELAY = 60.0
"""Largest delay between a stride and its event's merger, s."""

MAX_SHIFT = 1e8
"""Largest time shift, s."""

MAX_SINGLE = 3.4e38
"""Largest magnitude that single precision holds, nearly."""

MAX_SEGMENTS = 200_000
MAX_STRAIN = 2**21
"""Most base64 characters of one detector's strain."""


# PostgreSQL does not store NUL, and line breaks do not fit a heading.
Line = Annotated[
    str,
    StringConstraints(
        pattern=r"^[^\x00-\x1f\x7f]*$", min_length=1, max_length=LINE_SIZE
    ),
]

# Pydantic leaves this out of the schema of a dictionary with patterned keys.
ONLY_SUCH_NAMES: JsonDict = {"additionalProperties": False}


class Body(BaseModel):
    """Base class of the request bodies: strict, immutable, no unknown fields."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, frozen=True, strict=True
    )


class GeometryBody(Body):
    """How strain is cut, whitened and scored: the fields of `Geometry`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GEOMETRY]})

    ifos: list[Ifo] = Field(description="Detectors, in the order of the detector axis")
    sample_rate: int = Field(description="Sample rate of the strain, Hz")
    kernel_length: float = Field(description="Whitened data that one score looks at, s")
    inference_sampling_rate: float = Field(description="Scores per second, Hz", gt=0)
    frame_size: int = Field(description="Samples between two feature frames", gt=0)
    psd_length: float = Field(description="Longest data that one PSD is made of, s")
    psd_min_length: float = Field(
        description="Shortest data that one PSD is made of, s"
    )
    psd_refresh_length: float = Field(description="Time between two PSDs, s")
    fftlength: float = Field(description="Length of one periodogram, s")
    fduration: float = Field(description="Length of the whitening filter, s")
    highpass: float = Field(description="Cut-off frequency of the highpass, Hz")

    @model_validator(mode="after")
    def _describes_an_analysis(self) -> Self:
        try:
            self.geometry()
        except (GeometryError, OverflowError) as error:
            raise ValueError(str(error)) from None
        return self

    def geometry(self) -> Geometry:
        """Convert to a `Geometry`.

        Raises:
            GeometryError: The lengths and rates do not fit together.
        """
        return Geometry(**(self.model_dump() | {"ifos": tuple(self.ifos)}))

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """Make the body of a `Geometry`."""
        return cls(**json.loads(json.dumps(asdict(geometry))))


class Run(Body):
    """One search, with one model and one geometry."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RUN]})

    name: Line = Field(description="The run's name, free text")
    model: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] = Field(
        description="Digest of the served model, hexadecimal. A run's statistics are "
        "compared only with background of the same model"
    )
    geometry: GeometryBody
    simulated: bool = Field(description="Whether the strain is simulated")
    data: Line = Field(description="What was analysed, free text")
    planned_background: FiniteFloat | None = Field(
        None, ge=0, description="Background livetime that the run aims for, s"
    )
    background_run: Identifier | None = Field(
        None,
        description="Run whose background gives this run's false-alarm rates; it must "
        "have the same model and geometry. Null: this run's own background",
    )


class LatencyMs(Body):
    """Latency of updates: time from sending strain to receiving its scores."""

    p50: FiniteFloat = Field(ge=0, description="Median, ms")
    p90: FiniteFloat = Field(ge=0, description="90th percentile, ms")
    p99: FiniteFloat = Field(ge=0, description="99th percentile, ms")
    max: FiniteFloat = Field(ge=0, description="Largest, ms")


class RunUpdate(Body):
    """Change of a run's state or performance; omitted fields keep their value."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPDATE]})

    state: State | None = Field(
        None, description="Whether the run goes on, or how it ended"
    )
    message: Line | None = Field(None, description="Reason for the state, free text")
    throughput: FiniteFloat | None = Field(
        None, ge=0, description="Strain scored per second of wall time, s/s"
    )
    latency_ms: LatencyMs | None = Field(None, description="Latency of updates, ms")


def ended_by(error: BaseException) -> RunUpdate:
    """Make the update of a run that failed or was interrupted.

    Args:
        error: What ended the run; its message becomes the run's.
    """
    message = one_line(str(error))
    if not message:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        message = "interrupted" if stopped else type(error).__name__
    return RunUpdate(state="failed", message=message)


class Stream(Body):
    """The scores of one segment, zero-lag or with one set of injections."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STREAM]})

    kind: Kind = Field(
        description="`zero_lag`: data as recorded; `injections`: data with simulated "
        "signals added. Background is sent as blocks instead"
    )
    shifts: dict[Ifo, FiniteFloat] = Field(
        description="Time shift of each detector of the run's geometry, s",
        json_schema_extra=ONLY_SUCH_NAMES,
    )
    segment: Annotated[
        str, StringConstraints(pattern=r"^\d{1,10}(\.\d{1,9})?-\d{1,9}(\.\d{1,9})?$")
    ] = Field(description="Segment as `{GPS start in s}-{duration in s}`")
    injection_set: Identifier | None = Field(
        None,
        description="Injection set added to the data; required for kind `injections`, "
        "else null",
    )
    cluster_length: FiniteFloat = Field(
        8.0,
        ge=0,
        le=3600,
        description="Clustering reach, s: an event is the loudest score within this "
        "time before and after it, and is reported this long after it",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "zero_lag" and any(self.shifts.values()):
            raise ValueError(
                f"shifts: expected 0 s for a zero_lag stream, found {self.shifts}"
            )
        if (self.kind == "injections") != (self.injection_set is not None):
            raise ValueError(
                "injection_set: expected one for kind `injections`, and none for "
                f"`zero_lag`; found {self.injection_set!r} for {self.kind!r}"
            )
        if max(map(abs, self.shifts.values()), default=0) > MAX_SHIFT:
            raise ValueError(
                f"shifts: expected at most {MAX_SHIFT:g} s, found {self.shifts}"
            )
        if self.duration <= 0:
            raise ValueError(
                f"segment: expected a duration above 0 s, found {self.segment}"
            )
        return self

    @property
    def duration(self) -> float:
        """Length of the segment, s."""
        return float(self.segment.split("-")[1])


class Event(Body):
    """A valid score that no other valid score within the clustering reach exceeds."""

    time_ns: TimeNs = Field(description="GPS time of the merger, ns")
    statistic: FiniteFloat = Field(description="Detection statistic, dimensionless")


class Chunk(Body):
    """Scores of consecutive strides of a stream, and the events among them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHUNK]})

    start_ns: TimeNs = Field(
        description="GPS time of the right edge of the first score's strain, ns"
    )
    stride_ns: Annotated[int, Field(gt=0, le=10**12)] = Field(
        description="Time between two scores, 1 / inference_sampling_rate, ns"
    )
    valid: Annotated[list[bool], FailFast()] = Field(
        min_length=1,
        max_length=MAX_STRIDES,
        description="For each stride, whether its score comes from real, gap-free "
        "data. Livetime is the number of valid strides times the stride",
    )
    scores: Annotated[list[FiniteFloat], FailFast()] = Field(
        max_length=MAX_STRIDES,
        description="For each stride, its score (logit); stored in single precision",
    )
    events: Annotated[list[Event], FailFast()] = Field(
        max_length=MAX_STRIDES, description="Events that this chunk reports"
    )
    last: bool = Field(False, description="Whether this is the stream's last chunk")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.scores) != len(self.valid):
            raise ValueError(
                "scores, valid: expected lists of equal length, found "
                f"{len(self.scores)} and {len(self.valid)} entries"
            )
        if max(map(abs, self.scores)) > MAX_SINGLE:
            raise ValueError(
                f"scores: expected magnitudes of at most {MAX_SINGLE:g} (single "
                f"precision), found {max(map(abs, self.scores)):g}"
            )
        return self

    @property
    def stop_ns(self) -> int:
        """GPS time of the right edge of the last score's strain, ns."""
        return self.start_ns + (len(self.valid) - 1) * self.stride_ns


StrideIndex = Annotated[int, Field(ge=0, le=MAX_STRETCH_STRIDES)]


class BlockSlide(Body):
    """One timeslide of a block.

    `strides`, `delays` and `statistics` have one entry for each event.
    """

    shifts: dict[Ifo, FiniteFloat] = Field(
        description="Time shift of each detector of the run's geometry, s: how much "
        "later than the first detector it is read, circularly within the stretch. 0 "
        "for the first detector",
        json_schema_extra=ONLY_SUCH_NAMES,
    )
    valid: Annotated[
        list[Annotated[list[StrideIndex], Field(min_length=2, max_length=2)]],
        FailFast(),
    ] = Field(
        max_length=MAX_STRIDES,
        description="Strides with valid scores as ranges [begin, end), ascending and "
        "disjoint. Livetime is their number times the stride",
    )
    strides: Annotated[list[StrideIndex], FailFast()] = Field(
        description="Stride of each event, ascending, within a valid range"
    )
    delays: Annotated[
        list[Annotated[FiniteFloat, Field(ge=-MAX_DELAY, le=MAX_DELAY)]], FailFast()
    ] = Field(
        description="Delay of each event, s: time from the merger to the right edge of "
        "its stride's strain. Stored in single precision"
    )
    statistics: Annotated[
        list[Annotated[FiniteFloat, Field(ge=-MAX_SINGLE, le=MAX_SINGLE)]], FailFast()
    ] = Field(
        description="Detection statistic of each event, dimensionless; stored in "
        "single precision"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        sizes = [len(self.strides), len(self.delays), len(self.statistics)]
        if len(set(sizes)) > 1:
            raise ValueError(
                "strides, delays, statistics: expected lists of equal length, found "
                f"{sizes[0]}, {sizes[1]} and {sizes[2]} entries"
            )
        ranges = np.array(self.valid, dtype=np.int64).reshape(-1, 2)
        begins, ends = ranges.T
        if (begins >= ends).any() or (begins[1:] < ends[:-1]).any():
            raise ValueError(
                "valid: expected ascending, disjoint and non-empty ranges [begin, end)"
            )
        strides = np.array(self.strides, dtype=np.int64)
        if (np.diff(strides) <= 0).any():
            raise ValueError("strides: expected ascending, distinct event strides")
        # End of the last range that begins at or before each event; 0 if none does.
        last = np.concatenate([[0], ends])[np.searchsorted(begins, strides, "right")]
        orphans = strides[strides >= last]
        if orphans.size:
            raise ValueError(
                f"strides: expected events within the valid ranges, found one at "
                f"stride {orphans[0]}"
            )
        return self


class Block(Body):
    """Background from one stretch of strain at many timeslides.

    An event's time at the first detector is
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
        description="Time between two scores, 1 / inference_sampling_rate, ns"
    )
    slides: list[BlockSlide] = Field(
        min_length=1, max_length=MAX_SLIDES, description="The timeslides"
    )

    @model_validator(mode="after")
    def _contains_its_slides(self) -> Self:
        for index, slide in enumerate(self.slides):
            if slide.valid and slide.valid[-1][1] > self.strides:
                raise ValueError(
                    f"slide {index}: expected valid ranges within the stretch of "
                    f"{self.strides} strides, found an end at {slide.valid[-1][1]}"
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


class Veto(Body):
    """Segments in which detectors' data are not used."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VETO]})

    ifos: list[Ifo] | None = Field(
        None, min_length=1, description="Detectors that the veto applies to; null: all"
    )
    reason: Line | None = Field(None, description="Reason, free text")
    segments: Annotated[
        list[Annotated[list[TimeNs], Field(min_length=2, max_length=2)]], FailFast()
    ] = Field(
        max_length=MAX_SEGMENTS,
        description="Start and end [start, end) of each segment, in the detector's own "
        "time, GPS ns. Any order; segments may overlap",
    )

    @model_validator(mode="after")
    def _has_segments_forward_in_time(self) -> Self:
        for index, (start, end) in enumerate(self.segments):
            if start >= end:
                raise ValueError(
                    f"segment {index}: expected an end after its start, found "
                    f"{start} to {end} ns"
                )
        return self


class Strain(Body):
    """Strain around an event, for display."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STRAIN]})

    sample_rate: Annotated[int, Field(ge=128, le=16_384)] = Field(
        description="Sample rate, Hz"
    )
    strain: dict[Ifo, Annotated[str, StringConstraints(max_length=MAX_STRAIN)]] = Field(
        min_length=1,
        json_schema_extra=ONLY_SUCH_NAMES,
        description="Strain of each detector of the run: float32, little-endian, in "
        "base64. All detectors have the same number of samples",
    )

    @model_validator(mode="after")
    def _is_strain(self) -> Self:
        sizes = {ifo: samples.size for ifo, samples in self.samples().items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                "strain: expected the same number of samples, at least one, for each "
                f"detector, found {sizes}"
            )
        return self

    def samples(self) -> dict[str, NDArray[np.float32]]:
        """Decode the strain of each detector, float32, [size].

        Raises:
            ValueError: Not base64 of finite float32 values.
        """
        result = {}
        for ifo, text in self.strain.items():
            try:
                data = base64.b64decode(text, validate=True)
                series = np.frombuffer(data, dtype="<f4")
            except ValueError as error:
                raise ValueError(
                    f"strain, {ifo}: expected float32 in base64: {error}"
                ) from None
            if not np.isfinite(series).all():
                raise ValueError(
                    f"strain, {ifo}: expected finite strain, found infinity or NaN"
                )
            result[ifo] = series
        return result
