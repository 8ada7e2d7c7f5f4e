"""Reads frame files of low-latency strain, such as ``H-H1_llhoft-1264316116-1.gwf``."""

import contextlib
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)
from chirpwatch.process import with_parent
from chirpwatch.streamer.live.channels import Channels

MAX_LENGTH = 64
"""Longest frame file that is read, s."""

MAX_NEW = 64
"""Most frame files of a detector that are read before the next listing."""

READ_TIMEOUT = 5.0
"""Longest time to read a frame file, s."""

START_TIMEOUT = 30.0
"""Longest time for a reader process to start, s."""

MAX_STARTS = 3
"""Most times that the reader processes are started for a frame file to be read."""

_NAME = re.compile(
    r"(?P<site>[A-Z])-(?P<kind>[A-Za-z0-9_+#]+)-(?P<gps>\d{9,10})-(?P<length>\d{1,4})\.gwf"
)


@dataclass(frozen=True)
class FrameFile:
    """A frame file in a directory, as described by its name.

    Attributes:
        path: Path.
        gps: Start, GPS s.
        length: Length, s.
        arrived: When it was written, Unix time, s.
    """

    path: Path
    gps: int
    length: int
    arrived: float


@dataclass(frozen=True)
class FrameData:
    """Strain and state of a frame file.

    Attributes:
        gps: Start, GPS s.
        rate: Sample rate, Hz.
        strain: float64, [seconds, rate].
        on: Whether the state vector allows each second, bool [seconds].
    """

    gps: int
    rate: int
    strain: NDArray[Any]
    on: NDArray[Any]


def read_frame(path: Path, gps: int, length: int, channels: Channels) -> FrameData:
    """Verify a frame file's checksums, and read it with gwpy.

    Args:
        path: The file.
        gps: Expected start, GPS s.
        length: Expected length, s.
        channels: Channels to read.

    Raises:
        StrainError: The file cannot be read, or its content does not match `gps` and
            `length`.
    """
    # The import takes a second; only the reader processes need it.
    import lalframe
    from gwpy.timeseries.io.gwf.core import read_timeseriesdict

    names = [channels.strain] + ([channels.state] if channels.state else [])
    try:
        if not lalframe.FrFileCksumValid(lalframe.FrFileOpenURL(str(path))):
            raise ValueError("a checksum does not match its content")
        # `TimeSeriesDict.read` would leak: gwpy caches for ever, for each path that it
        # opens, that the path is not a URL.
        series = read_timeseriesdict(str(path), names, backend="LALFrame")
        strain = series[channels.strain]
        start, rate = float(strain.t0.value), float(strain.sample_rate.value)
        data = np.asarray(strain.value, dtype=np.float64)
        state = None if channels.state is None else series[channels.state].value
    except Exception as error:
        raise StrainError(f"{path.name}: cannot be read ({error})") from None
    if start != gps or rate != int(rate) or data.shape != (length * int(rate),):
        raise StrainError(
            f"{path.name}: expected {length} s from GPS {gps}, found {data.size} "
            f"samples at {rate:g} Hz from GPS {start:g}"
        )
    on = np.ones(length, dtype=bool)
    if state is not None:
        if not state.size or state.size % length:
            raise StrainError(
                f"{path.name}: expected the same number of values of "
                f"{channels.state} in each second, found {state.size} values in "
                f"{length} s"
            )
        values = np.asarray(state).astype(np.int64).reshape(length, -1)
        on = ((values & channels.mask) == channels.mask).all(axis=1)
    return FrameData(gps, int(rate), data.reshape(length, -1), on)


def _prepare(parent: int) -> None:
    """Set up a reader process: it ends with its parent, is silent, and has gwpy."""
    with_parent(parent)()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(ImportError):
        # gwpy's GWF backend takes a second or two to load.
        import gwpy.timeseries.io.gwf.lalframe  # noqa: F401 - loads it early


@dataclass(frozen=True)
class Reading:
    """A frame file that is being read.

    Attributes:
        file: The frame file.
        channels: The channels that are read.
        frame: The result.
        pool: The reader processes it was submitted to.
    """

    file: FrameFile
    channels: Channels
    frame: "Future[FrameData]"
    pool: ProcessPoolExecutor


