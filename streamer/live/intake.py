"""From the detectors' frame files to seconds of strain in order of time."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import StrainError
from chirpwatch.streamer.live.channels import Channels
from chirpwatch.streamer.live.coincide import (
    Assembler,
    CoincidentSecond,
    DetectorSecond,
    Gap,
)
from chirpwatch.streamer.live.frames import (
    FrameData,
    FrameDirectory,
    FrameFile,
    FrameReader,
    Reading,
)
from chirpwatch.streamer.live.metrics import LiveMetrics

log = logging.getLogger("chirpwatch.live")


class Intake:
    """Reads new frame files, and aligns the detectors' seconds.

    Args:
        directory: Directory with a directory of frame files for each detector.
        channels: Channels to read from each detector's frame files.
        patience: Longest wait for an incomplete second, s.
        reader: Reads frame files.
        metrics: Metrics in which frame files are counted.
    """

    def __init__(
        self,
        directory: Path,
        channels: Mapping[str, Channels],
        patience: float,
        reader: FrameReader,
        metrics: LiveMetrics,
    ) -> None:
        self._channels, self._reader, self._metrics = channels, reader, metrics
        self._directories = {
            ifo: FrameDirectory(directory / ifo, ifo) for ifo in channels
        }
        self._assembler = Assembler(tuple(channels), patience)

    def begin_reading(self) -> list[tuple[str, Reading]]:
        """Begin to read the new frame files; return each reading with its detector."""
        new = [
            (ifo, file, again)
            for ifo, directory in self._directories.items()
            for file, again in directory.new()
        ]
        self._choose_first([(ifo, file) for ifo, file, _ in new])
        now = time.time()
        readings = []
        for ifo, file, again in new:
            if again and self._assembler.has(ifo, file.gps):
                # Written again after it was read: the first version counts.
                self._count(ifo, "twice")
                continue
            self._metrics.stages.labels("noticed").observe(max(0, now - file.arrived))
            readings.append((ifo, self._reader.submit(file, self._channels[ifo])))
        return readings

    def _choose_first(self, new: Sequence[tuple[str, FrameFile]]) -> None:
        """Set the first second: the latest of the detectors' first seconds."""
        if self._assembler.next is not None:
            return
        starts = [
            min((file.gps for ifo, file in new if ifo == name), default=None)
            for name in self._directories
        ]
        if starts and None not in starts:
            self._assembler.next = max(start for start in starts if start is not None)

    def finish_reading(self, readings: Sequence[tuple[str, Reading]]) -> None:
        """Wait for the frame files that are being read, and take their seconds."""
        for ifo, reading in readings:
            try:
                frame = self._reader.result(reading)
            except StrainError as error:
                # It may be written again; otherwise its seconds become a gap.
                self._count(ifo, "unreadable")
                log.warning("%s", error)
                continue
            self._metrics.stages.labels("read").observe(
                max(0, time.time() - reading.file.arrived)
            )
            self._count(ifo, "read")
            self._take(ifo, reading.file, frame)

    def _take(self, ifo: str, file: FrameFile, frame: FrameData) -> None:
        """Pass the seconds of a frame file on to the assembler."""
        for number in range(file.length):
            second = _second(frame.strain[number], frame.on[number], file.arrived)
            before = self._assembler.counts.copy()
            gps = file.gps + number
            self._assembler.offer(ifo, gps, second, time.monotonic())
            for irregularity in self._assembler.counts - before:
                self._count(ifo, irregularity)
            if second.reason:
                self._count(ifo, second.reason.replace(" ", "_"))

    def ready(self, now: float) -> Iterator[CoincidentSecond | Gap]:
        """Yield the seconds and gaps that are decided, in order of time.

        Args:
            now: When the directories were last listed, by ``time.monotonic``, s.
        """
        return self._assembler.ready(now)

    def _count(self, ifo: str, what: str) -> None:
        self._metrics.frames.labels(ifo, what).inc()


def _second(strain: NDArray[Any], on: bool, arrived: float) -> DetectorSecond:
    """A second of strain, or the reason why it is not analysed."""
    if not on:
        return DetectorSecond(None, arrived, "off")
    if not np.isfinite(strain).all():
        return DetectorSecond(None, arrived, "not finite")
    if strain.max() == strain.min():
        return DetectorSecond(None, arrived, "stands still")
    return DetectorSecond(strain, arrived)
