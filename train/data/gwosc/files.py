"""From GWOSC's strain file to a part of a background file: download, resample.

A part holds what the plan wants of one file, resampled, whole seconds without a gap:
``strain/{start}-{stop}`` (GPS s), and the first and the last second as downloaded,
``head`` and ``tail``, from which the samples around a file's edge are made once its
neighbour is there too. Each dataset carries a checksum that is verified as it is read.
"""

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import h5py
import httpx
import numpy as np
from gwpy.segments import Segment, SegmentList
from numpy.typing import NDArray
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from chirpwatch.atomic import replacing
from chirpwatch.errors import StrainError
from chirpwatch.gwosc_file import read_gwosc_file
from chirpwatch.hdf5 import writing
from chirpwatch.strain import resample
from chirpwatch.train.data.gwosc.archive import SourceFile
from chirpwatch.train.data.gwosc.plan import Plan

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRANSIENT = (408, 425, 429)


@dataclass(frozen=True)
class Network:
    """How to download.

    Attributes:
        tries: How often a file is asked for, whether it does not come or is damaged.
        wait: Before it is asked for the second time, s; doubles from time to time.
        stop: Set to end all downloads early.
        received: Called with the number of bytes of each chunk.
    """

    tries: int
    wait: float
    stop: threading.Event
    received: Callable[[int], None]


class Stopped(Exception):
    """The fetch was told to end."""


class _Interrupted(Exception):
    """A download failed in a way that may pass."""


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turn a disk that is full, or that cannot be written, into an error that says so.

    Raises:
        StrainError: There was no space to write, or no right or place to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StrainError(
                f"{path}: the disk is full ({error}); what was finished is kept: make "
                "room, and run the same command again"
            ) from None
        raise StrainError(
            f"{path}: could not be written: {error}; look whether its directory is "
            "there and may be written to"
        ) from None


def make_part(
    file: SourceFile, plan: Plan, path: Path, client: httpx.Client, network: Network
) -> None:
    """Download a file and write its part, which appears whole or not at all.

    Args:
        file: What to download.
        plan: Says which times are wanted.
        path: The part.
        client: Connections to GWOSC.
        network: How to download.

    Raises:
        StrainError: The file cannot be had, is damaged each time, is not what its name
            says, or the disk is full.
        Stopped: The fetch was told to end.
    """
    with full_disk_told(path):
        rate = plan.settings.source_rate
        digest, data = _intact(file, rate, path.parent, client, network)
        _write_part(path, file, plan, data, digest)


def read_part(path: Path, file: SourceFile) -> SegmentList | None:
    """The times that a part holds, verified; ``None`` if it is not there or damaged."""
    try:
        with h5py.File(path, "r") as part:
            if part.attrs["url"] != file.url or "sha256" not in part.attrs:
                return None
            times = SegmentList()
            for name, data in part["strain"].items():
                data[()]
                times.append(Segment(*map(int, name.split("-"))))
            part["head"][()], part["tail"][()]
            return times
    # HDF5's own errors are of any of these kinds.
    except (OSError, KeyError, RuntimeError, ValueError):
        return None


def _intact(
    file: SourceFile,
    rate: int,
    directory: Path,
    client: httpx.Client,
    network: Network,
) -> tuple[str, NDArray[Any]]:
    """Download a file until it is what it says, trying again what may pass.

    Returns:
        SHA-256 of the file, and its strain, float64, [size].
    """

    def pause(length: float) -> None:
        if network.stop.wait(length):
            raise Stopped

    def download() -> tuple[str, NDArray[Any]]:
        with NamedTemporaryFile(prefix=".download-", dir=directory) as raw:
            digest = _download(file.url, Path(raw.name), client, network)
            try:
                return digest, _content(raw.name, file, rate)
            except StrainError as error:
                raise _Interrupted(str(error)) from None

    try:
        return Retrying(
            retry=retry_if_exception_type(_Interrupted),
            stop=stop_after_attempt(network.tries),
            wait=wait_exponential(network.wait),
            sleep=pause,
            reraise=True,
        )(download)
    except _Interrupted as failure:
        raise StrainError(
            f"{file.url}: not downloaded in {network.tries} tries, at last: {failure}; "
            "what was finished is kept: check the network and the host, and run the "
            f"same command again, or leave out GPS {file.start} to {file.stop}"
        ) from None


