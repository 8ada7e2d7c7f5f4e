"""The plan of a background: which stretches of strain, at which timeslides."""

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
"""Longest time that light takes between two detectors, whichever they are: through the
Earth along its equatorial diameter, s."""

JOB_SLIDES = 512
"""Most slides in one job, and so in one request to the server."""


@dataclass(frozen=True)
class Stretch:
    """A part of a segment, within which slides are circular.

    Attributes:
        segment: Number of the segment.
        start: Its first sample within the segment.
        strides: Its length in strides.
        start_ns: GPS time of its first sample, integer nanoseconds.
    """

    segment: int
    start: int
    strides: int
    start_ns: int

    def read(self, segments: Sequence[Segment], geometry: Geometry) -> NDArray[Any]:
        """The strain, float32 [ifos, size].

        Raises:
            StrainError: A sample is not finite.
        """
        stop = self.start + self.strides * geometry.stride_size
        segment = segments[self.segment]
        return np.stack([segment.read(ifo, self.start, stop) for ifo in geometry.ifos])


@dataclass(frozen=True)
class Job:
    """One request to the server: a stretch and some of its slides.

    Attributes:
        number: Counted from 0.
        stretch: Number of the stretch.
        shifts: For each slide by how much each further detector is read later than
            the first one, feature frames.
        strides: For each slide how many scores are valid if the strain is sound.
    """

    number: int
    stretch: int
    shifts: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a background run does.

    Attributes:
        geometry: The served model's geometry.
        step: Shift of the second detector from one slide to the next, feature frames.
        stretches: Disjoint, in order of time.
        jobs: In order of their numbers.
        most_strides: Valid strides of all slides that the data can give.
        left_out: Data that no stretch holds, and why.
    """

    geometry: Geometry
    step: int
    stretches: tuple[Stretch, ...]
    jobs: tuple[Job, ...]
    most_strides: int
    left_out: tuple[str, ...]

    @property
    def slides(self) -> int:
        """Slides of all stretches together."""
        return sum(len(job.shifts) for job in self.jobs)

    @property
    def livetime(self) -> float:
        """Livetime of all slides together, if the strain is sound, s."""
        strides = sum(sum(job.strides) for job in self.jobs)
        return strides * self.geometry.stride_length

    def length(self, job: Job) -> float:
        """Strain that a job's slides go through, s."""
        strides = len(job.shifts) * self.stretches[job.stretch].strides
        return strides * self.geometry.stride_length

    @property
    def most_livetime(self) -> float:
        """Livetime that the data can give at this step, s."""
        return self.most_strides * self.geometry.stride_length


