"""Strain at the rate of the analysis, second by second."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from chirpwatch.errors import StrainError

HALF_LENGTH = 10
"""Samples of the result that the filter reaches to either side, as SciPy's
`resample_poly` has it by default, which recorded strain is resampled with."""

HELD_BACK = 16
"""Samples of the result that wait for the next second: the filter needs most of them,
and so many are a whole number of nanoseconds at 2048 Hz."""


@dataclass
class Decimator:
    """Takes whole seconds of gap-free strain and gives it at a lower rate.

    The samples are those of ``strain.resample``, to rounding. Where the rates differ,
    the newest `HELD_BACK` samples come with the next second, and those of the first
    second before `skipped` never: so that the end of what came lies a whole stride
    after the first sample.

    Attributes:
        wanted: Rate of the result, Hz.
        stride_size: Samples of the result in a stride.
    """

    wanted: int
    stride_size: int
    _rate: int | None = None
    _taps: NDArray[Any] = field(default_factory=lambda: np.ones(1))
    _kept: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def skipped(self) -> int:
        """Samples of the result before its first one, once the rate is known."""
        same = self._rate is None or self._rate == self.wanted
        return 0 if same else self.stride_size - HELD_BACK

    def push(self, strain: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Take the next second of each detector.

        Args:
            strain: For each detector [rate].

        Returns:
            What is new of the result, float32 [detectors, samples]: whole strides.

        Raises:
            StrainError: A rate that is no multiple of the wanted one, or changed.
        """
        (rate, *others) = [len(one) for one in strain]
        if others.count(rate) != len(others) or (self._rate or rate) != rate:
            raise StrainError(
                f"expected strain of {self._rate or rate} Hz from each detector, found "
                f"{', '.join(str(len(one)) for one in strain)} Hz"
            )
        factor, rest = divmod(rate, self.wanted)
        if rest or not factor:
            raise StrainError(
                f"expected strain at a multiple of {self.wanted} Hz, found {rate} Hz"
            )
        if factor == 1:
            self._rate = rate
            whole: NDArray[Any] = np.stack(strain).astype(np.float32)
            return whole
        half = HALF_LENGTH * factor
        data = np.stack(strain)
        if self._rate is None:
            self._rate = rate
            self._taps = signal.firwin(2 * half + 1, 1 / factor, window=("kaiser", 5.0))
            begin = self.skipped * factor - half
            count = self.wanted - HELD_BACK - self.skipped
        else:
            data = np.concatenate([self._kept, data], axis=1)
            begin, count = 0, self.wanted
        self._kept = data[:, -(half + HELD_BACK * factor) :]
        # Of what the filter gives, the first that lies wholly within the data.
        result = signal.upfirdn(self._taps, data[:, begin:], 1, factor, axis=1)
        lead = 2 * HALF_LENGTH
        found: NDArray[Any] = result[:, lead : lead + count].astype(np.float32)
        return found
