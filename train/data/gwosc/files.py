"""Download GWOSC's strain files, and resample each to a part of a background file.

A part has the planned strain of one file: resampled, in whole seconds without gaps,
``strain/{start}-{stop}`` (GPS s). It also has the file's first and last second at the
original rate, ``head`` and ``tail``: samples next to a file's edge are resampled from
them and the neighbouring file's. HDF5 verifies each dataset's checksum on reading.
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
from chirpwatch.train.data.gwosc.plan import FetchPlan

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk or an exceeded quota."""

TRANSIENT = (408, 425, 429)
"""HTTP statuses below 500 after which a download is retried."""


@dataclass(frozen=True)
class DownloadPolicy:
    """Retries, cancellation and progress of downloads.

    Attributes:
        tries: Number of attempts of a download that fails or is damaged.
        wait: Back-off before the second attempt, s; it doubles after each attempt.
        stop: Set to cancel all downloads.
        received: Called with the size of each piece received, bytes.
    """

    tries: int
    wait: float
    stop: threading.Event
    received: Callable[[int], None]


class Stopped(Exception):
    """The fetch was cancelled."""


class _TransientError(Exception):
    """A download failed with a transient error."""


@contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Raise the project's exception for an ``OSError`` of the block.

    Args:
        path: Path that the block writes, for the message.

    Raises:
        StrainError: The disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StrainError(
                f"{path}: the disk is full ({error}); finished downloads are kept: "
                "free some space, and run the same command again"
            ) from None
        raise StrainError(
            f"{path}: could not be written: {error}; check that its directory exists "
            "and is writable"
        ) from None


def make_part(
    file: SourceFile,
    plan: FetchPlan,
    path: Path,
    client: httpx.Client,
    policy: DownloadPolicy,
) -> None:
    """Download a file, and write its part, which appears complete or not at all.

    Args:
        file: File to download.
        plan: Plan with the segments to keep.
        path: The part.
        client: HTTP client.
        policy: Retries, cancellation and progress.

    Raises:
        StrainError: The download failed or was damaged at each attempt, the content
            does not match the file's name, strain is infinite, or the disk is full.
        Stopped: The fetch was cancelled.
    """
    with reporting_disk_errors(path):
        rate = plan.settings.source_rate
        digest, data = _intact(file, rate, path.parent, client, policy)
        _write_part(path, file, plan, data, digest)


def read_part(path: Path, file: SourceFile) -> SegmentList | None:
    """Verify a part, and return its times; None if it is missing or damaged."""
    try:
        with h5py.File(path, "r") as part:
            if part.attrs["url"] != file.url or "sha256" not in part.attrs:
                return None
            times = SegmentList()
            for name, data in part["strain"].items():
                data[()]  # verifies the checksum
                times.append(Segment(*map(int, name.split("-"))))
            part["head"][()], part["tail"][()]
            return times
    # h5py raises any of these for a damaged file.
    except (OSError, KeyError, RuntimeError, ValueError):
        return None


def _intact(
    file: SourceFile,
    rate: int,
    directory: Path,
    client: httpx.Client,
    policy: DownloadPolicy,
) -> tuple[str, NDArray[Any]]:
    """Download a file until its content is valid, with back-off between attempts.

    Returns:
        SHA-256 of the file, and its strain, float64, [size].

    Raises:
        StrainError: All attempts failed, or an attempt failed permanently.
        Stopped: The fetch was cancelled.
    """

    def pause(length: float) -> None:
        if policy.stop.wait(length):
            raise Stopped

    def download() -> tuple[str, NDArray[Any]]:
        with NamedTemporaryFile(prefix=".download-", dir=directory) as raw:
            digest = _download(file.url, Path(raw.name), client, policy)
            try:
                return digest, _content(raw.name, file, rate)
            except StrainError as error:
                raise _TransientError(str(error)) from None

    try:
        return Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_after_attempt(policy.tries),
            wait=wait_exponential(policy.wait),
            sleep=pause,
            reraise=True,
        )(download)
    except _TransientError as failure:
        raise StrainError(
            f"{file.url}: not downloaded in {policy.tries} tries; the last failed "
            f"with: {failure}; finished downloads are kept: check the network and the "
            "host, and run the same command again, or fetch the times before GPS "
            f"{file.start} and after {file.stop} (--start, --end)"
        ) from None


def _content(path: str, file: SourceFile, rate: int) -> NDArray[Any]:
    """Read a downloaded file's strain, float64, [size].

    Raises:
        StrainError: It cannot be read, or does not match the file's name.
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
    path: Path, file: SourceFile, plan: FetchPlan, data: NDArray[Any], digest: str
) -> None:
    """Resample a file's planned seconds, and write its part.

    Raises:
        StrainError: Planned strain is infinite.
    """
    rate, sample_rate = plan.settings.source_rate, plan.settings.sample_rate
    planned = np.zeros(file.stop - file.start, bool)
    for each in plan.segments:
        first = max(each.start, file.start) - file.start
        planned[first : max(each.stop - file.start, 0)] = True
    seconds = data.reshape(len(planned), rate)
    infinite = planned & np.isinf(seconds).any(1)
    if infinite.any():
        raise StrainError(
            f"{file.url}: expected finite strain, found infinity at GPS "
            f"{file.start + int(np.argmax(infinite))}; fetch the times before and "
            "after it (--start, --end)"
        )
    # GWOSC marks missing data with NaN; the resampling filter would spread infinity
    # into the planned data beside it.
    present = np.isfinite(seconds).all(1)
    with replacing(path) as temporary, writing(temporary) as part:
        part.attrs.update({"url": file.url, "sha256": digest})
        for name, second in (("head", 0), ("tail", -1)):
            part.create_dataset(name, data=seconds[second], fletcher32=True)
        group = part.create_group("strain")
        for first, last in _runs(planned & present):
            # Where there are data, a second of context absorbs the filter's edges.
            before = int(first > 0 and present[first - 1])
            after = int(last < len(present) and present[last])
            strain = resample(
                seconds[first - before : last + after].ravel(),
                rate,
                sample_rate,
                file.ifo,
            )[before * sample_rate : (before + last - first) * sample_rate]
            group.create_dataset(
                f"{file.start + first}-{file.start + last}",
                data=strain,
                fletcher32=True,
            )


def _runs(mask: NDArray[Any]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of true values."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _download(
    url: str, path: Path, client: httpx.Client, policy: DownloadPolicy
) -> str:
    """Download a file in one attempt.

    Returns:
        SHA-256 of the content; httpx has checked its length.

    Raises:
        StrainError: The server refused permanently.
        _Interrupted: The download failed with a transient error.
        Stopped: The fetch was cancelled.
    """
    digest = hashlib.sha256()
    try:
        with client.stream("GET", url) as response, path.open("wb") as output:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                if policy.stop.is_set():
                    raise Stopped
                output.write(chunk)
                digest.update(chunk)
                policy.received(len(chunk))
        return digest.hexdigest()
    except httpx.HTTPStatusError as error:
        failure = f"HTTP status {error.response.status_code}"
        if error.response.is_server_error or error.response.status_code in TRANSIENT:
            raise _TransientError(failure) from None
        raise StrainError(
            f"{url}: not downloaded: {failure}; finished downloads are kept: check the "
            "host, and run the same command again"
        ) from None
    except httpx.HTTPError as error:
        raise _TransientError(f"{type(error).__name__}: {error}") from None