class FrameReader:
    """Reads frame files in separate processes; a context manager.

    A damaged file may crash the library that reads it, and with it the process. The
    files that were being read are then read once more, by another process. A file that
    crashes that process as well, or exceeds ``READ_TIMEOUT``, is unreadable. The time
    in which a process starts does not count.

    Args:
        count: Number of processes.

    Raises:
        ConfigurationError: On entry: lalframe is not installed.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Self:
        try:
            import lalframe  # noqa: F401 - checks that it is installed
        except ImportError:
            raise ConfigurationError(
                "reading frame files needs lalframe; install chirpwatch with its "
                "`live` extra: pip install '.[live]'"
            ) from None
        self._start()
        # Loading the libraries takes seconds, which no frame file should wait for.
        self._wait_for_start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(
            self._count,
            multiprocessing.get_context("spawn"),
            _prepare,
            (os.getpid(),),
        )
        self._starting: list[Future[int]] = []
        # The first process may be killed before the second has started.
        with contextlib.suppress(BrokenExecutor):
            for _ in range(self._count):
                self._starting.append(self._pool.submit(os.getpid))

    def _wait_for_start(self) -> None:
        """Wait until a reader process runs; start new ones if they all crash."""
        for _ in range(MAX_STARTS):
            wait(self._starting, START_TIMEOUT)
            if any(pid.done() and not pid.exception() for pid in self._starting):
                return
            self._kill()
            self._start()

    def _kill(self) -> None:
        results = self._pool._result_queue
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
        # The exit of this process waits for the pool's thread, which may be reading a
        # half-sent result. It gets end-of-file once no writer is left.
        if results is not None:
            results._writer.close()  # type: ignore[attr-defined]  # private

    def submit(self, file: FrameFile, channels: Channels) -> Reading:
        """Begin to read a frame file."""
        arguments = (file.path, file.gps, file.length, channels)
        try:
            frame = self._pool.submit(read_frame, *arguments)
        except BrokenExecutor:
            self._start()
            frame = self._pool.submit(read_frame, *arguments)
        return Reading(file, channels, frame, self._pool)

    def result(self, reading: Reading) -> FrameData:
        """Wait for a frame file that is being read, and return its data.

        Raises:
            StrainError: It could not be read.
        """
        self._wait_for_start()
        try:
            return reading.frame.result(READ_TIMEOUT)
        except (BrokenExecutor, TimeoutError, CancelledError):
            pass
        # This file may not be the cause: the process may have been killed or stopped,
        # or another file may have crashed it.
        if reading.pool is self._pool:
            self._kill()
            self._start()
        self._wait_for_start()
        again = self.submit(reading.file, reading.channels).frame
        try:
            return again.result(READ_TIMEOUT)
        except (BrokenExecutor, TimeoutError) as error:
            self._kill()
            self._start()
            failure = (
                f"took longer than {READ_TIMEOUT:g} s"
                if isinstance(error, TimeoutError)
                else "crashed"
            )
            raise StrainError(
                f"{reading.file.path.name}: reading it {failure}, twice"
            ) from None


class FrameDirectory:
    """Watches the directory of a detector's frame files.

    Args:
        path: The directory; it need not exist yet.
        ifo: Detector.
    """

    def __init__(self, path: Path, ifo: str) -> None:
        self.path, self.ifo = path, ifo
        self._seen: dict[str, tuple[int, int]] = {}

    def new(self) -> Iterator[tuple[FrameFile, bool]]:
        """Yield the earliest frame files that are new or changed, in order of time.

        No more than ``MAX_NEW``: further new files wait in the directory, not in
        memory.

        Yields:
            The frame file, and whether it was yielded before and written again since.
        """
        new_files = []
        names = set()
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                # Its writer may remove it at any time.
                with contextlib.suppress(FileNotFoundError):
                    if match is None or not entry.is_file():
                        continue
                    names.add(entry.name)
                    status = entry.stat()
                    state = status.st_mtime_ns, status.st_size
                    before = self._seen.get(entry.name)
                    if before == state:
                        continue
                    file = FrameFile(
                        Path(entry.path),
                        int(match["gps"]),
                        int(match["length"]),
                        status.st_mtime,
                    )
                    if 1 <= file.length <= MAX_LENGTH:
                        new_files.append((file, state, before is not None))
        # Forget files that were removed.
        for name in self._seen.keys() - names:
            del self._seen[name]
        new_files.sort(key=lambda new: new[0].gps)
        for file, state, again in new_files[:MAX_NEW]:
            self._seen[file.path.name] = state
            yield file, again
