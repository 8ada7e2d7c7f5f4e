"""Frames as low-latency distribution writes them: ``H-H1_llhoft-1264316116-1.gwf``."""

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
"""Longest frame that is read, s."""

AT_ONCE = 64
"""Frames of a detector that are read before others are looked for."""

READ_TIMEOUT = 5.0
"""Longest time that reading a frame may take, s."""

START_TIMEOUT = 30.0
"""Longest time that a process which reads may take to start, s."""

STARTS = 3
"""Most processes that are started, one after the other, for a frame to be read."""

_NAME = re.compile(
    r"(?P<site>[A-Z])-(?P<kind>[A-Za-z0-9_+#]+)-(?P<gps>\d{9,10})-(?P<length>\d{1,4})\.gwf"
)


@dataclass(frozen=True)
class FrameFile:
    """A frame that is there.

    Attributes:
        path: Where.
        gps: First second, GPS.
        length: Seconds.
        arrived: When it was written, Unix time, s.
    """

    path: Path
    gps: int
    length: int
    arrived: float


@dataclass(frozen=True)
class Frame:
    """What is in a frame.

    Attributes:
        gps: First second, GPS.
        rate: Samples in a second.
        strain: float64, [seconds, rate].
        on: Whether the state vector allows each second, bool [seconds].
    """

    gps: int
    rate: int
    strain: NDArray[Any]
    on: NDArray[Any]


def read_frame(path: Path, gps: int, length: int, channels: Channels) -> Frame:
    """Read a frame with gwpy, if its checksums are those of its content.

    Raises:
        StrainError: It cannot be read, or is not what its name says.
    """
    # It takes a second to import, and is done by the reading processes alone.
    import lalframe
    from gwpy.timeseries.io.gwf.core import read_timeseriesdict

    names = [channels.strain] + ([channels.state] if channels.state else [])
    try:
        if not lalframe.FrFileCksumValid(lalframe.FrFileOpenURL(str(path))):
            raise ValueError("a checksum is wrong")
        # Of what `TimeSeriesDict.read` opens, gwpy keeps for ever that it is no URL.
        found = read_timeseriesdict(str(path), names, backend="LALFrame")
        strain = found[channels.strain]
        start, rate = float(strain.t0.value), float(strain.sample_rate.value)
        data = np.asarray(strain.value, dtype=np.float64)
        state = None if channels.state is None else found[channels.state].value
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
                f"{path.name}: expected as many values of {channels.state} in each "
                f"second, found {state.size} in {length} s"
            )
        values = np.asarray(state).astype(np.int64).reshape(length, -1)
        on = ((values & channels.mask) == channels.mask).all(axis=1)
    return Frame(gps, int(rate), data.reshape(length, -1), on)


def _prepare(parent: int) -> None:
    """Make a reading process ready: the libraries, no chatter of theirs, no orphan."""
    with_parent(parent)()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(ImportError):
        # What gwpy reads by, which takes it a second or two.
        import gwpy.timeseries.io.gwf.lalframe  # noqa: F401


@dataclass(frozen=True)
class Reading:
    """A frame that is being read.

    Attributes:
        file: The frame.
        channels: What is read of it.
        frame: What was read, once it was.
        pool: The processes of which one reads it.
    """

    file: FrameFile
    channels: Channels
    frame: "Future[Frame]"
    pool: ProcessPoolExecutor


class FrameReader:
    """Reads frames in processes of their own; a context manager.

    A damaged frame may end the library that reads it, and with it its process. What was
    under way then is read once more by another process; a frame that ends, or holds up,
    that one as well cannot be read. The time that a process takes to start is no
    frame's.

    Args:
        count: Processes.

    Raises:
        ConfigurationError: On entry: what reads frames is not installed.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Self:
        try:
            import lalframe  # noqa: F401 - only whether it is there
        except ImportError:
            raise ConfigurationError(
                "reading frames needs lalframe; install chirpwatch with its `live` "
                "extra: pip install '.[live]'"
            ) from None
        self._start()
        # Their libraries take a second to load, which the first frames need not wait.
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
        # The first may be killed before the second is there.
        with contextlib.suppress(BrokenExecutor):
            for _ in range(self._count):
                self._starting.append(self._pool.submit(os.getpid))

    def _wait_for_start(self) -> None:
        """Wait until there are processes that read; start others where they end."""
        for _ in range(STARTS):
            wait(self._starting, START_TIMEOUT)
            if any(one.done() and not one.exception() for one in self._starting):
                return
            self._kill()
            self._start()

    def _kill(self) -> None:
        results = self._pool._result_queue
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
        # The pool's thread, which the end of this process waits for, may have half of
        # a result; that the rest never comes is seen once nobody could send it.
        if results is not None:
            results._writer.close()  # type: ignore[attr-defined]

    def submit(self, file: FrameFile, channels: Channels) -> Reading:
        """Begin to read a frame."""
        arguments = (file.path, file.gps, file.length, channels)
        try:
            frame = self._pool.submit(read_frame, *arguments)
        except BrokenExecutor:
            self._start()
            frame = self._pool.submit(read_frame, *arguments)
        return Reading(file, channels, frame, self._pool)

    def result(self, reading: Reading) -> Frame:
        """What was read.

        Raises:
            StrainError: It could not be read.
        """
        self._wait_for_start()
        try:
            return reading.frame.result(READ_TIMEOUT)
        except (BrokenExecutor, TimeoutError, CancelledError):
            pass
        # It may not be this frame's fault: the process was killed, or stood still, or
        # another frame ended it.
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
            what = "took too long" if isinstance(error, TimeoutError) else "crashed"
            raise StrainError(
                f"{reading.file.path.name}: reading it {what}, twice"
            ) from None


class FrameDirectory:
    """The frames of one detector, as they appear in a directory.

    Args:
        path: The directory; it need not be there yet.
        ifo: Detector.
    """

    def __init__(self, path: Path, ifo: str) -> None:
        self.path, self.ifo = path, ifo
        self._seen: dict[str, tuple[int, int]] = {}

    def new(self) -> Iterator[tuple[FrameFile, bool]]:
        """The first frames that were not told before, in order of time.

        No more than ``AT_ONCE``: where many wait, the others wait in the directory,
        not in memory.

        Yields:
            The frame, and whether one of this name was told before and was written
            anew.
        """
        found = []
        there = set()
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                # Its writer may take it away again at any time.
                with contextlib.suppress(FileNotFoundError):
                    if match is None or not entry.is_file():
                        continue
                    there.add(entry.name)
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
                        found.append((file, state, before is not None))
        # Old frames are taken away, and their names forgotten.
        for name in self._seen.keys() - there:
            del self._seen[name]
        found.sort(key=lambda one: one[0].gps)
        for file, state, again in found[:AT_ONCE]:
            self._seen[file.path.name] = state
            yield file, again
