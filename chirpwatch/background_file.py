"""Background files: HDF5 files with segments of detector strain, in splits.

Commands train on the strain of a background file and search it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from chirpwatch.errors import StrainError
from chirpwatch.hdf5 import amending, open_hdf5, report_damage
from chirpwatch.strain import NANOSECONDS, Segment, decimal_seconds


@dataclass(frozen=True)
class NewSegment:
    """Segment to be written to a background file piece by piece.

    Attributes:
        t0: GPS time of the first sample, s.
        duration: Length, a whole number of samples, s.
        pieces: Consecutive pieces of each detector's strain, dimensionless, each [n].
        attributes: HDF5 attributes of the segment's group, such as ``simulated``.
        columns: Further datasets by their name in the segment's group, such as
            ``glitches/H1``, each [n]; ``read_background`` ignores them.
    """

    t0: int
    duration: float
    pieces: Mapping[str, Iterable[NDArray[Any]]] = field(repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


def write_segments(
    path: str | Path, split: str, segments: Iterable[NewSegment], sample_rate: int
) -> None:
    """Add segments to a background file, all or none of them.

    Only one piece is in memory at a time. Layout: ``{split}/{t0}-{duration}/{ifo}``,
    float64, with the attributes ``x0`` (GPS s) and ``dx`` (s) on each dataset.

    Args:
        path: The file; it is created if it does not exist.
        split: ``train``, ``valid`` or ``test``.
        segments: The segments to add.
        sample_rate: Sample rate of the strain, Hz.

    Raises:
        StrainError: A segment's pieces do not add up to its duration, the file already
            contains the segment, or the file cannot be written.
    """
    with amending(path) as file:
        for segment in segments:
            size = round(segment.duration * sample_rate)
            length = decimal_seconds(size * NANOSECONDS // sample_rate)
            name = f"{split}/{segment.t0}-{length}"
            if name in file:
                raise StrainError(
                    f"{path}: segment {name} already exists; write to another file"
                )
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
                        f"{path}, {group.name}/{ifo}: expected {size} samples, as many "
                        f"as in {length} s, found {written}"
                    )


def write_background(
    path: str | Path,
    split: str,
    t0: int,
    strain: Mapping[str, NDArray[Any]],
    sample_rate: int,
    attributes: Mapping[str, Any],
) -> None:
    """Add one segment in memory to a background file; see ``write_segments``.

    Args:
        path: The file; it is created if it does not exist.
        split: ``train``, ``valid`` or ``test``.
        t0: GPS time of the first sample, s.
        strain: Strain by detector, dimensionless, each [size].
        sample_rate: Sample rate of the strain, Hz.
        attributes: HDF5 attributes of the segment's group, such as ``simulated``.

    Raises:
        StrainError: The detectors' lengths differ, the file already contains the
            segment, or the file cannot be written.
    """
    segment = Segment(t0 * NANOSECONDS, sample_rate, strain, source=str(path))
    pieces = {ifo: [data] for ifo, data in strain.items()}
    new = NewSegment(t0, segment.duration, pieces, attributes)
    write_segments(path, split, [new], sample_rate)


def read_background(
    path: str | Path, split: str, ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """Open the segments of one split of a background file, in order of time.

    ``Segment.read`` reads the strain later; the file stays open while a segment exists.

    Args:
        path: The file.
        split: ``train``, ``valid`` or ``test``.
        ifos: Detectors that each segment must have.
        sample_rate: Sample rate that the strain must have, Hz.

    Raises:
        StrainError: The file or split does not exist, the file is not HDF5 or is
            damaged, a detector or attribute is missing, or the sample rate differs.
    """
    file = open_hdf5(path)
    with report_damage(path):
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
            f"{path}: expected segments in the split '{split}', found the splits "
            f"{', '.join(sorted(file)) or 'none'}; choose another split"
        )
    segments = []
    for name, group in file[split].items():
        where = f"{path}, {split}/{name}"
        missing = [ifo for ifo in ifos if ifo not in group]
        if missing:
            present = [key for key in group if isinstance(group[key], h5py.Dataset)]
            raise StrainError(
                f"{where}: expected detectors {', '.join(ifos)}, found "
                f"{', '.join(present) or 'none'}; give a file with all of these"
            )
        starts = set()
        for ifo in ifos:
            for attribute in ("x0", "dx"):
                if attribute not in group[ifo].attrs:
                    raise StrainError(
                        f"{where}/{ifo}: expected the attributes x0 and dx, found no "
                        f"{attribute}"
                    )
            _check_rate(f"{where}/{ifo}", 1 / group[ifo].attrs["dx"], sample_rate)
            starts.add(float(group[ifo].attrs["x0"]))
        if len(starts) != 1:
            raise StrainError(
                f"{where}: expected the same x0 for all detectors, found the GPS times "
                f"{', '.join(f'{start:.6f}' for start in sorted(starts))}"
            )
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
            "resample the strain first"
        )
