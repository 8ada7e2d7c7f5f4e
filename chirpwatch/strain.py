"""Strain in gap-free segments of all detectors, and its resampling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from chirpwatch.errors import (
    StrainError,
)
from chirpwatch.hdf5 import damaged

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Segment:
    """A gap-free stretch of strain of several detectors.

    Attributes:
        t0_ns: GPS time of the first sample, integer nanoseconds.
        sample_rate: Hz.
        strain: For each detector an array or HDF5 dataset, dimensionless, [size].
        source: Where the strain came from, for messages and reports.
        simulated: Whether the strain is simulated.

    Raises:
        StrainError: There is no strain, or the detectors differ in length.
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
        """Samples of each detector."""
        return len(next(iter(self.strain.values())))

    @property
    def duration(self) -> float:
        """Length, s."""
        return self.size / self.sample_rate

    @property
    def name(self) -> str:
        """``{t0}-{duration}`` in seconds, the name of the segment in its file."""
        duration_ns = self.size * NANOSECONDS // self.sample_rate
        return f"{decimal_seconds(self.t0_ns)}-{decimal_seconds(duration_ns)}"

    def time_ns(self, sample: int) -> int:
        """GPS time of a sample's start, integer nanoseconds."""
        return self.t0_ns + sample * NANOSECONDS // self.sample_rate

    def read(self, ifo: str, start: int, stop: int) -> NDArray[Any]:
        """Samples ``start`` to ``stop`` of one detector.

        Returns:
            Strain, float32, [stop - start].

        Raises:
            StrainError: The detector is missing, the range leaves the segment, or a
                sample is not finite.
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
        # What overflows is reported below.
        with damaged(where), np.errstate(over="ignore"):
            data = np.asarray(self.strain[ifo][start:stop], dtype=np.float32)
        if not np.isfinite(data).all():
            first = start + int(np.argmin(np.isfinite(data)))
            raise StrainError(
                f"{self.source}, segment {self.name}: expected finite strain, found "
                f"{self.strain[ifo][first]} in {ifo} at GPS "
                f"{self.time_ns(first) / NANOSECONDS:.6f}; cut the segment there"
            )
        return data


def resample(data: NDArray[Any], rate: float, wanted: int, ifo: str) -> NDArray[Any]:
    """Strain at a lower rate, through a zero-phase polyphase filter.

    The filter reaches 10 samples of the wanted rate to either side; that many at each
    end follow from a straight line through the ends, in place of data.

    Args:
        data: Strain, [size].
        rate: Its rate, Hz.
        wanted: The rate wanted, Hz.
        ifo: The detector, for messages.

    Raises:
        StrainError: The rate is lower than that wanted, or no whole number.
    """
    if rate == wanted:
        return data
    if rate % 1 or rate < wanted:
        raise StrainError(
            f"detector {ifo}: expected a whole sample rate of at least {wanted} Hz, "
            f"found {rate:g} Hz"
        )
    common = math.gcd(round(rate), wanted)
    resampled: NDArray[Any] = signal.resample_poly(
        data, wanted // common, round(rate) // common, padtype="line"
    )
    return resampled


def decimal_seconds(time_ns: int) -> str:
    """Seconds, with as many decimals as it takes."""
    whole, rest = divmod(time_ns, NANOSECONDS)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
