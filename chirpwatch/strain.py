"""Strain segments, which are free of gaps in all detectors, and resampling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from chirpwatch.errors import StrainError
from chirpwatch.hdf5 import report_damage

NANOSECONDS = 1_000_000_000
"""Nanoseconds per second."""


@dataclass(frozen=True)
class Segment:
    """Gap-free strain from several detectors over the same time.

    Attributes:
        t0_ns: GPS time of the first sample, integer nanoseconds.
        sample_rate: Sample rate, Hz.
        strain: Array or HDF5 dataset for each detector, dimensionless, [size].
        source: File or other origin of the strain, for messages and reports.
        simulated: Whether the strain is simulated.

    Raises:
        StrainError: There are no samples, or the detectors differ in length.
    """

    t0_ns: int
    sample_rate: int
    strain: Mapping[str, Any] = field(repr=False)
    source: str = "memory"
    simulated: bool = False

    def __post_init__(self) -> None:
        sizes = {ifo: len(data) for ifo, data in self.strain.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise StrainError(
                f"{self.source}: expected the same number of samples, at least one, "
                f"from each detector, found {sizes}"
            )

    @property
    def size(self) -> int:
        """Number of samples from each detector."""
        return len(next(iter(self.strain.values())))

    @property
    def duration(self) -> float:
        """Length, s."""
        return self.size / self.sample_rate

    @property
    def name(self) -> str:
        """Name in background and signal files: ``{t0}-{duration}``, in seconds."""
        duration_ns = self.size * NANOSECONDS // self.sample_rate
        return f"{decimal_seconds(self.t0_ns)}-{decimal_seconds(duration_ns)}"

    def time_ns(self, sample: int) -> int:
        """GPS time of the sample with a given index, integer nanoseconds."""
        return self.t0_ns + sample * NANOSECONDS // self.sample_rate

    def read(self, ifo: str, start: int, stop: int) -> NDArray[Any]:
        """Read one detector's samples from index ``start`` up to, excluding, ``stop``.

        Returns:
            Strain, dimensionless, float32, [stop - start].

        Raises:
            StrainError: The detector is missing, the range is not within the segment,
                a sample is not finite in float32, or the file is damaged.
        """
        if ifo not in self.strain:
            raise StrainError(
                f"{self.source}, segment {self.name}: expected detector {ifo}, "
                f"found {', '.join(self.strain)}"
            )
        if not 0 <= start <= stop <= self.size:
            raise StrainError(
                f"{self.source}, segment {self.name}: samples {start} to {stop} of "
                f"{ifo} lie outside its {self.size} samples"
            )
        where = f"{self.source}, segment {self.name}, {ifo}"
        # Values that overflow float32 become infinite, and are reported below.
        with report_damage(where), np.errstate(over="ignore"):
            data = np.asarray(self.strain[ifo][start:stop], dtype=np.float32)
        if not np.isfinite(data).all():
            first = start + int(np.argmin(np.isfinite(data)))
            raise StrainError(
                f"{self.source}, segment {self.name}: expected finite strain, found "
                f"{self.strain[ifo][first]} in {ifo} at GPS "
                f"{self.time_ns(first) / NANOSECONDS:.6f}; cut the segment there"
            )
        return data


def resample(
    data: NDArray[Any], rate: float, target_rate: int, ifo: str
) -> NDArray[Any]:
    """Downsample strain with a zero-phase polyphase filter.

    The filter extends 10 output samples to either side. So the first and last 10 output
    samples are corrupted: the data are extended there by the straight line through
    their first and last sample.

    Args:
        data: Strain, dimensionless, [size].
        rate: Sample rate of the data, Hz.
        target_rate: Sample rate to return, Hz.
        ifo: The detector, for messages.

    Returns:
        Strain at ``target_rate``, dimensionless; ``data`` itself if the rates agree.

    Raises:
        StrainError: ``rate`` is lower than ``target_rate``, or not a whole number.

    Source: ``scipy.signal.resample_poly``.
    """
    if rate == target_rate:
        return data
    if rate % 1 or rate < target_rate:
        raise StrainError(
            f"detector {ifo}: expected strain at a whole number of Hz, at least "
            f"{target_rate} Hz, found {rate:g} Hz"
        )
    common = math.gcd(round(rate), target_rate)
    resampled: NDArray[Any] = signal.resample_poly(
        data, target_rate // common, round(rate) // common, padtype="line"
    )
    return resampled


def decimal_seconds(time_ns: int) -> str:
    """Format nanoseconds as decimal seconds without trailing zeros, such as ``0.5``."""
    seconds, rest = divmod(time_ns, NANOSECONDS)
    return f"{seconds}.{rest:09d}".rstrip("0").rstrip(".")
