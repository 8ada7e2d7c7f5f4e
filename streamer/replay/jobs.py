"""A job of a replay: a segment at given shifts, with or without injection sets."""

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
class SequenceJob:
    """A segment that is scored as a single sequence of requests.

    At analysis time *t*, a detector with shift *s* provides its strain at *t + s*. Only
    the time that all shifted detectors cover is analysed, without wrapping around or
    padding. Each detector is whitened as at zero-lag: its PSD includes its strain from
    before the analysis begins.

    Attributes:
        segment: The strain.
        geometry: The served model's geometry.
        shifts: Shift of each detector, s, a whole number of samples; may be negative.
        signals: Injection sets by name, each injected into its own copy of the strain
            at analysis times.

    Raises:
        StrainError: A detector is missing, the sample rate differs from the geometry's,
            or the strain left by the shifts is shorter than the warm-up.
        ShiftError: The number of shifts is wrong, they do not differ by whole feature
            frames, or they are longer than the segment.
        SignalError: See ``Foreground``.
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
            shift_size = (shift - min(self.shifts)) * geometry.sample_rate
            if shift_size % geometry.frame_size:
                raise ShiftError(
                    "expected shifts that differ by whole feature frames of "
                    f"{geometry.frame_size / geometry.sample_rate:g} s, found "
                    f"{self.shifts} s"
                )
        if self.size <= 0:
            raise ShiftError(
                f"{where}: expected shifts that differ by less than its "
                f"{self.segment.duration:g} s, found {self.shifts} s"
            )
        if self.strides <= geometry.warmup_strides:
            raise StrainError(
                f"{where} at shifts {self.shifts} s: expected at least "
                f"{geometry.psd_min_length:g} s that all detectors cover, the warm-up "
                f"of the PSD, found {self.size / geometry.sample_rate:g} s"
            )
        # Built now, so that invalid signals are refused before anything runs.
        _ = self.foreground

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Number of samples of each detector's strain before the analysis begins."""
        first = min(self.shifts)
        rate = self.geometry.sample_rate
        return tuple(round((shift - first) * rate) for shift in self.shifts)

    @property
    def size(self) -> int:
        """Number of samples that all shifted detectors cover."""
        return self.segment.size - max(self.offsets)

    @property
    def strides(self) -> int:
        """Number of whole strides, each with a score."""
        return self.size // self.geometry.stride_size

    @property
    def t0_ns(self) -> int:
        """Analysis time of the first sample, GPS ns."""
        return self.segment.t0_ns - round(min(self.shifts) * NANOSECONDS)

    @cached_property
    def foreground(self) -> Foreground:
        """The injected signals, placed in rows of the requests."""
        return Foreground(self.signals, self.geometry, self.t0_ns, self.strides)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Strain of samples ``start`` to ``stop``, with the rows of ``Foreground``.

        Before sample 0, only detectors that are shifted against the earliest one have
        strain; the others are zero.

        Returns:
            float32 [rows, ifos, stop - start]; row 0 is without injections.

        Raises:
            StrainError: A sample is not finite, or a detector has a constant value for
                a whole stride, as when it is off.
        """
        strain = np.zeros((len(self.offsets), stop - start), np.float32)
        for row, ifo, offset in zip(
            strain, self.geometry.ifos, self.offsets, strict=True
        ):
            begin, end = max(0, start + offset), max(0, stop + offset)
            row[len(row) - (end - begin) :] = self._read(ifo, begin, end)
        return self.foreground.inject(strain, start)

    def _read(self, ifo: str, begin: int, end: int) -> NDArray[Any]:
        """Read a detector's samples of the segment; refuse constant strides."""
        strain = self.segment.read(ifo, begin, end)
        stride_size = self.geometry.stride_size
        size = len(strain) // stride_size * stride_size
        strides = strain[:size].reshape(-1, stride_size)
        dead = np.flatnonzero(strides.max(axis=1) == strides.min(axis=1))
        if len(dead):
            sample = begin + int(dead[0]) * stride_size
            raise StrainError(
                f"{self.segment.source}, segment {self.segment.name}: expected strain, "
                f"found a constant value from GPS "
                f"{self.segment.time_ns(sample) / NANOSECONDS:.6f} on in {ifo}: the "
                "detector may be off; cut the segment there"
            )
        return strain
