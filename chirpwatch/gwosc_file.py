"""The HDF5 strain files that GWOSC publishes."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chirpwatch.errors import (
    StrainError,
)
from chirpwatch.hdf5 import damaged, open_hdf5
from chirpwatch.strain import NANOSECONDS, Segment, resample


def read_gwosc_file(path: str | Path) -> tuple[str, float, float, NDArray[Any]]:
    """What one of the HDF5 files that GWOSC publishes holds, as it is.

    Returns:
        The detector, the GPS time of the first sample, s, the sample rate, Hz, and the
        strain, float64, [size], NaN where there are no data.

    Raises:
        StrainError: The file is missing, damaged or not GWOSC's.

    Source: gwosc.org, "What's in a LIGO data file" (``strain/Strain``, ``meta/*``).
    """
    with open_hdf5(path) as file, damaged(path):
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
                f"{path}: expected GWOSC's layout (strain/Strain, meta/Detector): "
                f"{error}"
            ) from None


def _check_chunks(dataset: h5py.Dataset) -> None:
    """Refuse strain of which the file's index lost a chunk, or a chunk is damaged.

    A lost one would read as zeros, and HDF5 may look for the end of a damaged one for
    ever.

    Raises:
        ValueError: The dataset has fewer chunks than its size asks for, or one that
            does not decompress to its size.
    """
    if dataset.chunks is None:
        return
    expected = math.prod(
        -(-size // chunk)
        for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    found = dataset.id.get_num_chunks()
    if found != expected:
        raise ValueError(f"expected {expected} chunks of strain, found {found}")
    if dataset.compression != "gzip":
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for number in range(found):
        offset = dataset.id.get_chunk_info(number).chunk_offset
        skipped, packed = dataset.id.read_direct_chunk(offset)
        if skipped:
            continue
        stream = zlib.decompressobj()
        try:
            unpacked = len(stream.decompress(packed, size + 5))
        except zlib.error as error:
            raise ValueError(f"chunk {number} of the strain: {error}") from None
        # With fletcher32, its four bytes come on top.
        if not stream.eof or not size <= unpacked <= size + 4:
            raise ValueError(
                f"chunk {number} of the strain: expected {size} bytes, found {unpacked}"
            )


def read_gwosc(
    paths: Sequence[str | Path], ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """Segments from the HDF5 files that GWOSC publishes, one for each detector.

    The strain is resampled with a zero-phase polyphase filter. GWOSC marks missing
    data with NaN; the stretches where every detector has data become the segments.

    Args:
        paths: One file for each detector, in any order.
        ifos: The detectors wanted.
        sample_rate: The rate wanted, Hz.

    Raises:
        StrainError: A file is missing or not GWOSC's, a detector is missing or there
            twice, the files do not overlap, or a sample is infinite.
    """
    series: dict[str, tuple[float, float, NDArray[Any]]] = {}
    for path in paths:
        ifo, start, rate, data = read_gwosc_file(path)
        if ifo in series:
            raise StrainError(f"{path}: a second file of detector {ifo}")
        series[ifo] = start, rate, data
    if not set(ifos) <= set(series):
        raise StrainError(
            f"expected files of detectors {', '.join(ifos)}, found "
            f"{', '.join(sorted(series)) or 'none'}"
        )
    start = max(series[ifo][0] for ifo in ifos)
    stop = min(series[ifo][0] + len(series[ifo][2]) / series[ifo][1] for ifo in ifos)
    if stop <= start:
        raise StrainError(f"the files {', '.join(map(str, paths))} do not overlap")
    rates = {series[ifo][1] for ifo in ifos}
    if len(rates) != 1:
        raise StrainError(f"expected one sample rate, found {sorted(rates)} Hz")
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
