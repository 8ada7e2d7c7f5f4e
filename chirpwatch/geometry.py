"""The one description of how strain is cut, whitened and scored."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from chirpwatch.errors import GeometryError


@dataclass(frozen=True)
class Geometry:
    """Lengths and rates that training, serving and streaming must agree on.

    Written once, at training; it travels in the checkpoint, in the ONNX metadata and
    in the served models' parameters, and the streamer reads it from the server.

    Attributes:
        ifos: Detectors, in the order of every array's detector axis.
        sample_rate: Rate of the strain, Hz.
        kernel_length: Whitened data that one score looks at, s.
        inference_sampling_rate: Scores per second, Hz.
        frame_size: Samples between two feature frames of the network's frontend.
        psd_length: Most data that one PSD is made of, s.
        psd_min_length: Least data that one PSD is made of, s; scores are valid from
            here on.
        psd_refresh_length: Spacing of the grid, counted from the sequence's start,
            on which the PSD is made anew, s; at least twice ``fftlength``.
        fftlength: Length of one periodogram of the PSD, s; they overlap by half.
        fduration: Length of the whitening filter, s.
        highpass: Frequency below which the whitening filter passes nothing, Hz.

    Raises:
        GeometryError: A length is not a whole number of samples, or two of them
            contradict each other.
    """

    ifos: tuple[str, ...] = ("H1", "L1")
    sample_rate: int = 2048
    kernel_length: float = 1.0
    inference_sampling_rate: float = 8.0
    frame_size: int = 32
    psd_length: float = 64.0
    psd_min_length: float = 8.0
    psd_refresh_length: float = 8.0
    fftlength: float = 2.0
    fduration: float = 1.0
    highpass: float = 32.0

    def __post_init__(self) -> None:
        if not self.ifos or len(set(self.ifos)) != len(self.ifos):
            raise GeometryError(f"ifos: expected distinct detectors, found {self.ifos}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float):
                if not isinstance(value, int | float) or not math.isfinite(value):
                    raise GeometryError(
                        f"{field.name}: expected a number, found {value}"
                    )
                # Equal geometries have equal JSON: 32 s are 32.0 s, 2048.0 Hz 2048 Hz.
                if field.type is int and value != int(value):
                    raise GeometryError(
                        f"{field.name}: expected a whole number, found {value}"
                    )
                object.__setattr__(self, field.name, field.type(value))
        if self.inference_sampling_rate <= 0 or self.sample_rate <= 0:
            raise GeometryError(f"expected rates above 0 Hz, found {self}")
        for name in (
            "kernel_length",
            "psd_length",
            "psd_min_length",
            "psd_refresh_length",
            "fftlength",
            "fduration",
        ):
            self._size(name, getattr(self, name))
        stride_size = self._size("1 / inference_sampling_rate", self.stride_length)
        checks = {
            "stride must be a multiple of frame_size": (
                self.frame_size > 0 and stride_size % self.frame_size == 0
            ),
            "kernel_length must be a multiple of the stride": (
                self.kernel_size % stride_size == 0
            ),
            "psd_refresh_length must be a multiple of the stride": (
                self.psd_refresh_size % stride_size == 0
            ),
            # Then a PSD has an odd number of periodograms, and its median is one.
            "psd_refresh_length must be a multiple of fftlength": (
                self.psd_refresh_size % self.fft_size == 0
            ),
            # The mean of 1/PSD is infinite for one periodogram.
            "psd_refresh_length must be at least twice fftlength": (
                self.psd_refresh_size >= 2 * self.fft_size
            ),
            "psd_min_length must be psd_refresh_length": (
                self.psd_min_size == self.psd_refresh_size
            ),
            "psd_length must be a multiple of psd_refresh_length": (
                self.psd_size % self.psd_refresh_size == 0
            ),
            # Periodograms overlap by half.
            "fftlength must be an even number of samples": self.fft_size % 2 == 0,
            "fduration must not exceed fftlength": self.filter_size <= self.fft_size,
            "psd_refresh_length must cover the kernel and the filter": (
                self.psd_refresh_size >= self.kernel_size + self.filter_size
            ),
            "a frequency of the PSD must lie between highpass and Nyquist": (
                self.highpass >= 0
                and math.ceil(self.highpass * self.fftlength) < self.fft_size // 2
            ),
        }
        for rule, kept in checks.items():
            if not kept:
                raise GeometryError(f"{rule}; found {self}")

    def _size(self, name: str, length: float) -> int:
        size = length * self.sample_rate
        if size != round(size) or size <= 0:
            raise GeometryError(
                f"{name}: expected a positive whole number of samples at "
                f"{self.sample_rate} Hz, found {length} s = {size} samples"
            )
        return round(size)

    @property
    def stride_length(self) -> float:
        """Time between two scores, s."""
        return 1 / self.inference_sampling_rate

    @property
    def stride_ns(self) -> int:
        """Time between two scores, ns."""
        return round(self.stride_length * 1_000_000_000)

    @property
    def stride_size(self) -> int:
        """Samples between two scores."""
        return round(self.sample_rate / self.inference_sampling_rate)

    @property
    def kernel_size(self) -> int:
        """Whitened samples that one score looks at."""
        return round(self.kernel_length * self.sample_rate)

    @property
    def psd_size(self) -> int:
        """Most samples that one PSD is made of."""
        return round(self.psd_length * self.sample_rate)

    @property
    def psd_min_size(self) -> int:
        """Least samples that one PSD is made of."""
        return round(self.psd_min_length * self.sample_rate)

    @property
    def psd_refresh_size(self) -> int:
        """Samples between two PSDs."""
        return round(self.psd_refresh_length * self.sample_rate)

    @property
    def fft_size(self) -> int:
        """Samples of one periodogram."""
        return round(self.fftlength * self.sample_rate)

    @property
    def filter_size(self) -> int:
        """Taps of the whitening filter; its output lags by half of them."""
        return round(self.fduration * self.sample_rate)

    @property
    def max_segments(self) -> int:
        """Periodograms in a full PSD."""
        return 2 * (self.psd_size - self.fft_size) // self.fft_size + 1

    @property
    def warmup_strides(self) -> int:
        """Strides at the start of a sequence whose scores are not valid."""
        return -(-self.psd_min_size // self.stride_size) - 1

    def to_json(self) -> str:
        """Canonical JSON: equal geometries give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what ``to_json`` wrote.

        Raises:
            GeometryError: Not JSON, or not exactly the fields of a geometry.
        """
        try:
            values: dict[str, Any] = json.loads(text)
        except (TypeError, ValueError) as error:
            raise GeometryError(
                f"geometry is not JSON: {error}; found {text!r}"
            ) from None
        expected = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != expected:
            raise GeometryError(
                f"geometry: expected the fields {sorted(expected)}, found {text}"
            )
        return cls(**(values | {"ifos": tuple(values["ifos"])}))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of ``to_json``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
