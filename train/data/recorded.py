"""Recorded strain for training, from a background file."""

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
# Strain is checked in pieces of this many samples (32 MB).
PIECE_SIZE = 2**22
# Strain that is constant for this long, s, is missing data: a detector's noise always
# varies, and a constant would have a PSD of zero.
CONSTANT_LENGTH = 1.0


@dataclass(frozen=True)
class _Segment:
    """Location and extent of one detector's strain in the file."""

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
        """Path of the segment's group, the dataset's without the detector."""
        return self.dataset.rsplit("/", 1)[0]


class RecordedStretches:
    """Draws stretches of one detector's recorded strain at random times.

    A ``sources.StretchSource``. Each detector draws its own times, so a signal is not
    coincident in two detectors, and the number of noise pairs grows with the square of
    the file's livetime.

    A stretch is one contiguous read of about 2 MB, enough for many batches. The process
    that makes the windows reads it, several batches ahead of the training: a worker, or
    with a GPU a thread of the training process.
    ml4gw's ``Hdf5TimeSeriesDataset`` does not fit: it expects one dataset for each
    channel at the root of each file, reads windows instead of stretches with their PSD,
    and draws from NumPy's global state, so a training could not be resumed exactly.

    The constructor checks the strain once; each process that draws opens the file
    itself.

    Args:
        path: Background file: ``{split}/{t0}-{duration}/{ifo}``.
        split: ``train``, ``valid`` or ``test``.
        ifo: Detector.
        geometry: Sample rate, and the lengths that a stretch needs.

    Attributes:
        simulated: Whether any segment is marked as simulated.

    Raises:
        StrainError: No such file, split or detector; another sample rate; two splits
            overlap in time; a sample is not finite; strain is constant for 1 s or
            longer; or no segment is long enough for a stretch.
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

        Every possible start is equally likely. The amplitude spectral density is the
        stretch's own, from the median of 2 s periodograms.

        Raises:
            StrainError: No segment is that long.
        """
        starts = np.array([max(0, part.size - size + 1) for part in self.segments])
        if not starts.any():
            raise StrainError(
                f"{self.path}: expected a segment of at least "
                f"{size / self.sample_rate:g} s under '{self.split}/', found at most "
                f"{max(part.size for part in self.segments) / self.sample_rate:g} s"
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
        """Drop the open file: another process cannot use an HDF5 handle."""
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
        """Refuse a segment with a sample that is not finite, or with constant strain.

        Raises:
            StrainError: There is such a sample, or strain is constant for
                ``CONSTANT_LENGTH``.
        """
        # Start of the run of equal samples that the previous piece ended in.
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
                # The last run may continue in the next piece.
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
    """Refuse splits that overlap in time: validation would see training data.

    Raises:
        StrainError: Two splits overlap.
    """
    for (split, these), (other, those) in itertools.combinations(splits.items(), 2):
        for a, b in itertools.product(these, those):
            if a.t0_ns < b.stop_ns and b.t0_ns < a.stop_ns:
                start = max(a.t0_ns, b.t0_ns) / NANOSECONDS
                stop = min(a.stop_ns, b.stop_ns) / NANOSECONDS
                raise StrainError(
                    f"{path}: expected the splits '{split}' and '{other}' to be "
                    f"disjoint in time, found GPS {start:.6f} to {stop:.6f} in both "
                    f"{a.name[1:]} and {b.name[1:]}; write the file again with "
                    "disjoint splits"
                )
