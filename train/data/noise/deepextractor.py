"""Recorded glitches from the example of the package deepextractor.

``python -m chirpwatch.train.data.noise.deepextractor GLITCH_DICT OUT`` converts
``deepextractor/assets/glitch_dict_example.pkl`` of deepextractor 0.1.4 (Dooney et al.,
DOI 10.1103/s91m-c2jw; strain of O3 from GWOSC, classes by Gravity Spy) to a file for
``chirpwatch train validate --glitches``.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from chirpwatch.atomic import replacing
from chirpwatch.errors import StrainError

# Of the example: whitened strain with the glitch in the middle of 14 s, 4096 Hz.
SOURCE_RATE = 4096
CUT_LENGTH = 6.0
QUIET_LENGTH = 1.5
TAPS = 2049
PLAIN = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class PlainUnpickler(pickle.Unpickler):
    """Reads arrays and containers, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse everything but what arrays are made of."""
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return super().find_class(module, name)


def read_series(path: str | Path) -> list[NDArray[Any]]:
    """Read the whitened strain around each glitch, as it is in the file.

    Args:
        path: Pickled dictionary: run, detector, class, ``h_input``: a list of arrays.

    Raises:
        StrainError: It is no such dictionary, or holds something that could run.
    """
    try:
        with Path(path).open("rb") as file:
            content = PlainUnpickler(file).load()
        found = [np.asarray(one, float) for one in _series(content)]
    except (OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise StrainError(
            f"{path}: expected deepextractor's dictionary of glitches: {error}"
        ) from None
    least = round((CUT_LENGTH + 2) * SOURCE_RATE)
    if not found or any(one.ndim != 1 or len(one) < least for one in found):
        raise StrainError(
            f"{path}: expected arrays 'h_input' of {least} samples or more, found "
            f"{[one.shape for one in found] or 'none'}"
        )
    return found


def _series(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "h_input":
                yield from value
            else:
                yield from _series(value)


def convert(series: NDArray[Any], sample_rate: int, highpass: float) -> NDArray[Any]:
    """Bring one glitch to our rate, band and unit.

    Args:
        series: Whitened strain at ``SOURCE_RATE``, the glitch in its middle.
        sample_rate: Hz.
        highpass: Frequency below which nothing is kept, Hz.

    Returns:
        The middle 6 s, float64; the noise away from the glitch has the spread of a unit
        normal distribution.
    """
    middle, half = len(series) // 2, round((CUT_LENGTH / 2 + 1) * SOURCE_RATE)
    piece = signal.resample_poly(
        series[middle - half : middle + half], sample_rate, SOURCE_RATE
    )
    taps = signal.firwin(TAPS, highpass, fs=sample_rate, pass_zero=False)
    piece = signal.oaconvolve(piece, taps, mode="same")
    piece = piece[sample_rate:-sample_rate]
    quiet = round(QUIET_LENGTH * sample_rate)
    noise = np.concatenate([piece[:quiet], piece[-quiet:]])
    low, high = np.quantile(noise, [0.25, 0.75])
    # The quartiles of a unit normal distribution are 1.349 apart.
    scaled: NDArray[Any] = piece * (1.349 / (high - low))
    return scaled


def write_glitches(
    path: str | Path, source: str | Path, sample_rate: int, highpass: float
) -> int:
    """Convert a file.

    Args:
        path: The file to write; it appears whole or not at all.
        source: See ``read_series``.
        sample_rate: Hz.
        highpass: Hz.

    Returns:
        How many glitches there are.
    """
    glitches = [convert(one, sample_rate, highpass) for one in read_series(source)]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["glitches"] = np.stack(glitches).astype(np.float32)
        file.attrs["sample_rate"] = sample_rate
        file.attrs["source"] = "deepextractor 0.1.4, MIT; GWOSC, CC BY 4.0"
    return len(glitches)


if __name__ == "__main__":
    write_glitches(sys.argv[2], sys.argv[1], 2048, 32.0)