def _content(path: str, file: SourceFile, rate: int) -> NDArray[Any]:
    """Strain of a downloaded file.

    Raises:
        StrainError: It cannot be read, or is not what the file's name says.
    """
    ifo, start, found_rate, data = read_gwosc_file(path)
    expected = (file.ifo, file.start, rate, (file.stop - file.start) * rate)
    if (ifo, start, found_rate, len(data)) != expected:
        raise StrainError(
            f"expected {expected[3]} samples of {file.ifo} at {rate} Hz from GPS "
            f"{file.start}, found {len(data)} samples of {ifo} at {found_rate:g} Hz "
            f"from GPS {start:g}"
        )
    return data


def _write_part(
    path: Path, file: SourceFile, plan: Plan, data: NDArray[Any], digest: str
) -> None:
    rate, wanted_rate = plan.settings.source_rate, plan.settings.sample_rate
    wanted = np.zeros(file.stop - file.start, bool)
    for each in plan.segments:
        first = max(each.start, file.start) - file.start
        wanted[first : max(each.stop - file.start, 0)] = True
    seconds = data.reshape(len(wanted), rate)
    infinite = wanted & np.isinf(seconds).any(1)
    if infinite.any():
        raise StrainError(
            f"{file.url}: expected finite strain, found infinity at GPS "
            f"{file.start + int(np.argmax(infinite))}; leave that time out"
        )
    # GWOSC marks missing data with NaN; infinity beside wanted data would spread into
    # them through the filter.
    present = np.isfinite(seconds).all(1)
    with replacing(path) as temporary, writing(temporary) as part:
        part.attrs.update({"url": file.url, "sha256": digest})
        for name, second in (("head", 0), ("tail", -1)):
            part.create_dataset(name, data=seconds[second], fletcher32=True)
        group = part.create_group("strain")
        for first, last in _runs(wanted & present):
            # A second of context keeps the filter's edges out, where there are data.
            before = int(first > 0 and present[first - 1])
            after = int(last < len(present) and present[last])
            strain = resample(
                seconds[first - before : last + after].ravel(),
                rate,
                wanted_rate,
                file.ifo,
            )[before * wanted_rate : (before + last - first) * wanted_rate]
            group.create_dataset(
                f"{file.start + first}-{file.start + last}",
                data=strain,
                fletcher32=True,
            )


def _runs(mask: NDArray[Any]) -> list[tuple[int, int]]:
    """First and one past the last index of each run of true values."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _download(url: str, path: Path, client: httpx.Client, network: Network) -> str:
    """Download a file once.

    Returns:
        The SHA-256 of what came, which is as long as the server said.

    Raises:
        StrainError: It cannot be had.
        _Interrupted: Another try may have it.
    """
    digest = hashlib.sha256()
    try:
        with client.stream("GET", url) as response, path.open("wb") as output:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                if network.stop.is_set():
                    raise Stopped
                output.write(chunk)
                digest.update(chunk)
                network.received(len(chunk))
        return digest.hexdigest()
    except httpx.HTTPStatusError as error:
        failure = f"HTTP status {error.response.status_code}"
        if error.response.is_server_error or error.response.status_code in TRANSIENT:
            raise _Interrupted(failure) from None
        raise StrainError(
            f"{url}: not downloaded: {failure}; what was finished is kept: check the "
            "host, and run the same command again"
        ) from None
    except httpx.HTTPError as error:
        raise _Interrupted(f"{type(error).__name__}: {error}") from None
