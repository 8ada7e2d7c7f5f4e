"""Resamples live strain to the analysis's rate, second by second."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from chirpwatch.errors import StrainError

HALF_LENGTH = 10
"""Half-length of the filter in output samples: the default of SciPy's
`resample_poly`, with which recorded strain is resampled."""

HOLD_BACK_SIZE = 16
"""Output samples that wait for the next second. The filter needs `HALF_LENGTH` of them;
16 samples at 2048 Hz are a whole number of nanoseconds."""


@dataclass
class Decimator:
    """Lowers the sample rate of gap-free strain that arrives in whole seconds.

    The output equals that of ``strain.resample``, up to rounding. If the rates differ,
    the newest `HOLD_BACK_SIZE` samples are returned with the next second, and the first
    `skipped` samples are dropped, so that each output is a whole number of strides.

    Attributes:
        sample_rate: Output rate, Hz.
        stride_size: Output samples in a stride.
    """

    sample_rate: int
    stride_size: int
    _rate: int | None = None
    _taps: NDArray[Any] = field(default_factory=lambda: np.ones(1))
    _tail: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def skipped(self) -> int:
        """Output samples dropped at the start; known after the first ``push``."""
        same = self._rate is None or self._rate == self.sample_rate
        return 0 if same else self.stride_size - HOLD_BACK_SIZE

    def push(self, strain: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Take the next second of each detector.

        Args:
            strain: Strain of each detector, [rate].

        Returns:
            New output, float32 [detectors, samples], whole strides.

        Raises:
            StrainError: The rate is not a multiple of the output rate, differs between
                detectors, or changed.
        """
        (rate, *others) = [len(series) for series in strain]
        if others.count(rate) != len(others) or (self._rate or rate) != rate:
            raise StrainError(
                f"expected strain of {self._rate or rate} Hz from each detector, found "
                f"{', '.join(str(len(series)) for series in strain)} Hz"
            )
        factor, rest = divmod(rate, self.sample_rate)
        if rest or not factor:
            raise StrainError(
                f"expected strain at a multiple of {self.sample_rate} Hz, found "
                f"{rate} Hz"
            )
        if factor == 1:
            self._rate = rate
            unchanged: NDArray[Any] = np.stack(strain).astype(np.float32)
            return unchanged
        half = HALF_LENGTH * factor
        data = np.stack(strain)
        if self._rate is None:
            self._rate = rate
            self._taps = signal.firwin(2 * half + 1, 1 / factor, window=("kaiser", 5.0))
            begin = self.skipped * factor - half
            count = self.sample_rate - HOLD_BACK_SIZE - self.skipped
        else:
            data = np.concatenate([self._tail, data], axis=1)
            begin, count = 0, self.sample_rate
        self._tail = data[:, -(half + HOLD_BACK_SIZE * factor) :]
        # The first `lead` output samples of the filter reach beyond the data.
        filtered = signal.upfirdn(self._taps, data[:, begin:], 1, factor, axis=1)
        lead = 2 * HALF_LENGTH
        output: NDArray[Any] = filtered[:, lead : lead + count].astype(np.float32)
        return output
