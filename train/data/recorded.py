"""Recorded strain to train on, from a file of background."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch.background_file import read_background
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS
from chirpwatch.train.data.noise.curves import spectrum_size
from chirpwatch.train.data.whitening import (
    median_psd,
    periodograms,
)

SPLITS = ("train", "valid", "test")
# Strain is looked through in pieces of so many samples (32 MB).
PIECE_SIZE = 2**22
# A detector's noise never stands still: where strain does, data are missing. For so
# long, and the spectral density would be zero there.
CONSTANT_LENGTH = 1.0


@dataclass(frozen=True)
class _Segment:
    """One detector's strain in the file, which is closed."""

    dataset: str
    t0_ns: int
    size: int
    rate: int
    simulated: bool

    @property
    def stop_ns(self) -> int:
        return self.t0_ns + self.size * NANOSECONDS // self.rate

    @property
    def name(self) -> str:
        """The segment without the detector."""
        return self.dataset.rsplit("/", 1)[0]


class RecordedStretches:
    """Stretches of one detector's strain, at times of their own.

    A ``sources.StretchSource``. Each detector draws its times by itself, so that no
    coincident signal is in two detectors at once, and a file gives the square of its
    length in pairs of noise.

    A stretch is one contiguous read of about 2 MB, of which many batches are cut. Reads
    happen in the process that makes the windows, several batches ahead of the training:
    a worker, or on a GPU the training's own, in a thread.
    ml4gw's ``Hdf5TimeSeriesDataset`` does not fit: it wants one dataset for each
    channel at the root of each file, reads windows instead of stretches with their PSD,
    and draws from NumPy's global state, where a training could not be resumed exactly.

    The file is looked through once, here; it is opened again by each process that
    draws.

    Args:
        path: Background file: ``{split}/{t0}-{duration}/{ifo}``.
        split: ``train``, ``valid`` or ``test``.
        ifo: Detector.
        geometry: Sample rate, and the lengths that make a stretch.

    Attributes:
        simulated: Whether the file says so of any segment.

    Raises:
        StrainError: No such file, split or detector; another sample rate; two splits
            overlap in time; a sample is not finite, or the same for 1 s or longer; or
            no segment holds a stretch.
    """

    def __init__(
        self, path: str | Path, split: str, ifo: str, geometry: Geometry
    ) -> None:
        self.path, self.split, self.ifo = Path(path), split, ifo
        self.sample_rate = geometry.sample_rate
        self.min_size = 2 * geometry.psd_size + geometry.filter_size
        segments = {split: self._segments(split)}
        for other in SPLITS:
            if other != split and self._has(other):
                segments[other] = self._segments(other)
        _check_disjoint(self.path, segments)
        self.segments = [
            segment for segment in segments[split] if segment.size >= self.min_size
        ]
        if not self.segments:
            longest = max(segment.size for segment in segments[split])
            raise StrainError(
                f"{path}: expected a segment of at least "
                f"{self.min_size / self.sample_rate:g} s under '{split}/', found at "
                f"most {longest / self.sample_rate:g} s"
            )
        self.simulated = any(segment.simulated for segment in self.segments)
        with h5py.File(self.path, "r") as file:
            for segment in self.segments:
                self._check_samples(segment, file[segment.dataset])
        self._file: h5py.File | None = None

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch, see ``sources.StretchSource.draw``.

        Every place that a stretch can start at is as likely as any other. The spectral
        density is that of the stretch itself: the median over 2 s periodograms.

        Raises:
            StrainError: No segment is that long.
        """
        starts = np.array([max(0, part.size - size + 1) for part in self.segments])
        if not starts.any():
            raise StrainError(
                f"{self.path}: expected a segment of at least "
                f"{size / self.sample_rate:g} s under '{self.split}/'"
            )
        ends = starts.cumsum()
        place = int(rng.integers(ends[-1]))
        index = int(np.searchsorted(ends, place, side="right"))
        start = place - int(ends[index] - starts[index])
        if self._file is None:
            self._file = h5py.File(self.path, "r")
        strain = self._file[self.segments[index].dataset][start : start + size]
        strain = strain.astype(np.float64)
        fft_size = 2 * (spectrum_size(self.sample_rate) - 1)
        spectra = periodograms(strain, fft_size, self.sample_rate)
        return strain, np.sqrt(median_psd(spectra))

    def __getstate__(self) -> dict[str, object]:
        """Leave the open file behind: HDF5 handles belong to one process."""
        return self.__dict__ | {"_file": None}

    def _has(self, split: str) -> bool:
        with h5py.File(self.path, "r") as file:
            return split in file and len(file[split]) > 0

    def _segments(self, split: str) -> list[_Segment]:
        return [
            _Segment(
                segment.strain[self.ifo].name,
                segment.t0_ns,
                segment.size,
                segment.sample_rate,
                segment.simulated,
            )
            for segment in read_background(
                self.path, split, [self.ifo], self.sample_rate
            )
        ]

    def _check_samples(self, segment: _Segment, dataset: h5py.Dataset) -> None:
        """Refuse a segment with a sample that is not finite, or that goes on and on."""
        # Where the samples begin that are equal to the last one.
        begin, last = 0, np.nan
        for start in range(0, segment.size, PIECE_SIZE):
            piece = dataset[start : start + PIECE_SIZE]
            finite = np.isfinite(piece)
            if not finite.all():
                first = int(np.argmin(finite))
                self._refuse(
                    segment, start + first, f"finite strain, found {piece[first]} at"
                )
            begins = start + np.flatnonzero(np.diff(piece, prepend=last))
            begins = np.append(begin, begins)
            stop = start + len(piece)
            lengths = np.diff(begins, append=stop) / self.sample_rate
            if stop < segment.size:
                # The last of them may go on in the next piece.
                lengths[-1] = 0
            if (lengths >= CONSTANT_LENGTH).any():
                index = int(np.argmax(lengths >= CONSTANT_LENGTH))
                first = int(begins[index])
                self._refuse(
                    segment,
                    first,
                    f"strain that changes, found {dataset[first]} for "
                    f"{lengths[index]:g} s from",
                )
            begin, last = int(begins[-1]), piece[-1]

    def _refuse(self, segment: _Segment, sample: int, what: str) -> NoReturn:
        time = segment.t0_ns / NANOSECONDS + sample / self.sample_rate
        raise StrainError(
            f"{self.path}, {segment.dataset[1:]}: expected {what} GPS {time:.6f}; "
            "cut the segment there"
        )


def _check_disjoint(path: Path, splits: dict[str, list[_Segment]]) -> None:
    """Refuse strain that is both trained on and judged by."""
    for (one, these), (other, those) in itertools.combinations(splits.items(), 2):
        for a, b in itertools.product(these, those):
            if a.t0_ns < b.stop_ns and b.t0_ns < a.stop_ns:
                start = max(a.t0_ns, b.t0_ns) / NANOSECONDS
                stop = min(a.stop_ns, b.stop_ns) / NANOSECONDS
                raise StrainError(
                    f"{path}: expected the splits '{one}' and '{other}' to be disjoint "
                    f"in time, found GPS {start:.6f} to {stop:.6f} in both "
                    f"{a.name[1:]} and {b.name[1:]}; split the file anew"
                )
