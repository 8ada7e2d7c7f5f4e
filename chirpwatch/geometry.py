"""The geometry of an analysis: detectors, sample rate and lengths, in one place."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from chirpwatch.errors import GeometryError


@dataclass(frozen=True)
class Geometry:
    """Lengths and rates that training, serving and streaming must agree on.

    Training sets the geometry. It is stored in the checkpoint, in the ONNX models'
    metadata and in the served models' parameters; the streamer reads it from the
    server.

    Attributes:
        ifos: Detectors, in the order of every array's detector axis.
        sample_rate: Sample rate of the strain, Hz.
        kernel_length: Length of whitened strain that one score depends on, s.
        inference_sampling_rate: Number of scores per second, Hz.
        frame_size: Samples between successive feature frames of the network's frontend.
        psd_length: Longest strain for one PSD, s.
        psd_min_length: Shortest strain for one PSD, s; no score before it is valid.
        psd_refresh_length: Time between PSD updates, counted from the start of the
            sequence, s; at least twice ``fftlength``.
        fftlength: Length of one periodogram for the PSD, s; periodograms overlap by
            half.
        fduration: Length of the whitening filter, s.
        highpass: Frequency below which the whitening filter is 0, Hz.

    Raises:
        GeometryError: A length is not a whole number of samples, or values contradict
            each other.
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
                # Equal geometries must give equal JSON: 32 becomes 32.0 for a length,
                # and 2048.0 becomes 2048 for the sample rate.
                if field.type is int and value != int(value):
                    raise GeometryError(
                        f"{field.name}: expected a whole number, found {value}"
                    )
                object.__setattr__(self, field.name, field.type(value))
        if self.inference_sampling_rate <= 0 or self.sample_rate <= 0:
            raise GeometryError(
                "sample_rate and inference_sampling_rate: expected rates above 0 Hz, "
                f"found {self.sample_rate} and {self.inference_sampling_rate} Hz"
            )
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
            # The number of periodograms is then odd, so their median is one of them.
            "psd_refresh_length must be a multiple of fftlength": (
                self.psd_refresh_size % self.fft_size == 0
            ),
            # With a single periodogram, the mean of 1 / PSD would be infinite.
            "psd_refresh_length must be at least twice fftlength": (
                self.psd_refresh_size >= 2 * self.fft_size
            ),
            "psd_min_length must equal psd_refresh_length": (
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
        """Time between successive scores, s."""
        return 1 / self.inference_sampling_rate

    @property
    def stride_ns(self) -> int:
        """Time between two scores, ns."""
        return round(self.stride_length * 1_000_000_000)

    @property
    def stride_size(self) -> int:
        """Samples between successive scores."""
        return round(self.sample_rate / self.inference_sampling_rate)

    @property
    def kernel_size(self) -> int:
        """Samples of whitened strain that one score depends on."""
        return round(self.kernel_length * self.sample_rate)

    @property
    def psd_size(self) -> int:
        """Largest number of strain samples for one PSD."""
        return round(self.psd_length * self.sample_rate)

    @property
    def psd_min_size(self) -> int:
        """Smallest number of strain samples for one PSD."""
        return round(self.psd_min_length * self.sample_rate)

    @property
    def psd_refresh_size(self) -> int:
        """Samples between PSD updates."""
        return round(self.psd_refresh_length * self.sample_rate)

    @property
    def fft_size(self) -> int:
        """Samples in one periodogram."""
        return round(self.fftlength * self.sample_rate)

    @property
    def filter_size(self) -> int:
        """Length of the whitening filter in samples; its output lags by half of it."""
        return round(self.fduration * self.sample_rate)

    @property
    def max_periodograms(self) -> int:
        """Number of periodograms in a PSD of ``psd_length``."""
        return 2 * (self.psd_size - self.fft_size) // self.fft_size + 1

    @property
    def warmup_strides(self) -> int:
        """Number of scores at the start of a sequence that are not valid."""
        return -(-self.psd_min_size // self.stride_size) - 1

    def to_json(self) -> str:
        """Return the geometry as JSON; equal geometries give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make a geometry from the JSON that ``to_json`` returns.

        Raises:
            GeometryError: The text is not JSON, does not have exactly the geometry's
                fields, or has an invalid value.
        """
        try:
            values: dict[str, Any] = json.loads(text)
        except (TypeError, ValueError) as error:
            raise GeometryError(
                f"geometry: expected JSON, found {text!r}: {error}"
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
