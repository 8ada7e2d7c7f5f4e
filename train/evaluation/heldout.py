"""Further noise and glitches for validation, other than the training's noise curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import (
    read_curve,
    spectrum_size,
)
from chirpwatch.train.data.noise.sources import StretchSource
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.recorded import RecordedStretches

MIN_FREQUENCY = 10
"""Measured spectra are continued as flat below this frequency, Hz.

Ground motion dominates there, and the highpass removes it.
"""


@dataclass(frozen=True)
class OtherNoise:
    """A kind of noise, with glitches, to validate a network in.

    Attributes:
        name: Name in reports.
        sources: Strain of each detector; if None, Gaussian noise of the run's noise
            curves.
        run: Observing run of the noise curves.
        glitches: Recorded glitches from ``read_glitches``, [n, size]; analytic
            glitches if None.
        glitch_weights: Relative frequency of each family of analytic glitches, see
            ``families.FAMILIES``; the training's if None.
    """

    name: str
    sources: Mapping[str, StretchSource] | None = None
    run: str = "O3"
    glitches: Tensor | None = None
    glitch_weights: dict[str, float] | None = None


def strain_noise(path: str | Path, geometry: Geometry) -> OtherNoise:
    """Recorded strain of a background file's test split.

    Raises:
        StrainError: The split is missing or cannot be used, see
            ``RecordedStretches``.
    """
    sources = {
        ifo: RecordedStretches(path, "test", ifo, geometry) for ifo in geometry.ifos
    }
    return OtherNoise(f"strain of {Path(path).name}", sources)


def curve_noise(curve: str, geometry: Geometry) -> OtherNoise:
    """Gaussian noise of published noise curves.

    Args:
        curve: Observing run, such as ``O4``, for each detector's first curve in
            ``curves.curve_names``; or run and curve, such as ``O3/T1800545-low``.
        geometry: Detectors and their sample rate.

    Raises:
        StrainError: The curve does not exist.
        ConfigurationError: The curve ends below half the sample rate.
    """
    (run, _, name), rate = curve.partition("/"), geometry.sample_rate
    sources = {
        ifo: SpectrumStretches(
            [read_curve(run, ifo, name=name or None, sample_rate=rate)], rate
        )
        for ifo in geometry.ifos
    }
    return OtherNoise(f"{curve} curves", sources, run)


class SpectrumStretches:
    """Gaussian noise whose spectrum is drawn uniformly from a set.

    Args:
        asds: Amplitude spectral densities at evenly spaced frequencies from 0 to
            ``sample_rate / 2``, 1/sqrt(Hz), each [bins].
        sample_rate: Hz.
    """

    def __init__(self, asds: Sequence[NDArray[Any]], sample_rate: int) -> None:
        self.asds, self.sample_rate = asds, sample_rate

    @classmethod
    def of_folder(cls, folder: str | Path, ifo: str, sample_rate: int) -> Self:
        """Noise with the measured spectra in a folder.

        Args:
            folder: Folder with a subfolder for each detector. Its HDF5 files hold
                ``data``, a power spectral density from 0 Hz, 1/Hz, with the attribute
                ``delta_f``, Hz.
            ifo: Detector.
            sample_rate: Hz.

        Raises:
            StrainError: The detector has no file, or a file's layout or frequency
                range is not as expected.
        """
        paths = sorted((Path(folder) / ifo).glob("*.hdf*"))
        if not paths:
            raise StrainError(
                f"{Path(folder) / ifo}: expected HDF5 files of spectra (*.hdf*), found "
                "none"
            )
        return cls([_read_spectrum(path, sample_rate) for path in paths], sample_rate)

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch of noise and its ASD, see ``StretchSource.draw``."""
        asd = self.asds[rng.integers(len(self.asds))]
        return coloured_noise(asd, size, self.sample_rate, rng), asd


def _read_spectrum(path: Path, sample_rate: int) -> NDArray[Any]:
    """Read a PSD as an ASD at the noise curves' frequencies, 1/sqrt(Hz), [bins]."""
    try:
        with h5py.File(path, "r") as file:
            psd = file["data"][()].astype(np.float64)
            step = float(file["data"].attrs["delta_f"])
    except (OSError, KeyError) as error:
        raise StrainError(
            f"{path}: expected a spectrum (dataset 'data' with the attribute "
            f"'delta_f'): {error}"
        ) from None
    frequencies = step * np.arange(len(psd))
    used = frequencies >= MIN_FREQUENCY
    complete = frequencies[-1] + step >= sample_rate / 2
    if not complete or not (psd[used] > 0).all() or not np.isfinite(psd[used]).all():
        raise StrainError(
            f"{path}: expected finite positive values from {MIN_FREQUENCY} to "
            f"{sample_rate // 2} Hz, found {len(psd)} values to {frequencies[-1]:g} Hz"
        )
    grid = np.linspace(0, sample_rate / 2, spectrum_size(sample_rate))
    asd: NDArray[Any] = np.exp(
        0.5 * np.interp(grid, frequencies[used], np.log(psd[used]))
    )
    return asd


def read_glitches(path: str | Path, sample_rate: int, kernel_size: int) -> Tensor:
    """Read whitened strain with recorded glitches.

    Args:
        path: HDF5 file with the dataset ``glitches``, whitened strain in units of the
            noise's standard deviation with the glitch in the middle, [n, size], and
            the file attribute ``sample_rate``, Hz.
        sample_rate: Expected sample rate, Hz.
        kernel_size: Samples of a kernel.

    Returns:
        The two kernels around each glitch's centre, float32, [n, 2 * kernel_size].

    Raises:
        StrainError: The file is missing, or its layout, sample rate or length is not
            as expected.
    """
    try:
        with h5py.File(path, "r") as file:
            rate, series = file.attrs["sample_rate"], file["glitches"][()]
    except (OSError, KeyError) as error:
        raise StrainError(
            f"{path}: expected whitened glitches (dataset 'glitches', file attribute "
            f"'sample_rate'): {error}"
        ) from None
    long_enough = series.ndim == 2 and series.shape[1] >= 2 * kernel_size
    if rate != sample_rate or not long_enough or not np.isfinite(series).all():
        raise StrainError(
            f"{path}: expected finite glitches [n, {2 * kernel_size} or more] at "
            f"{sample_rate} Hz, found the shape {series.shape} at {rate:g} Hz"
        )
    center = series.shape[1] // 2
    cut = series[:, center - kernel_size : center + kernel_size]
    return torch.from_numpy(cut).float()
