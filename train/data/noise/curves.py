"""Published noise curves of the detectors, on one frequency grid.

``python -m chirpwatch.train.data.noise.curves OUT COGWHEEL BILBY`` makes the shipped
file from the unpacked packages cogwheel-pe 1.6.0 and bilby 2.8.2, and LALSimulation.
Each dataset's attributes give its source and licence. ``measured`` is the detector's
spectrum in the run, lines included; the other curves are expected sensitivities,
without most lines. There is no measured curve for Virgo in O4.
"""

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)

MAX_FREQUENCY = 1024.0
SPACING = 0.5
MEASURED = "measured"
LIGO, VIRGO = ("H1", "L1"), ("V1",)
RATE_RULE = (
    f"at most {2 * MAX_FREQUENCY:g} Hz, since the published curves end at "
    f"{MAX_FREQUENCY:g} Hz"
)


def shipped_path() -> Path:
    """Path of the noise curves that ship with the package."""
    return Path(str(resources.files("chirpwatch") / "data" / "noise_curves.hdf5"))


def spectrum_size(sample_rate: int) -> int:
    """Number of bins from 0 Hz to the Nyquist frequency at the curves' spacing.

    Args:
        sample_rate: Hz.
    """
    return round(sample_rate / 2 / SPACING) + 1


def curve_names(run: str, ifo: str, path: str | Path | None = None) -> list[str]:
    """Names of a detector's noise curves in a run, the default first.

    The default is ``measured`` if the file has it.

    Args:
        run: Observing run, such as ``O3``.
        ifo: Detector, such as ``H1``.
        path: File of noise curves; the shipped one if None.

    Raises:
        StrainError: No such file, or it has no curve for this run and detector.
    """
    with _open(path) as file:
        return _names(file, run, ifo)


def read_curve(
    run: str,
    ifo: str,
    path: str | Path | None = None,
    name: str | None = None,
    sample_rate: int = round(2 * MAX_FREQUENCY),
) -> NDArray[Any]:
    """Read a detector's noise curve up to the Nyquist frequency of a sample rate.

    Args:
        run: Observing run, such as ``O3``.
        ifo: Detector, such as ``H1``.
        path: File of noise curves; the shipped one if None.
        name: One of ``curve_names``; the first of them if None.
        sample_rate: Sample rate of the strain, Hz.

    Returns:
        One-sided amplitude spectral density, 1/sqrt(Hz), float64, [sample_rate + 1],
        at 0, 0.5, …, ``sample_rate / 2`` Hz.

    Raises:
        StrainError: No such file, or it has no such curve.
        ConfigurationError: The curve does not reach half the sample rate.
    """
    if not 0 < sample_rate <= 2 * MAX_FREQUENCY:
        raise ConfigurationError(
            f"expected a sample rate of {RATE_RULE}; found {sample_rate} Hz"
        )
    with _open(path) as file:
        name = name or _names(file, run, ifo)[0]
        key = f"{run}/{ifo}" if name == MEASURED else f"{run}/expected/{ifo}/{name}"
        values = _dataset(file, key)[: spectrum_size(sample_rate)]
        asd: NDArray[Any] = values.astype(np.float64)
    return asd


def _names(file: h5py.File, run: str, ifo: str) -> list[str]:
    expected = list(file.get(f"{run}/expected/{ifo}", {}))
    if expected and f"{run}/{ifo}" not in file:
        return expected
    _dataset(file, f"{run}/{ifo}")
    return [MEASURED, *expected]


