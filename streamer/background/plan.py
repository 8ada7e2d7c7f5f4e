"""Plans a background run: cuts strain into stretches, and chooses their timeslides."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import (
    ConfigurationError,
    ShiftError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.limits import (
    MAX_LENGTH,
    STRETCH_LENGTH,
)
from chirpwatch.strain import Segment

LIGHT_LENGTH = 12_756.27 / 299_792.458
"""Upper limit of the light travel time between two detectors, s: along the Earth's
equatorial diameter."""

JOB_SLIDES = 512
"""Most slides in a job, and so in a request to the server."""


@dataclass(frozen=True)
class Stretch:
    """A part of a segment, within which shifts are circular.

    Attributes:
        segment: Index of the segment.
        start: The stretch's first sample in the segment.
        strides: Length in strides.
        start_ns: GPS time of the first sample, ns.
    """

    segment: int
    start: int
    strides: int
    start_ns: int

    def read(self, segments: Sequence[Segment], geometry: Geometry) -> NDArray[Any]:
        """Read the stretch's strain, float32 [ifos, size].

        Raises:
            StrainError: A sample is not finite.
        """
        stop = self.start + self.strides * geometry.stride_size
        segment = segments[self.segment]
        return np.stack([segment.read(ifo, self.start, stop) for ifo in geometry.ifos])


@dataclass(frozen=True)
class SlideJob:
    """A stretch and some of its slides, scored in a single request.

    Attributes:
        number: Number of the job, from 0.
        stretch: Index of the stretch.
        shifts: Shifts of each slide: how much later each detector but the first is
            read, feature frames.
        strides: Number of each slide's valid scores, if all strain is valid.
    """

    number: int
    stretch: int
    shifts: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The stretches and jobs of a background run.

    Attributes:
        geometry: The served model's geometry.
        step: Shift of the second detector from one slide to the next, feature frames.
        stretches: Disjoint stretches, in order of time.
        jobs: Jobs, in order of their numbers.
        max_strides: Valid strides of all slides that the strain allows.
        left_out: Descriptions of strain in no stretch, with the reason.
    """

    geometry: Geometry
    step: int
    stretches: tuple[Stretch, ...]
    jobs: tuple[SlideJob, ...]
    max_strides: int
    left_out: tuple[str, ...]

    @property
    def slides(self) -> int:
        """Number of slides of all stretches."""
        return sum(len(job.shifts) for job in self.jobs)

    @property
    def livetime(self) -> float:
        """Livetime of all slides, if all strain is valid, s."""
        strides = sum(sum(job.strides) for job in self.jobs)
        return strides * self.geometry.stride_length

    def length(self, job: SlideJob) -> float:
        """Strain that a job scores, s; every slide counts."""
        strides = len(job.shifts) * self.stretches[job.stretch].strides
        return strides * self.geometry.stride_length

    @property
    def max_livetime(self) -> float:
        """Livetime of all slides that the strain allows at this step, s."""
        return self.max_strides * self.geometry.stride_length


