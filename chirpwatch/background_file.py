"""Background files: detector noise in segments, for training and for searches."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from chirpwatch.errors import (
    StrainError,
)
from chirpwatch.hdf5 import amending, damaged, open_hdf5
from chirpwatch.strain import NANOSECONDS, Segment, decimal_seconds


@dataclass(frozen=True)
class NewSegment:
    """A segment that is written piece by piece.

    Attributes:
        t0: GPS time of the first sample, s.
        duration: A whole number of samples, s.
        pieces: For each detector its strain in pieces, one after the other, each [n].
        attributes: Attributes of the segment, such as ``simulated``.
        columns: Further datasets by their name in the segment's group, such as
            ``glitches/H1``, each [n]; those who read strain pass over them.
    """

    t0: int
    duration: float
    pieces: Mapping[str, Iterable[NDArray[Any]]] = field(repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


def write_segments(
    path: str | Path, split: str, segments: Iterable[NewSegment], sample_rate: int
) -> None:
    """Add segments to a background file; it appears whole or not at all.

    Only one piece is in memory at a time. Layout: ``{split}/{t0}-{duration}/{ifo}``,
    float64, with the attributes ``x0`` (GPS s) and ``dx`` (s) on each dataset.

    Args:
        path: The file; made where it is not there.
        split: ``train``, ``valid`` or ``test``.
        segments: What is written.
        sample_rate: Hz.

    Raises:
        StrainError: The pieces of a segment are not as long as it, it is in the file
            already, or the disk is full.
    """
    with amending(path) as file:
        for segment in segments:
            size = round(segment.duration * sample_rate)
            length = decimal_seconds(size * NANOSECONDS // sample_rate)
            name = f"{split}/{segment.t0}-{length}"
            if name in file:
                raise StrainError(f"{path}: segment {name} is there already")
            group = file.create_group(name)
            group.attrs.update(segment.attributes)
            for key, column in segment.columns.items():
                group[key] = column
            for ifo, pieces in segment.pieces.items():
                dataset = group.create_dataset(ifo, (size,), dtype="f8")
                dataset.attrs["x0"] = float(segment.t0)
                dataset.attrs["dx"] = 1 / sample_rate
                written = 0
                for piece in pieces:
                    if written + len(piece) <= size:
                        dataset[written : written + len(piece)] = piece
                        file.check()
                    written += len(piece)
                if written != size:
                    raise StrainError(
                        f"{path}, {group.name}/{ifo}: expected {size} samples, found "
                        f"{written}"
                    )


def write_background(
    path: str | Path,
    split: str,
    t0: int,
    strain: Mapping[str, NDArray[Any]],
    sample_rate: int,
    attributes: Mapping[str, Any],
) -> None:
    """Add one segment that is in memory, as ``write_segments`` does.

    Args:
        path: The file; made where it is not there.
        split: ``train``, ``valid`` or ``test``.
        t0: GPS time of the first sample, s.
        strain: For each detector the strain, [size].
        sample_rate: Hz.
        attributes: Attributes of the segment, such as ``simulated``.

    Raises:
        StrainError: The lengths differ, the segment is in the file already, or the
            disk is full.
    """
    segment = Segment(t0 * NANOSECONDS, sample_rate, strain, source=str(path))
    pieces = {ifo: [data] for ifo, data in strain.items()}
    new = NewSegment(t0, segment.duration, pieces, attributes)
    write_segments(path, split, [new], sample_rate)


def read_background(
    path: str | Path, split: str, ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """The segments of one split of a background file, in order of time.

    The strain is read when it is used; the file stays open as long as its segments.

    Raises:
        StrainError: No such file or split, no HDF5, a detector is missing, or a
            sample rate is not ``sample_rate``.
    """
    file = open_hdf5(path)
    with damaged(path):
        return _segments(file, path, split, ifos, sample_rate)


def _segments(
    file: h5py.File,
    path: str | Path,
    split: str,
    ifos: Sequence[str],
    sample_rate: int,
) -> list[Segment]:
    if split not in file or not len(file[split]):
        raise StrainError(
            f"{path}: expected segments under '{split}/', found {sorted(file)}"
        )
    segments = []
    for name, group in file[split].items():
        where = f"{path}, {split}/{name}"
        missing = [ifo for ifo in ifos if ifo not in group]
        if missing:
            found = [key for key in group if isinstance(group[key], h5py.Dataset)]
            raise StrainError(
                f"{where}: expected detectors {', '.join(ifos)}, found "
                f"{', '.join(found) or 'none'}"
            )
        starts = set()
        for ifo in ifos:
            for attribute in ("x0", "dx"):
                if attribute not in group[ifo].attrs:
                    raise StrainError(f"{where}/{ifo}: no attribute {attribute}")
            _check_rate(f"{where}/{ifo}", 1 / group[ifo].attrs["dx"], sample_rate)
            starts.add(float(group[ifo].attrs["x0"]))
        if len(starts) != 1:
            raise StrainError(f"{where}: detectors start at different times: {starts}")
        segments.append(
            Segment(
                t0_ns=round(starts.pop() * NANOSECONDS),
                sample_rate=sample_rate,
                strain={ifo: group[ifo] for ifo in ifos},
                source=str(path),
                simulated=bool(group.attrs.get("simulated", False)),
            )
        )
    return sorted(segments, key=lambda segment: segment.t0_ns)


def _check_rate(where: str, found: float, expected: int) -> None:
    if not math.isclose(found, expected, rel_tol=1e-9):
        raise StrainError(
            f"{where}: expected a sample rate of {expected} Hz, found {found:g} Hz; "
            "resample it first"
        )
