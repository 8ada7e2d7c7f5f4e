"""Reading the HDF5 strain files that GWOSC publishes."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chirpwatch.errors import StrainError
from chirpwatch.hdf5 import open_hdf5, report_damage
from chirpwatch.strain import NANOSECONDS, Segment, resample


def read_gwosc_file(path: str | Path) -> tuple[str, float, float, NDArray[Any]]:
    """Read the strain of one GWOSC file, at its own sample rate and with its gaps.

    Returns:
        The detector; the GPS time of the first sample, s; the sample rate, Hz; and the
        strain, dimensionless, float64, [size], with NaN in gaps.

    Raises:
        StrainError: The file is missing or damaged, or does not have GWOSC's layout.

    Source: gwosc.org, "What's in a LIGO data file" (``strain/Strain``, ``meta/*``).
    """
    with open_hdf5(path) as file, report_damage(path):
        try:
            dataset = file["strain/Strain"]
            _check_chunks(dataset)
            return (
                file["meta/Detector"][()].decode(),
                float(dataset.attrs["Xstart"]),
                1 / float(dataset.attrs["Xspacing"]),
                dataset[()],
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise StrainError(
                f"{path}: expected GWOSC's layout (strain/Strain with Xstart and "
                f"Xspacing, meta/Detector): {error}"
            ) from None


def _check_chunks(dataset: h5py.Dataset) -> None:
    """Check that the file has all chunks of the strain, and that they decompress.

    HDF5 would return zeros for a missing chunk, and may loop endlessly in a damaged
    one.

    Raises:
        ValueError: The number of chunks does not match the dataset's size, or a chunk
            does not decompress to the chunk size.
    """
    if dataset.chunks is None:
        return
    expected = math.prod(
        -(-size // chunk)
        for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    count = dataset.id.get_num_chunks()
    if count != expected:
        raise ValueError(f"expected {expected} chunks of strain, found {count}")
    if dataset.compression != "gzip":
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for number in range(count):
        offset = dataset.id.get_chunk_info(number).chunk_offset
        skipped_filters, packed = dataset.id.read_direct_chunk(offset)
        # The mask is not 0 if a filter was not applied to this chunk.
        if skipped_filters:
            continue
        stream = zlib.decompressobj()
        try:
            unpacked = len(stream.decompress(packed, size + 5))
        except zlib.error as error:
            raise ValueError(f"chunk {number} of the strain: {error}") from None
        # The fletcher32 filter appends a checksum of four bytes.
        if not stream.eof or not size <= unpacked <= size + 4:
            raise ValueError(
                f"chunk {number} of the strain: expected {size} bytes, found {unpacked}"
            )


def read_gwosc(
    paths: Sequence[str | Path], ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """Read coincident segments from GWOSC files, one file for each detector.

    GWOSC marks gaps with NaN. Each span without a gap in any detector becomes a
    segment. The strain is resampled to ``sample_rate``; see ``resample`` for the
    samples that this corrupts at either end of a segment.

    Args:
        paths: One file for each detector, in any order.
        ifos: Detectors to return; files of other detectors are ignored.
        sample_rate: Sample rate to return, Hz.

    Raises:
        StrainError: A file is missing, damaged or not GWOSC's; a detector has no file
            or several; the files do not overlap or differ in sample rate, which must be
            at least ``sample_rate``; or a sample is infinite.
    """
    series: dict[str, tuple[float, float, NDArray[Any]]] = {}
    for path in paths:
        ifo, start, rate, data = read_gwosc_file(path)
        if ifo in series:
            raise StrainError(
                f"{path}: expected one file for each detector, found a second one for "
                f"{ifo}"
            )
        series[ifo] = start, rate, data
    if not set(ifos) <= set(series):
        raise StrainError(
            f"expected files for the detectors {', '.join(ifos)}, found "
            f"{', '.join(sorted(series)) or 'none'}"
        )
    start = max(series[ifo][0] for ifo in ifos)
    stop = min(series[ifo][0] + len(series[ifo][2]) / series[ifo][1] for ifo in ifos)
    if stop <= start:
        raise StrainError(
            f"{', '.join(map(str, paths))}: expected files that overlap in time, found "
            f"the latest start at GPS {start:.6f} and the earliest end at {stop:.6f}"
        )
    rates = {series[ifo][1] for ifo in ifos}
    if len(rates) != 1:
        raise StrainError(
            f"{', '.join(map(str, paths))}: expected one sample rate, found "
            f"{', '.join(f'{rate:g}' for rate in sorted(rates))} Hz; download files at "
            "the same rate"
        )
    rate = rates.pop()
    cut = {}
    for ifo in ifos:
        begin = round((start - series[ifo][0]) * rate)
        cut[ifo] = series[ifo][2][begin : begin + round((stop - start) * rate)]
        if np.isinf(cut[ifo]).any():
            first = int(np.argmax(np.isinf(cut[ifo])))
            raise StrainError(
                f"detector {ifo}: expected finite strain, found {cut[ifo][first]} at "
                f"GPS {start + first / rate:.6f}"
            )
    present = ~np.any([np.isnan(data) for data in cut.values()], axis=0)
    labels, _ = ndimage.label(present)
    segments = []
    for (run,) in ndimage.find_objects(labels):
        segments.append(
            Segment(
                t0_ns=round(start * NANOSECONDS)
                + round(run.start * NANOSECONDS / rate),
                sample_rate=sample_rate,
                strain={
                    ifo: resample(data[run], rate, sample_rate, ifo)
                    for ifo, data in cut.items()
                },
                source=", ".join(Path(path).name for path in paths),
            )
        )
    return segments