def make_plan(
    segments: Sequence[Segment],
    geometry: Geometry,
    *,
    livetime: float | None = None,
    slides: int | None = None,
    stretch_length: float = STRETCH_LENGTH,
    step_length: float | None = None,
) -> Plan:
    """Plan a background with a given livetime, or a given number of slides.

    Slide *k* of a stretch reads the second detector *k* steps later than the first, and
    the third detector 2 *k* steps. Slides are added in rounds: slide 1 of every
    stretch, then slide 2, and so on.

    Args:
        segments: The strain, in order of time.
        geometry: The served model's geometry.
        livetime: Livetime to reach, s. Give either this or ``slides``.
        slides: Number of slides of each stretch, as far as the stretch allows them.
        stretch_length: Longest stretch, s.
        step_length: Step between two slides, s; None for the smallest possible.

    Raises:
        ConfigurationError: Both or neither of ``livetime`` and ``slides`` are given;
            the value is not above 0 or more than the strain allows; or the stretches
            are longer than a server accepts.
        ShiftError: The geometry has a single detector, or the step is not a whole
            number of feature frames, too small, or as long as the stretches.
        StrainError: Segments overlap, or none is long enough for a stretch.
    """
    if (livetime is None) == (slides is None):
        raise ConfigurationError(
            "expected either a livetime or a number of slides, found "
            + ("both; give one of them" if slides is not None else "neither; give one")
        )
    if livetime is not None and not (math.isfinite(livetime) and livetime > 0):
        raise ConfigurationError(f"expected a livetime above 0 s, found {livetime:g} s")
    if slides is not None and slides < 1:
        raise ConfigurationError(f"expected at least one slide, found {slides}")
    step = _step(geometry, step_length)
    stretches, left_out = _cut(segments, geometry, stretch_length, step)
    if not stretches:
        raise StrainError(left_out[0])
    slide_strides = {
        strides: _livetimes(geometry, strides, step)
        for strides in {stretch.strides for stretch in stretches}
    }
    max_strides = sum(
        sum(slide_strides[stretch.strides].values()) for stretch in stretches
    )
    if livetime is not None:
        target = math.ceil(livetime * geometry.inference_sampling_rate)
        if target > max_strides:
            raise ConfigurationError(
                f"expected a livetime of at most "
                f"{max_strides * geometry.stride_length:.1f} s, which all slides of "
                f"{len(stretches)} stretch(es) in {len(segments)} segment(s) "
                f"({sum(segment.duration for segment in segments):g} s) have at a step "
                f"of {step * geometry.frame_size / geometry.sample_rate:g} s, found "
                f"{livetime:g} s; add strain, or ask for less livetime"
            )
    else:
        assert slides is not None
        limit = max(max(ks) for ks in slide_strides.values())
        if slides > limit:
            raise ConfigurationError(
                f"expected at most {limit} slides, as many as the longest stretch "
                f"allows, found {slides}; add longer segments, or ask for fewer slides"
            )
        target = max_strides
    chosen: list[list[int]] = [[] for _ in stretches]
    planned = 0
    for k in range(1, 1 + (slides or max(max(ks) for ks in slide_strides.values()))):
        for number, stretch in enumerate(stretches):
            if planned < target and k in slide_strides[stretch.strides]:
                chosen[number].append(k)
                planned += slide_strides[stretch.strides][k]
    jobs: list[SlideJob] = []
    for number, (stretch, ks) in enumerate(zip(stretches, chosen, strict=True)):
        for first in range(0, len(ks), JOB_SLIDES):
            part = ks[first : first + JOB_SLIDES]
            jobs.append(
                SlideJob(
                    number=len(jobs),
                    stretch=number,
                    shifts=tuple(_shifts(geometry, k, step) for k in part),
                    strides=tuple(slide_strides[stretch.strides][k] for k in part),
                )
            )
    return Plan(
        geometry, step, tuple(stretches), tuple(jobs), max_strides, tuple(left_out)
    )


def max_slides(
    segments: Sequence[Segment],
    geometry: Geometry,
    *,
    stretch_length: float = STRETCH_LENGTH,
    step_length: float | None = None,
) -> tuple[int, list[str]]:
    """Most slides of any stretch; the arguments are those of ``make_plan``.

    Returns:
        The number, 0 if no segment is long enough; and descriptions of strain in no
        stretch, with the reason.

    Raises:
        ShiftError: See ``make_plan``.
        StrainError: Segments overlap, or no segment is given.
    """
    step = _step(geometry, step_length)
    stretches, left_out = _cut(segments, geometry, stretch_length, step)
    counts = (len(_livetimes(geometry, stretch.strides, step)) for stretch in stretches)
    return max(counts, default=0), left_out


