"""Published noise curves of the detectors, on one frequency grid.

``python -m train.data.curves OUT DETECTOR:RUN=FILE…`` makes the shipped file from
arrays [2, n] of frequencies (Hz) and amplitude spectral densities (1/sqrt(Hz)). That
one holds H1 and L1 in O3 and O4, from the package cogwheel-pe 1.6.0
(``data/example_asds/asd_{H,L}_{O3,O4}.npy``, GPL-3.0-or-later).
"""

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import h5py
import numpy as np

from chirpwatch.atomic import replacing
from chirpwatch.errors import StrainError

MAX_FREQUENCY = 1024.0
SPACING = 0.5
SOURCE = "cogwheel-pe 1.6.0, data/example_asds, GPL-3.0-or-later"


def shipped_path() -> Path:
    """Path of the noise curves that come with the project."""
    return Path(str(resources.files("chirpwatch") / "data" / "noise_curves.hdf5"))


def read_curve(run: str, ifo: str, path: str | Path | None = None) -> np.ndarray:
    """Read one detector's noise curve.

    Args:
        run: Observing run, such as ``O3``.
        ifo: Detector, such as ``H1``.
        path: File of noise curves; the shipped one if None.

    Returns:
        Amplitude spectral density, 1/sqrt(Hz), float64, [2049]: at 0, 0.5, …, 1024 Hz.

    Raises:
        StrainError: The file has no such curve.
    """
    path = Path(path) if path else shipped_path()
    if not path.exists():
        raise StrainError(f"{path}: no such file of noise curves")
    with h5py.File(path, "r") as file:
        if f"{run}/{ifo}" not in file:
            found = [f"{name}/{key}" for name in file for key in file[name]]
            raise StrainError(
                f"{path}: expected the noise curve {run}/{ifo}, found "
                f"{', '.join(found) or 'none'}"
            )
        asd: np.ndarray = file[f"{run}/{ifo}"][()].astype(np.float64)
    return asd


def regrid(frequencies: np.ndarray, asd: np.ndarray) -> np.ndarray:
    """Average a curve in power onto the grid, and extend it flat beyond its ends.

    Args:
        frequencies: Hz, increasing, finer than the grid, [n].
        asd: Amplitude spectral density, [n].

    Returns:
        Amplitude spectral density on 0, 0.5, …, 1024 Hz, [2049].
    """
    grid = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    # Rounding halves to even would give bins of two widths in turn.
    bins = np.floor(frequencies / SPACING + 0.5).astype(int)
    inside = bins < len(grid)
    counts = np.bincount(bins[inside], minlength=len(grid))
    power = np.bincount(bins[inside], weights=asd[inside] ** 2, minlength=len(grid))
    known = counts > 0
    mean = power[known] / counts[known]
    return np.sqrt(np.interp(grid, grid[known], mean))


def write_curves(path: str | Path, files: Mapping[str, str | Path]) -> None:
    """Write a file of noise curves.

    Args:
        path: The file; it appears whole or not at all.
        files: For each ``DETECTOR:RUN`` an array file [2, n], see the module.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["source"] = SOURCE
        file.attrs["frequencies"] = f"0 to {MAX_FREQUENCY:g} Hz, step {SPACING:g} Hz"
        for name, source in files.items():
            ifo, run = name.split(":")
            frequencies, asd = np.load(source)
            dataset = file.create_dataset(
                f"{run}/{ifo}",
                data=regrid(frequencies, asd).astype(np.float32),
                compression="gzip",
                shuffle=True,
            )
            dataset.attrs["file"] = Path(source).name
            dataset.attrs["unit"] = "1/sqrt(Hz)"


if __name__ == "__main__":
    write_curves(
        sys.argv[1],
        dict(pair.split("=", 1) for pair in sys.argv[2:]),
    )
