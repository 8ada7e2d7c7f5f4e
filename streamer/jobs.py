"""A job: one segment at one set of shifts, with or without injections."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from api.schema import Kind
from chirpwatch.errors import ShiftError, SignalError, StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS, Segment
from streamer.injections import add_signals, signal_starts


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
        signals: Signals added in a second row, at analysis times; with their arrival
            times those of the analysis.

    Raises:
        StrainError: A detector is missing, the sample rate is another one, or what the
            shifts leave is no longer than the warm-up.
        ShiftError: The shifts differ by no whole number of feature frames, or are
            longer than the segment.
        SignalError: The signals' sample rate or detectors are others.
    """

    segment: Segment
    geometry: Geometry
    shifts: tuple[float, ...]
    signals: ProjectedSignals | None = field(default=None, repr=False)

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
        if self.signals is not None and (
            self.signals.sample_rate != geometry.sample_rate
            or self.signals.ifos != geometry.ifos
        ):
            raise SignalError(
                f"expected signals of {', '.join(geometry.ifos)} at "
                f"{geometry.sample_rate} Hz, found {', '.join(self.signals.ifos)} at "
                f"{self.signals.sample_rate} Hz"
            )

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

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the results API calls each row of the scores."""
        first: Kind = "background" if any(self.offsets) else "zero_lag"
        return (first,) if self.signals is None else (first, "injections")

    @cached_property
    def _starts(self) -> np.ndarray:
        assert self.signals is not None
        return signal_starts(self.signals, self.t0_ns)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Strain of samples ``start`` to ``stop``: float32 [rows, ifos, stop - start].

        Row 0 is the strain as it is, row 1 has the injections in it. Before sample 0
        there is strain of the detectors alone that are read later than another one;
        that one's is zero.

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
        if self.signals is None:
            return strain[None]
        injected = add_signals(strain, start, self.signals, self._starts)
        return np.stack([strain, injected])

    def _read(self, ifo: str, begin: int, end: int) -> np.ndarray:
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
