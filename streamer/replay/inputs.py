"""What a replay analyses: segments, timeslides, injections."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chirpwatch.errors import ConfigurationError, SignalError, StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import Segment
from chirpwatch.streamer.background.plan import Plan, make_plan, most_slides
from chirpwatch.streamer.replay.jobs import Job

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
