"""Convert the recorded glitches that come with the package deepextractor.

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

# The example has 14 s of whitened strain at 4096 Hz, the glitch in the middle.
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
    """Unpickles arrays and containers only, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class that is not part of a NumPy array.

        Raises:
            UnpicklingError: The class is another one.
        """
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(
                f"expected arrays only, found an object of {module}.{name}"
            )
        return super().find_class(module, name)


def read_series(path: str | Path) -> list[NDArray[Any]]:
    """Read the whitened strain around each glitch, unchanged.

    Args:
        path: Pickled dictionary, nested by run, detector and class, in which
            ``h_input`` is a list of arrays.

    Returns:
        Whitened strain at ``SOURCE_RATE``, float64, each [size].

    Raises:
        StrainError: The file holds something else, or an object other than arrays.
    """
    try:
        with Path(path).open("rb") as file:
            content = PlainUnpickler(file).load()
        glitches = [np.asarray(series, float) for series in _series(content)]
    except (OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise StrainError(
            f"{path}: expected deepextractor's dictionary of glitches: {error}"
        ) from None
    least = round((CUT_LENGTH + 2) * SOURCE_RATE)
    if not glitches or any(
        series.ndim != 1 or len(series) < least for series in glitches
    ):
        raise StrainError(
            f"{path}: expected arrays 'h_input' of {least} samples or more, found "
            f"{[series.shape for series in glitches] or 'none'}"
        )
    return glitches


def _series(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "h_input":
                yield from value
            else:
                yield from _series(value)


def convert(series: NDArray[Any], sample_rate: int, highpass: float) -> NDArray[Any]:
    """Resample one glitch, high-pass it, and scale it to noise of unit variance.

    Args:
        series: Whitened strain at ``SOURCE_RATE``, the glitch in the middle, [size].
        sample_rate: Hz.
        highpass: Cutoff of the high-pass filter, Hz.

    Returns:
        The middle 6 s, float64, [6 s * sample_rate]. The noise away from the glitch has
        unit variance, estimated from its interquartile range.
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
    # A unit normal distribution's interquartile range is 1.349.
    scaled: NDArray[Any] = piece * (1.349 / (high - low))
    return scaled


def write_glitches(
    path: str | Path, source: str | Path, sample_rate: int, highpass: float
) -> int:
    """Convert deepextractor's file to one for ``chirpwatch train validate --glitches``.

    Args:
        path: The file to write; it appears complete or not at all.
        source: See ``read_series``.
        sample_rate: Hz.
        highpass: Cutoff of the high-pass filter, Hz.

    Returns:
        Number of glitches.

    Raises:
        StrainError: See ``read_series``.
    """
    glitches = [
        convert(series, sample_rate, highpass) for series in read_series(source)
    ]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["glitches"] = np.stack(glitches).astype(np.float32)
        file.attrs["sample_rate"] = sample_rate
        file.attrs["source"] = "deepextractor 0.1.4, MIT; GWOSC, CC BY 4.0"
    return len(glitches)


if __name__ == "__main__":
    write_glitches(sys.argv[2], sys.argv[1], 2048, 32.0)