def make_plan(
    segments: Sequence[Segment],
    geometry: Geometry,
    *,
    livetime: float | None = None,
    slides: int | None = None,
    stretch_length: float = STRETCH_LENGTH,
    step_length: float | None = None,
) -> Plan:
    """Plan a background of a given livetime, or of a given number of slides.

    Slide *k* of a stretch reads the second detector *k* steps later than the first, a
    third one 2 *k* steps. They come in rounds: the first of every stretch, then the
    second, until there is enough.

    Args:
        segments: The strain, in order of time.
        geometry: The served model's geometry.
        livetime: Livetime that is wanted, s; the plan is the first to reach it.
        slides: Slides of each stretch, as far as it is long enough for them; give
            either this or ``livetime``.
        stretch_length: Longest stretch, s.
        step_length: Step between two slides, s; the least possible where it is None.

    Raises:
        ConfigurationError: Not one of ``livetime`` and ``slides``, or it is not above
            0; more than the data can give; or stretches longer than a server takes.
        ShiftError: One detector, or a step that is no whole number of feature frames,
            below the least possible, or as long as the stretches.
        StrainError: Segments overlap, or none gives a stretch.
    """
    if (livetime is None) == (slides is None):
        raise ConfigurationError("expected either a livetime or a number of slides")
    if livetime is not None and not (math.isfinite(livetime) and livetime > 0):
        raise ConfigurationError(f"expected a livetime above 0 s, found {livetime:g} s")
    if slides is not None and slides < 1:
        raise ConfigurationError(f"expected at least one slide, found {slides}")
    step = _step(geometry, step_length)
    stretches, left_out = _cut(segments, geometry, stretch_length, step)
    if not stretches:
        raise StrainError(left_out[0])
    most = {
        strides: _livetimes(geometry, strides, step)
        for strides in {stretch.strides for stretch in stretches}
    }
    most_strides = sum(sum(most[stretch.strides].values()) for stretch in stretches)
    if livetime is not None:
        wanted = math.ceil(livetime * geometry.inference_sampling_rate)
        if wanted > most_strides:
            raise ConfigurationError(
                f"expected a livetime of at most "
                f"{most_strides * geometry.stride_length:.1f} s, which is what the "
                f"slides of {len(stretches)} stretches of {len(segments)} segment(s), "
                f"{sum(segment.duration for segment in segments):g} s, can give at a "
                f"step of {step * geometry.frame_size / geometry.sample_rate:g} s; "
                f"found {livetime:g} s"
            )
    else:
        assert slides is not None
        longest = max(max(ks) for ks in most.values())
        if slides > longest:
            raise ConfigurationError(
                f"expected at most {longest} slides, which is what the longest stretch "
                f"gives, found {slides}"
            )
        wanted = most_strides
    chosen: list[list[int]] = [[] for _ in stretches]
    got = 0
    for k in range(1, 1 + (slides or max(max(ks) for ks in most.values()))):
        for number, stretch in enumerate(stretches):
            if got < wanted and k in most[stretch.strides]:
                chosen[number].append(k)
                got += most[stretch.strides][k]
    jobs: list[Job] = []
    for number, (stretch, ks) in enumerate(zip(stretches, chosen, strict=True)):
        for first in range(0, len(ks), JOB_SLIDES):
            part = ks[first : first + JOB_SLIDES]
            jobs.append(
                Job(
                    number=len(jobs),
                    stretch=number,
                    shifts=tuple(_shifts(geometry, k, step) for k in part),
                    strides=tuple(most[stretch.strides][k] for k in part),
                )
            )
    return Plan(
        geometry, step, tuple(stretches), tuple(jobs), most_strides, tuple(left_out)
    )


def most_slides(
    segments: Sequence[Segment],
    geometry: Geometry,
    *,
    stretch_length: float = STRETCH_LENGTH,
    step_length: float | None = None,
) -> tuple[int, list[str]]:
    """Slides that the longest stretch can give; arguments as of ``make_plan``.

    Returns:
        How many, none if no segment is long enough; and what no stretch holds, and why.

    Raises:
        ShiftError: As ``make_plan``.
        StrainError: Segments overlap, or there are none.
    """
    step = _step(geometry, step_length)
    stretches, left_out = _cut(segments, geometry, stretch_length, step)
    counts = (len(_livetimes(geometry, each.strides, step)) for each in stretches)
    return max(counts, default=0), left_out


