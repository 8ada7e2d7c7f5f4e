"""Noise and glitches to judge a network by beside those of O3's curves."""

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

LEAST_FREQUENCY = 10
"""Below this a measured spectrum is taken as flat, Hz: ground motion, never used."""


@dataclass(frozen=True)
class OtherNoise:
    """Noise that a network is judged by beside that of the training's curves.

    Attributes:
        name: What reports call it.
        sources: Strain of each detector; the noise curves of ``run`` if None.
        run: Observing run whose curves are used then.
        glitches: Recorded ones, from ``read_glitches``, in place of analytic ones.
        glitch_weights: Families of analytic glitches, see
            ``families.FAMILIES``; those of the training if None.
    """

    name: str
    sources: Mapping[str, StretchSource] | None = None
    run: str = "O3"
    glitches: Tensor | None = None
    glitch_weights: dict[str, float] | None = None


def strain_noise(path: str | Path, geometry: Geometry) -> OtherNoise:
    """The strain of a background file's test split.

    Raises:
        StrainError: There is none that can be used, see
            ``RecordedStretches``.
    """
    sources = {
        ifo: RecordedStretches(path, "test", ifo, geometry) for ifo in geometry.ifos
    }
    return OtherNoise(f"strain of {Path(path).name}", sources)


def curve_noise(curve: str, geometry: Geometry) -> OtherNoise:
    """Gaussian noise of published curves.

    Args:
        curve: An observing run for the first curve of each detector in
            ``curves.curve_names``, such as ``O4``; or one curve by its name, such as
            ``O3/T1800545-low``.
        geometry: Detectors and their sample rate.

    Raises:
        StrainError: There is no such curve.
        ConfigurationError: It ends below half the sample rate.
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
    """Gaussian noise of given spectra, each of them as likely.

    Args:
        asds: Amplitude spectral densities at evenly spaced frequencies from 0 to
            ``sample_rate / 2``, 1/sqrt(Hz), each [bins].
        sample_rate: Hz.
    """

    def __init__(self, asds: Sequence[NDArray[Any]], sample_rate: int) -> None:
        self.asds, self.sample_rate = asds, sample_rate

    @classmethod
    def of_folder(cls, folder: str | Path, ifo: str, sample_rate: int) -> Self:
        """Noise of measured spectra.

        Args:
            folder: Holds a folder for each detector, and in it HDF5 files with
                ``data``, a power spectral density, 1/Hz, from 0 Hz, and its attribute
                ``delta_f``.
            ifo: Detector.
            sample_rate: Hz.

        Raises:
            StrainError: There is no such file, or one is of another layout or too
                coarse.
        """
        paths = sorted((Path(folder) / ifo).glob("*.hdf*"))
        if not paths:
            raise StrainError(
                f"{Path(folder) / ifo}: expected HDF5 files of spectra, found none"
            )
        return cls([_read_spectrum(path, sample_rate) for path in paths], sample_rate)

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch, see ``StretchSource.draw``."""
        asd = self.asds[rng.integers(len(self.asds))]
        return coloured_noise(asd, size, self.sample_rate, rng), asd


def _read_spectrum(path: Path, sample_rate: int) -> NDArray[Any]:
    """Amplitude spectral density on the grid of the published curves, [bins]."""
    try:
        with h5py.File(path, "r") as file:
            psd = file["data"][()].astype(np.float64)
            step = float(file["data"].attrs["delta_f"])
    except (OSError, KeyError) as error:
        raise StrainError(
            f"{path}: expected a spectrum ('data' with 'delta_f'): {error}"
        ) from None
    frequencies = step * np.arange(len(psd))
    used = frequencies >= LEAST_FREQUENCY
    reach = frequencies[-1] + step >= sample_rate / 2
    if not reach or not (psd[used] > 0).all() or not np.isfinite(psd[used]).all():
        raise StrainError(
            f"{path}: expected a finite spectrum above zero from {LEAST_FREQUENCY} to "
            f"{sample_rate // 2} Hz, found {len(psd)} values to {frequencies[-1]:g} Hz"
        )
    grid = np.linspace(0, sample_rate / 2, spectrum_size(sample_rate))
    asd: NDArray[Any] = np.exp(
        0.5 * np.interp(grid, frequencies[used], np.log(psd[used]))
    )
    return asd


def read_glitches(path: str | Path, sample_rate: int, kernel_size: int) -> Tensor:
    """Read recorded glitches, whitened, with the noise that they came in.

    Args:
        path: HDF5 file with ``glitches``, [n, size], in units of the noise's standard
            deviation, each in the middle of its series, and the file's attribute
            ``sample_rate``.
        sample_rate: Hz.
        kernel_size: Samples of a kernel.

    Returns:
        The kernel before and the kernel after each middle, float32,
        [n, 2 * kernel_size].

    Raises:
        StrainError: No such file, another layout or rate, or series too short.
    """
    try:
        with h5py.File(path, "r") as file:
            rate, series = file.attrs["sample_rate"], file["glitches"][()]
    except (OSError, KeyError) as error:
        raise StrainError(
            f"{path}: expected whitened glitches ('glitches', 'sample_rate'): {error}"
        ) from None
    wide = series.ndim == 2 and series.shape[1] >= 2 * kernel_size
    if rate != sample_rate or not wide or not np.isfinite(series).all():
        raise StrainError(
            f"{path}: expected finite glitches [n, {2 * kernel_size} or more] at "
            f"{sample_rate} Hz, found the shape {series.shape} at {rate:g} Hz"
        )
    middle = series.shape[1] // 2
    cut = series[:, middle - kernel_size : middle + kernel_size]
    return torch.from_numpy(cut).float()
