"""Parts of downloaded files, joined to the segments of a background file."""

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
    Plan,
    PlannedSegment,
)

# Samples that carry one checksum: 1/2 MB, less than HDF5 keeps in memory.
CHUNK_SIZE = 2**16
LICENCE = "CC BY 4.0, Gravitational Wave Open Science Center (gwosc.org)"


def covered(
    plan: Plan, available: Mapping[SourceFile, SegmentList]
) -> tuple[PlannedSegment, ...]:
    """The planned segments, cut where a detector turned out to have no data.

    Args:
        plan: What was wanted.
        available: For each file the times that it gives.

    Raises:
        StrainError: Nothing is left of a split.
    """
    common = SegmentList([Segment(0, float("inf"))])
    for ifo in plan.settings.ifos:
        times = SegmentList()
        for file, found in available.items():
            if file.ifo == ifo:
                times.extend(found)
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
    plan: Plan,
    segments: tuple[PlannedSegment, ...],
    parts: Mapping[SourceFile, Path],
    command: str,
) -> None:
    """Write a background file, holding no more than one part in memory.

    Args:
        path: The file.
        plan: Where the strain is from.
        segments: What is written.
        parts: For each file its part.
        command: The command that made it.

    Raises:
        StrainError: A part is damaged.
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
    plan: Plan,
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
            # Each file was resampled alone; at its edge the filter lacked the other.
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
    """Strain between two GPS seconds, the file's first and last second, its SHA-256."""
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
            f"{path}: changed since it was written ({error}); remove it and run the "
            "same command again"
        ) from None