@lru_cache(maxsize=65_536)
def valid_ranges(
    geometry: Geometry, strides: int, shifts: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """The strides of a slide whose scores are valid if the strain is sound.

    A score is valid if the right edge of each detector's own data lies at or after the
    warm-up of the stretch. The warm-up covers a kernel and its filter, so that no
    valid score reaches around the end of the stretch.

    Args:
        geometry: The analysis.
        strides: Length of the stretch.
        shifts: By how much each further detector is read later, feature frames.

    Returns:
        Ascending, disjoint ranges [begin, end) of strides.
    """
    frames = geometry.stride_size // geometry.frame_size
    warmup = geometry.psd_min_size // geometry.frame_size
    cuts = []
    for shift in (0, *shifts):
        # The right edge of stride j lies at (j + 1) * frames + shift, modulo the
        # stretch; those at 1 to warmup - 1 are not valid.
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


def least_step(geometry: Geometry) -> int:
    """Least step between two slides, feature frames.

    Data that one score reads together, or that one signal reaches, are never read
    together by another slide: kernel, filter, and light's way between the detectors.
    """
    length = geometry.kernel_length + geometry.fduration + LIGHT_LENGTH
    return math.ceil(length * geometry.sample_rate / geometry.frame_size)


def _step(geometry: Geometry, length: float | None) -> int:
    if len(geometry.ifos) < 2:
        raise ShiftError(f"slides need two detectors; found {geometry.ifos[0]} alone")
    least = least_step(geometry)
    if length is None:
        return least
    frame_length = geometry.frame_size / geometry.sample_rate
    step = length / frame_length
    if not (math.isfinite(step) and step == round(step)):
        raise ShiftError(
            f"step between two slides: expected a multiple of a feature frame, "
            f"{frame_length:g} s, found {length:g} s"
        )
    if step < least:
        raise ShiftError(
            f"step between two slides: expected at least kernel, filter and light's "
            f"way through the Earth, {least * frame_length:g} s, found {length:g} s"
        )
    return round(step)


def _shifts(geometry: Geometry, k: int, step: int) -> tuple[int, ...]:
    return tuple(i * k * step for i in range(1, len(geometry.ifos)))


def _livetimes(geometry: Geometry, strides: int, step: int) -> dict[int, int]:
    """Valid strides of each slide of a stretch; those without any are left out.

    The last detector is shifted most, and no more than to a step before the circle
    closes, so that the detectors of a slide, and those of two slides, stay a step
    apart either way around.
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
    """Cut segments into stretches of nearly equal length."""
    if not segments:
        raise StrainError("expected segments of strain, found none")
    for one, other in itertools.pairwise(segments):
        if one.time_ns(one.size) > other.t0_ns:
            raise StrainError(
                f"expected segments in order that do not overlap, found {one.name} of "
                f"{one.source} and {other.name} of {other.source}: the same data must "
                "not count twice"
            )
    if not length <= MAX_LENGTH:
        raise ConfigurationError(
            f"expected stretches of at most {MAX_LENGTH:g} s, which is what a server "
            f"takes at once, found {length:g} s"
        )
    most = math.floor(length * geometry.inference_sampling_rate)
    frames = geometry.stride_size // geometry.frame_size
    step_length = step * geometry.frame_size / geometry.sample_rate
    if most * frames <= step:
        raise ShiftError(
            f"step between two slides: expected less than the stretches of "
            f"{length:g} s, found {step_length:g} s"
        )
    least = next(
        (
            strides
            for strides in range(geometry.warmup_strides + 1, most + 1)
            if _livetimes(geometry, strides, step)
        ),
        None,
    )
    if least is None:
        raise StrainError(
            f"expected stretches so long that a slide has livetime: longer than the "
            f"warm-up of {geometry.psd_min_length:g} s of each detector and two steps "
            f"of {step_length:g} s, found {length:g} s"
        )
    stretches: list[Stretch] = []
    left_out: list[str] = []
    for number, segment in enumerate(segments):
        where = f"{segment.source}, segment {segment.name}"
        _check(segment, geometry, where)
        strides = segment.size // geometry.stride_size
        if strides < least:
            left_out.append(
                f"{where}: {segment.duration:g} s, less than the "
                f"{least * geometry.stride_length:g} s of the shortest stretch"
            )
            continue
        count = -(-strides // most)
        if strides // count >= least:
            sizes = [strides // count + (i < strides % count) for i in range(count)]
        else:
            sizes = [most] * (strides // most)
        at = 0
        for size in sizes:
            start = at * geometry.stride_size
            stretches.append(Stretch(number, start, size, segment.time_ns(start)))
            at += size
        rest = segment.size - at * geometry.stride_size
        if rest:
            left_out.append(
                f"{where}: {rest / geometry.sample_rate:g} s at its end, which make no "
                "whole stretch"
            )
    return stretches, left_out


def _check(segment: Segment, geometry: Geometry, where: str) -> None:
    missing = [ifo for ifo in geometry.ifos if ifo not in segment.strain]
    if missing:
        raise StrainError(
            f"{where}: expected detectors {', '.join(geometry.ifos)}, found "
            f"{', '.join(segment.strain)}"
        )
    if segment.sample_rate != geometry.sample_rate:
        raise StrainError(
            f"{where}: the served model expects {geometry.sample_rate} Hz, found "
            f"{segment.sample_rate} Hz"
        )