@lru_cache(maxsize=65_536)
def valid_ranges(
    geometry: Geometry, strides: int, shifts: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Ranges of a slide's strides with valid scores, if all strain is valid.

    A score is valid if the right edge of each detector's own data lies at or after the
    stretch's warm-up. The warm-up is longer than the kernel and its filter, so that no
    valid score reaches around the end of the stretch.

    Args:
        geometry: The analysis.
        strides: Length of the stretch in strides.
        shifts: How much later each detector but the first is read, feature frames.

    Returns:
        Ascending, disjoint ranges [begin, end) of strides.
    """
    frames = geometry.stride_size // geometry.frame_size
    warmup = geometry.psd_min_size // geometry.frame_size
    cuts = []
    for shift in (0, *shifts):
        # The right edge of stride j lies at (j + 1) * frames + shift, modulo the
        # stretch. Edges at 1 to warmup - 1 are not valid.
        begin = -((shift - 1) // frames) - 1
        end = (warmup - 1 - shift) // frames
        begin, size = begin % strides, end - begin
        cuts.append((begin, min(begin + size, strides)))
        cuts.append((0, min(begin + size - strides, strides)))
    ranges, at = [], 0
    for begin, end in sorted(cuts):
        if end <= begin:
            continue
        if begin > at:
            ranges.append((at, begin))
        at = max(at, end)
    if at < strides:
        ranges.append((at, strides))
    return tuple(ranges)


def min_step(geometry: Geometry) -> int:
    """Smallest step between two slides, feature frames.

    It is kernel, filter and light travel time, so that no two slides combine the same
    data of two detectors, or the same signal.
    """
    length = geometry.kernel_length + geometry.fduration + LIGHT_LENGTH
    return math.ceil(length * geometry.sample_rate / geometry.frame_size)


def _step(geometry: Geometry, length: float | None) -> int:
    if len(geometry.ifos) < 2:
        raise ShiftError(
            "timeslides: expected a model of two detectors or more, found "
            f"{geometry.ifos[0]} alone; serve a model of more detectors"
        )
    smallest = min_step(geometry)
    if length is None:
        return smallest
    frame_length = geometry.frame_size / geometry.sample_rate
    step = length / frame_length
    if not (math.isfinite(step) and step == round(step)):
        raise ShiftError(
            f"step between two slides: expected a multiple of a feature frame, "
            f"{frame_length:g} s, found {length:g} s"
        )
    if step < smallest:
        raise ShiftError(
            f"step between two slides: expected at least kernel, filter and light "
            f"travel time, {smallest * frame_length:g} s, found {length:g} s"
        )
    return round(step)


def _shifts(geometry: Geometry, k: int, step: int) -> tuple[int, ...]:
    return tuple(i * k * step for i in range(1, len(geometry.ifos)))


def _livetimes(geometry: Geometry, strides: int, step: int) -> dict[int, int]:
    """Number of valid strides of each slide of a stretch, if above 0.

    The last detector is shifted most: at most to a step before a full circle. So the
    detectors of a slide, and the same detectors in two slides, stay at least a step
    apart in both directions.
    """
    frames = strides * geometry.stride_size // geometry.frame_size
    last = (frames - step) // (step * (len(geometry.ifos) - 1))
    counts = {}
    for k in range(1, last + 1):
        ranges = valid_ranges(geometry, strides, _shifts(geometry, k, step))
        if ranges:
            counts[k] = sum(end - begin for begin, end in ranges)
    return counts


def _cut(
    segments: Sequence[Segment], geometry: Geometry, length: float, step: int
) -> tuple[list[Stretch], list[str]]:
    """Cut segments into stretches of nearly equal length; describe the remains."""
    if not segments:
        raise StrainError("expected segments of strain, found none")
    for first, second in itertools.pairwise(segments):
        if first.time_ns(first.size) > second.t0_ns:
            raise StrainError(
                f"expected segments in order that do not overlap, found {first.name} "
                f"in {first.source} and {second.name} in {second.source}; remove one "
                "of them, as the same data must not count twice"
            )
    if not length <= MAX_LENGTH:
        raise ConfigurationError(
            f"expected stretches of at most {MAX_LENGTH:g} s, the longest request that "
            f"the models accept, found {length:g} s; give a smaller --stretch-length"
        )
    max_strides = math.floor(length * geometry.inference_sampling_rate)
    frames = geometry.stride_size // geometry.frame_size
    step_length = step * geometry.frame_size / geometry.sample_rate
    if max_strides * frames <= step:
        raise ShiftError(
            f"step between two slides: expected less than the stretches of "
            f"{length:g} s, found {step_length:g} s"
        )
    min_strides = next(
        (
            strides
            for strides in range(geometry.warmup_strides + 1, max_strides + 1)
            if _livetimes(geometry, strides, step)
        ),
        None,
    )
    if min_strides is None:
        raise StrainError(
            "stretches: expected more than each detector's warm-up of "
            f"{geometry.psd_min_length:g} s and two steps of {step_length:g} s, so "
            f"that a slide has livetime, found {length:g} s; give a larger "
            "--stretch-length"
        )
    stretches: list[Stretch] = []
    left_out: list[str] = []
    for number, segment in enumerate(segments):
        where = f"{segment.source}, segment {segment.name}"
        _check(segment, geometry, where)
        strides = segment.size // geometry.stride_size
        if strides < min_strides:
            left_out.append(
                f"{where}: {segment.duration:g} s, less than the "
                f"{min_strides * geometry.stride_length:g} s of the shortest stretch"
            )
            continue
        count = -(-strides // max_strides)
        if strides // count >= min_strides:
            sizes = [strides // count + (i < strides % count) for i in range(count)]
        else:
            sizes = [max_strides] * (strides // max_strides)
        at = 0
        for size in sizes:
            start = at * geometry.stride_size
            stretches.append(Stretch(number, start, size, segment.time_ns(start)))
            at += size
        rest = segment.size - at * geometry.stride_size
        if rest:
            left_out.append(
                f"{where}: the last {rest / geometry.sample_rate:g} s, less than a "
                "stretch"
            )
    return stretches, left_out


def _check(segment: Segment, geometry: Geometry, where: str) -> None:
    missing = [ifo for ifo in geometry.ifos if ifo not in segment.strain]
    if missing:
        raise StrainError(
            f"{where}: expected detectors {', '.join(geometry.ifos)}, found "
            f"{', '.join(segment.strain)}; give strain of all of the model's "
            "detectors, or serve a model for these"
        )
    if segment.sample_rate != geometry.sample_rate:
        raise StrainError(
            f"{where}: the served model expects {geometry.sample_rate} Hz, found "
            f"{segment.sample_rate} Hz; resample the strain first"
        )
