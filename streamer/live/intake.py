"""Frames of all detectors, as they appear, to seconds in order of time."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import StrainError
from chirpwatch.streamer.live.channels import Channels
from chirpwatch.streamer.live.coincide import Assembler, Gap, Second, Together
from chirpwatch.streamer.live.frames import (
    Frame,
    FrameDirectory,
    FrameFile,
    FrameReader,
    Reading,
)
from chirpwatch.streamer.live.metrics import LiveMetrics

log = logging.getLogger("chirpwatch.live")


class Intake:
    """Reads frames and brings the detectors' seconds together.

    Args:
        directory: Directory with a directory of frames for each detector.
        channels: What is read of each detector's frames.
        patience: Longest wait for a frame of one detector that another one has, s.
        reader: Reads frames.
        metrics: Where frames are counted.
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
        """Begin to read the frames that are new, each with its detector."""
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
                # Written again after it was read: the first one counts.
                self._count(ifo, "twice")
                continue
            self._metrics.stages.labels("noticed").observe(max(0, now - file.arrived))
            readings.append((ifo, self._reader.submit(file, self._channels[ifo])))
        return readings

    def _choose_first(self, new: Sequence[tuple[str, FrameFile]]) -> None:
        """Begin with the first second from which on every detector has frames."""
        if self._assembler.next is not None:
            return
        starts = [
            min((file.gps for ifo, file in new if ifo == name), default=None)
            for name in self._directories
        ]
        if starts and None not in starts:
            self._assembler.next = max(start for start in starts if start is not None)

    def finish_reading(self, readings: Sequence[tuple[str, Reading]]) -> None:
        """Wait for frames that are being read, and take their seconds."""
        for ifo, reading in readings:
            try:
                frame = self._reader.result(reading)
            except StrainError as error:
                # It may be written once more; else its second is missing.
                self._count(ifo, "unreadable")
                log.warning("%s", error)
                continue
            self._metrics.stages.labels("read").observe(
                max(0, time.time() - reading.file.arrived)
            )
            self._count(ifo, "read")
            self._take(ifo, reading.file, frame)

    def _take(self, ifo: str, file: FrameFile, frame: Frame) -> None:
        """Take the seconds of a frame."""
        for number in range(file.length):
            second = _second(frame.strain[number], frame.on[number], file.arrived)
            before = self._assembler.counts.copy()
            gps = file.gps + number
            self._assembler.offer(ifo, gps, second, time.monotonic())
            for what in self._assembler.counts - before:
                self._count(ifo, what)
            if second.reason:
                self._count(ifo, second.reason.replace(" ", "_"))

    def ready(self, now: float) -> Iterator[Together | Gap]:
        """Seconds and gaps that are decided, in order of time.

        Args:
            now: When frames were last looked for, by ``time.monotonic``, s.
        """
        return self._assembler.ready(now)

    def _count(self, ifo: str, what: str) -> None:
        self._metrics.frames.labels(ifo, what).inc()


def _second(strain: NDArray[Any], on: bool, arrived: float) -> Second:
    """A second of a frame, or why it is not to be analysed."""
    if not on:
        return Second(None, arrived, "off")
    if not np.isfinite(strain).all():
        return Second(None, arrived, "not finite")
    if strain.max() == strain.min():
        return Second(None, arrived, "stands still")
    return Second(strain, arrived)
