"""A job: one segment at one set of shifts, with sets of injections or without."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import (
    ShiftError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.streamer.replay.foreground import Foreground


@dataclass(frozen=True)
class Job:
    """What one sequence of requests analyses.

    At analysis time *t* a detector shifted by *s* seconds gives its strain of *t + s*,
    so only the time that all shifted detectors have is analysed: a slide neither wraps
    around nor pads. Each detector is whitened as it is at zero-lag: its PSD looks back
    into what it has seen before the analysis begins.

    Attributes:
        segment: The strain.
        geometry: The served model's geometry.
        shifts: Shift of each detector, s, whole samples, negative ones too.
        signals: Sets of signals by name, each injected into a copy of the strain of
            its own; their arrival times are those of the analysis.

    Raises:
        StrainError: A detector is missing, the sample rate is another one, or what the
            shifts leave is no longer than the warm-up.
        ShiftError: The shifts differ by no whole number of feature frames, or are
            longer than the segment.
        SignalError: The signals' sample rate or detectors are others, or a set has a
            name that the results API does not take.
    """

    segment: Segment
    geometry: Geometry
    shifts: tuple[float, ...]
    signals: Mapping[str, ProjectedSignals] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        where = f"{self.segment.source}, segment {self.segment.name}"
        geometry = self.geometry
        missing = [ifo for ifo in geometry.ifos if ifo not in self.segment.strain]
        if missing:
            raise StrainError(
                f"{where}: expected detectors {', '.join(geometry.ifos)}, found "
                f"{', '.join(self.segment.strain)}"
            )
        if self.segment.sample_rate != geometry.sample_rate:
            raise StrainError(
                f"{where}: the served model expects {geometry.sample_rate} Hz, found "
                f"{self.segment.sample_rate} Hz"
            )
        if len(self.shifts) != len(geometry.ifos):
            raise ShiftError(
                f"expected a shift for each of {', '.join(geometry.ifos)}, found "
                f"{self.shifts}"
            )
        for shift in self.shifts:
            frames = (shift - min(self.shifts)) * geometry.sample_rate
            if frames % geometry.frame_size:
                raise ShiftError(
                    "expected shifts that differ by whole feature frames of "
                    f"{geometry.frame_size / geometry.sample_rate:g} s, found "
                    f"{self.shifts} s"
                )
        if self.size <= 0:
            raise ShiftError(
                f"{where}: the shifts {self.shifts} s are longer than its "
                f"{self.segment.duration:g} s"
            )
        if self.strides <= geometry.warmup_strides:
            raise StrainError(
                f"{where} at shifts {self.shifts}: {self.size / geometry.sample_rate:g}"
                f" s are left, expected at least {geometry.psd_min_length:g} s, the "
                "warm-up of the PSD"
            )
        # Made now, so that signals that do not fit are refused before anything runs.
        _ = self.foreground

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Samples of each detector's strain before the analysis begins."""
        first = min(self.shifts)
        rate = self.geometry.sample_rate
        return tuple(round((shift - first) * rate) for shift in self.shifts)

    @property
    def size(self) -> int:
        """Samples that all shifted detectors have."""
        return self.segment.size - max(self.offsets)

    @property
    def strides(self) -> int:
        """Whole strides of it, each of which gives a score."""
        return self.size // self.geometry.stride_size

    @property
    def t0_ns(self) -> int:
        """Analysis time of the first sample, GPS, integer nanoseconds."""
        return self.segment.t0_ns - round(min(self.shifts) * NANOSECONDS)

    @cached_property
    def foreground(self) -> Foreground:
        """Where the injected signals go."""
        return Foreground(self.signals, self.geometry, self.t0_ns, self.strides)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Strain of samples ``start`` to ``stop``: float32 [rows, ifos, stop - start].

        Row 0 is the strain as it is; further rows have the injections that lie there,
        see ``Foreground``, and are none where there is none. Before sample 0 there is
        strain of the detectors alone that are read later than another one; that one's
        is zero.

        Raises:
            StrainError: A sample is not finite, or a detector gives the same value for
                a whole stride, as one does that is off.
        """
        strain = np.zeros((len(self.offsets), stop - start), np.float32)
        for row, ifo, offset in zip(
            strain, self.geometry.ifos, self.offsets, strict=True
        ):
            begin, end = max(0, start + offset), max(0, stop + offset)
            row[len(row) - (end - begin) :] = self._read(ifo, begin, end)
        return self.foreground.inject(strain, start)

    def _read(self, ifo: str, begin: int, end: int) -> NDArray[Any]:
        """Samples of the segment, from a detector that is on."""
        strain = self.segment.read(ifo, begin, end)
        stride_size = self.geometry.stride_size
        whole = len(strain) // stride_size * stride_size
        strides = strain[:whole].reshape(-1, stride_size)
        dead = np.flatnonzero(strides.max(axis=1) == strides.min(axis=1))
        if len(dead):
            sample = begin + int(dead[0]) * stride_size
            raise StrainError(
                f"{self.segment.source}, segment {self.segment.name}: expected strain, "
                f"found the same value from GPS "
                f"{self.segment.time_ns(sample) / NANOSECONDS:.6f} on in {ifo}: is it "
                "off? Cut the segment there"
            )
        return strain
