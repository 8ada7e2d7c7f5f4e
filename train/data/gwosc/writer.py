"""Join the parts of downloaded files to the segments of a background file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gwpy.segments import Segment, SegmentList
from numpy.typing import NDArray

from chirpwatch.errors import StrainError
from chirpwatch.hdf5 import writing
from chirpwatch.strain import resample
from chirpwatch.train.data.gwosc.archive import SourceFile
from chirpwatch.train.data.gwosc.plan import (
    SPLITS,
    FetchPlan,
    PlannedSegment,
)

# Samples in a chunk, which has one checksum: 1/2 MB, which fits HDF5's chunk cache.
CHUNK_SIZE = 2**16
LICENCE = "CC BY 4.0, Gravitational Wave Open Science Center (gwosc.org)"


def covered(
    plan: FetchPlan, available: Mapping[SourceFile, SegmentList]
) -> tuple[PlannedSegment, ...]:
    """Cut the planned segments where a detector's files have no data.

    Args:
        plan: The plan.
        available: The times for which each file has strain.

    Returns:
        The segments of at least ``min_duration`` that are left.

    Raises:
        StrainError: A split has no segment left.
    """
    common = SegmentList([Segment(0, float("inf"))])
    for ifo in plan.settings.ifos:
        times = SegmentList()
        for file, segments_of_file in available.items():
            if file.ifo == ifo:
                times.extend(segments_of_file)
        common &= times.coalesce()
    segments = []
    for each in plan.segments:
        for start, stop in common & SegmentList([Segment(each.start, each.stop)]):
            if stop - start >= plan.settings.min_duration:
                segments.append(PlannedSegment(start, stop, each.split))
    for split in SPLITS:
        if plan.livetime(split) and not any(each.split == split for each in segments):
            raise StrainError(
                f"{plan.run}: expected strain of at least "
                f"{plan.settings.min_duration} s for {split}, found gaps in all of its "
                "files; take more, or a shorter --min-duration"
            )
    return tuple(segments)


def write_segments(
    path: Path,
    plan: FetchPlan,
    segments: tuple[PlannedSegment, ...],
    parts: Mapping[SourceFile, Path],
    command: str,
) -> None:
    """Write a background file from its parts, with one part in memory at a time.

    Args:
        path: The file.
        plan: The plan, for files, events and attributes.
        segments: Segments to write, from ``covered``.
        parts: Path of each file's part.
        command: Command line, for the attributes.

    Raises:
        StrainError: A part is damaged, or the disk is full.
    """
    settings = plan.settings
    attributes = {
        "simulated": False,
        "source": "GWOSC",
        "host": settings.host,
        "run": plan.run,
        "flags": ",".join(settings.flags),
        "licence": LICENCE,
        "command": command,
    }
    with writing(path) as out:
        out.attrs.update(attributes)
        out.attrs["event_pad"] = settings.pad
        text = h5py.string_dtype()
        for name, dtype in (("name", text), ("gps", "f8"), ("catalog", text)):
            column = [getattr(event, name) for event in plan.events]
            out.create_dataset(f"events/{name}", data=column, dtype=dtype)
        for each in segments:
            group = out.create_group(
                f"{each.split}/{each.start}-{each.stop - each.start}"
            )
            group.attrs.update(attributes)
            for ifo in settings.ifos:
                files = [
                    file
                    for file in plan.files
                    if file.ifo == ifo
                    and file.start < each.stop
                    and file.stop > each.start
                ]
                _write(group, each, files, parts, plan)
                out.check()


def _write(
    group: h5py.Group,
    segment: PlannedSegment,
    files: list[SourceFile],
    parts: Mapping[SourceFile, Path],
    plan: FetchPlan,
) -> None:
    """Write one detector's strain of a segment, file by file."""
    rate, ifo = plan.settings.sample_rate, files[0].ifo
    size = (segment.stop - segment.start) * rate
    data = group.create_dataset(
        ifo,
        shape=(size,),
        dtype="f8",
        chunks=(min(size, CHUNK_SIZE),),
        fletcher32=True,
    )
    data.attrs.update({"x0": float(segment.start), "dx": 1 / rate})
    data.attrs["files"] = [file.name for file in files]
    data.attrs["urls"] = [file.url for file in files]
    tail, digests = None, []
    for file in files:
        start, stop = max(segment.start, file.start), min(segment.stop, file.stop)
        first = (start - segment.start) * rate
        strain, head, next_tail, digest = _read(parts[file], start, stop, rate)
        digests.append(digest)
        data[first : first + len(strain)] = strain
        if tail is not None:
            # Each file was resampled by itself; resample across their common edge.
            joined = resample(
                np.concatenate([tail, head]), plan.settings.source_rate, rate, ifo
            )
            half = rate // 2
            data[first - half : first + half] = joined[half : 3 * half]
        tail = next_tail
    data.attrs["sha256"] = digests


def _read(
    path: Path, start: int, stop: int, rate: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], str]:
    """Read strain from a part.

    Args:
        path: The part.
        start: First GPS second.
        stop: End GPS second.
        rate: Sample rate of the part, Hz.

    Returns:
        Strain between the two seconds, [size]; the file's first and last second at the
        original rate; and the SHA-256 of the file.

    Raises:
        StrainError: The part is damaged.
    """
    try:
        with h5py.File(path, "r") as part:
            for name, data in part["strain"].items():
                first, last = map(int, name.split("-"))
                if first <= start and stop <= last:
                    strain = data[(start - first) * rate : (stop - first) * rate]
                    edges = part["head"][()], part["tail"][()]
                    return strain, *edges, str(part.attrs["sha256"])
            raise KeyError(f"no strain of GPS {start} to {stop}")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise StrainError(
            f"{path}: expected the part that the fetch wrote ({error}); remove it, and "
            "run the same command again"
        ) from None