def _open(path: str | Path | None) -> h5py.File:
    path = Path(path) if path else shipped_path()
    if not path.exists():
        raise StrainError(f"{path}: expected a file of noise curves, found no file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StrainError(f"{path}: expected an HDF5 file: {error}") from None


def _dataset(file: h5py.File, key: str) -> h5py.Dataset:
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        available = []
        for run, group in file.items():
            available += [f"{run}/{ifo}" for ifo in group if ifo != "expected"]
            for ifo, curves in group.get("expected", {}).items():
                available += [f"{run}/expected/{ifo}/{name}" for name in curves]
        raise StrainError(
            f"{file.filename}: expected the noise curve {key}, found "
            f"{', '.join(available) or 'none'}"
        )
    return dataset


def regrid(frequencies: NDArray[Any], asd: NDArray[Any]) -> NDArray[Any]:
    """Average a curve's power in the grid's bins; hold it constant beyond its ends.

    Args:
        frequencies: Hz, increasing, finer than the grid, [n].
        asd: Amplitude spectral density, [n].

    Returns:
        Amplitude spectral density at 0, 0.5, …, 1024 Hz, [2049].
    """
    grid = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    # Rounding halves to even would make the bins alternate between two widths.
    bins = np.floor(frequencies / SPACING + 0.5).astype(int)
    inside = bins < len(grid)
    counts = np.bincount(bins[inside], minlength=len(grid))
    power = np.bincount(bins[inside], weights=asd[inside] ** 2, minlength=len(grid))
    filled = counts > 0
    mean = power[filled] / counts[filled]
    return np.sqrt(np.interp(grid, grid[filled], mean))


def write_curves(path: str | Path, cogwheel: Path, bilby: Path) -> None:
    """Write the file of noise curves.

    Args:
        path: The file; it appears complete or not at all.
        cogwheel: cogwheel-pe's folder with ``asd_{H,L}_{O3,O4}.npy`` and
            ``asd_V_O3.npy``.
        bilby: bilby's folder ``noise_curves``.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["frequencies"] = f"0 to {MAX_FREQUENCY:g} Hz, step {SPACING:g} Hz"
        for run, ifo in (
            ("O3", "H1"),
            ("O3", "L1"),
            ("O3", "V1"),
            ("O4", "H1"),
            ("O4", "L1"),
        ):
            name = f"asd_{ifo[0]}_{run}.npy"
            frequencies, asd = np.load(cogwheel / name)
            _write(
                file,
                f"{run}/{ifo}",
                (frequencies, asd),
                f"cogwheel-pe 1.6.0, data/example_asds/{name}",
                "GPL-3.0-or-later",
            )
        for run, ifos, name, function in (
            ("O3", LIGO, "low", "SimNoisePSDaLIGOaLIGOO3LowT1800545"),
            ("O3", LIGO, "140Mpc", "SimNoisePSDaLIGOaLIGO140MpcT1800545"),
            ("O4", LIGO, "175Mpc", "SimNoisePSDaLIGOaLIGO175MpcT1800545"),
            ("O3", VIRGO, "low", "SimNoisePSDAdVO3LowT1800545"),
            ("O4", VIRGO, "intermediate", "SimNoisePSDAdVO4IntermediateT1800545"),
            ("O4", VIRGO, "target", "SimNoisePSDAdVO4T1800545"),
        ):
            _expected(
                file,
                run,
                ifos,
                f"T1800545-{name}",
                _lalsimulation(function),
                f"LALSimulation {function}, LIGO-T1800545",
                "GPL-2.0-or-later",
            )
        text = "aLIGO_O4_high_asd.txt"
        frequencies, asd = np.loadtxt(bilby / text, unpack=True)
        # At high frequencies its points are farther apart than the grid's.
        fine = np.arange(frequencies[0], MAX_FREQUENCY + SPACING, SPACING / 8)
        asd = np.exp(np.interp(np.log(fine), np.log(frequencies), np.log(asd)))
        source = f"bilby 2.8.2, noise_curves/{text}, LIGO-T2000012"
        _expected(file, "O4", LIGO, "T2000012-high", (fine, asd), source, "MIT")


def _lalsimulation(function: str) -> tuple[NDArray[Any], NDArray[Any]]:
    # LALSuite has no type information. Only this script needs it.
    import lal
    import lalsimulation

    spacing, lowest = SPACING / 8, 10.0
    size = round((MAX_FREQUENCY + 2) / spacing)
    series = lal.CreateREAL8FrequencySeries(
        function, lal.LIGOTimeGPS(0), 0, spacing, lal.SecondUnit, size
    )
    getattr(lalsimulation, function)(series, lowest)
    power = series.data.data
    # LALSimulation leaves zeros below the lowest frequency and in the last bin.
    filled = power > 0
    return np.arange(size)[filled] * spacing, np.sqrt(power[filled])


def _expected(
    file: h5py.File,
    run: str,
    ifos: Sequence[str],
    name: str,
    series: tuple[NDArray[Any], NDArray[Any]],
    source: str,
    licence: str,
) -> None:
    """Write an expected curve once, and link it under each detector."""
    first, *others = (f"{run}/expected/{ifo}/{name}" for ifo in ifos)
    _write(file, first, series, source, licence)
    for key in others:
        file[key] = file[first]


def _write(
    file: h5py.File,
    key: str,
    series: tuple[NDArray[Any], NDArray[Any]],
    source: str,
    licence: str,
) -> None:
    dataset = file.create_dataset(
        key,
        data=regrid(*series).astype(np.float32),
        compression="gzip",
        shuffle=True,
    )
    dataset.attrs["source"] = source
    dataset.attrs["licence"] = licence
    dataset.attrs["unit"] = "1/sqrt(Hz)"


if __name__ == "__main__":
    write_curves(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
