"""What a replay analyses: segments, timeslides, injections."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chirpwatch.errors import ConfigurationError, SignalError, StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import Segment
from chirpwatch.streamer.background.plan import Plan, make_plan, max_slides
from chirpwatch.streamer.replay.jobs import SequenceJob

MAX_REQUEST_STRIDES = 32_768
"""Most strides in a request: its scores become a chunk, whose size the API limits."""


@dataclass(frozen=True)
class Replay:
    """Input and settings of a replay.

    Attributes:
        segments: The strain.
        slides: Most timeslides of each stretch of strain.
        slide_length: Step between two timeslides, s; None for the smallest possible.
        signals: For each segment's name, its injection sets by name. Names are unique
            over all segments.
        request_length: Length of strain in a request, s.
        workers: Number of sequences to score at the same time.
    """

    segments: Sequence[Segment]
    slides: int = 100
    slide_length: float | None = None
    signals: Mapping[str, Mapping[str, ProjectedSignals]] = field(default_factory=dict)
    request_length: float = 64.0
    workers: int = 2

    def jobs(self, geometry: Geometry) -> tuple[list[SequenceJob], list[str]]:
        """Zero-lag jobs with their injection sets, for segments that are long enough.

        Returns:
            The jobs, and for each segment that was left out the reason.

        Raises:
            StrainError: No segment is as long as the warm-up; or see ``SequenceJob``.
            ConfigurationError: The length of a request is not a whole number of
                strides, or too long.
            SignalError: Two segments have an injection set of the same name.
        """
        self._check(geometry)
        unshifted = (0.0,) * len(geometry.ifos)
        jobs, left_out = [], []
        for segment in self.segments:
            if segment.duration < geometry.psd_min_length:
                left_out.append(
                    f"{segment.source}, segment {segment.name}: {segment.duration:g} s,"
                    f" less than the warm-up of {geometry.psd_min_length:g} s"
                )
                continue
            signals = self.signals.get(segment.name, {})
            jobs.append(SequenceJob(segment, geometry, unshifted, signals))
        if not jobs:
            raise StrainError(
                left_out[0] if left_out else "expected strain, found no segment"
            )
        return jobs, left_out

    def background(self, geometry: Geometry) -> tuple[Plan | None, list[str]]:
        """Plan up to ``slides`` timeslides of each stretch.

        Returns:
            The plan, or None without timeslides; and for each part that was left out
            the reason.

        Raises:
            ChirpwatchError: See ``make_plan``.
        """
        if not self.slides:
            return None, []
        limit, left_out = max_slides(
            self.segments, geometry, step_length=self.slide_length
        )
        if not limit:
            return None, [f"timeslides of {reason}" for reason in left_out]
        plan = make_plan(
            self.segments,
            geometry,
            slides=min(self.slides, limit),
            step_length=self.slide_length,
        )
        left_out = [f"timeslides of {reason}" for reason in left_out]
        if limit < self.slides:
            left_out.append(
                f"timeslides {limit + 1} to {self.slides}: the longest stretch allows "
                f"{limit}"
            )
        return plan, left_out

    def _check(self, geometry: Geometry) -> None:
        strides = self.request_length * geometry.inference_sampling_rate
        if not (strides % 1 == 0 and 1 <= strides <= MAX_REQUEST_STRIDES):
            raise ConfigurationError(
                f"request length: expected a multiple of {geometry.stride_length:g} s, "
                f"at most {MAX_REQUEST_STRIDES * geometry.stride_length:g} s, found "
                f"{self.request_length:g} s"
            )
        names = Counter(name for sets in self.signals.values() for name in sets)
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise SignalError(
                "expected unique names of injection sets, found "
                f"{', '.join(repeated)} in several segments; rename them"
            )
