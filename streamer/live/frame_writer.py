"""Writes recorded strain as low-latency frame files of 1 s."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import StrainError
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.streamer.live.channels import low_latency_channels

STATE_RATE = 16
"""Sample rate of the state vector, Hz."""


@dataclass(frozen=True)
class FrameWriter:
    """Writes frame files of 1 s, and removes old ones.

    Attributes:
        directory: Parent of the directories, one for each detector.
        kept: Number of each detector's newest frame files to keep.
        kind: Part of the file name after the detector, such as `llhoft`.
    """

    directory: Path
    kept: int = 300
    kind: str = "llhoft"

    def path(self, ifo: str, gps: int) -> Path:
        """Path of a detector's frame file."""
        name = f"{ifo[0]}-{ifo}_{self.kind}-{gps}-1.gwf"
        return self.directory / ifo / name

    def write(self, ifo: str, gps: int, strain: NDArray[Any], on: bool = True) -> Path:
        """Write a second of a detector's strain, atomically.

        Args:
            ifo: Detector.
            gps: Start of the second, GPS s.
            strain: [rate].
            on: Whether the state vector allows the second to be analysed.

        Returns:
            Path of the frame file.
        """
        from gwpy.timeseries import TimeSeries, TimeSeriesDict

        names = low_latency_channels(ifo)
        state = names.mask if on else 0
        channels = TimeSeriesDict()
        for channel, data in (
            (names.strain, np.asarray(strain, dtype=np.float64)),
            (names.state, np.full(STATE_RATE, state, np.uint32)),
        ):
            channels[channel] = TimeSeries(
                data, t0=gps, sample_rate=data.size, name=channel, channel=channel
            )
        path = self.path(ifo, gps)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        channels.write(temporary, format="gwf", backend="LALFrame")
        temporary.replace(path)
        self.path(ifo, gps - self.kept).unlink(missing_ok=True)
        return path


def replay_frames(
    writer: FrameWriter,
    segments: Sequence[Segment],
    ifos: Sequence[str],
    speed: float,
    on_written: Callable[[int], None] = lambda gps: None,
) -> None:
    """Write the whole seconds of some segments, in real time.

    Args:
        writer: Writes the frame files.
        segments: The strain, in order of time; nothing is written in the gaps between.
        ifos: Detectors.
        speed: Speed relative to real time; infinite: as fast as possible.
        on_written: Called with the GPS time of each second that was written, s.

    Raises:
        StrainError: A segment holds no whole second.
    """
    begin, first = time.monotonic(), None
    for segment in segments:
        start = -(-segment.t0_ns // NANOSECONDS)
        skip = (start * NANOSECONDS - segment.t0_ns) * segment.sample_rate
        offset = skip // NANOSECONDS
        seconds = (segment.size - offset) // segment.sample_rate
        if seconds < 1:
            raise StrainError(
                f"{segment.source}: expected a whole GPS second in segment "
                f"{segment.name}, found {segment.duration:g} s from "
                f"{segment.t0_ns / NANOSECONDS:.9f}"
            )
        for number in range(seconds):
            gps = start + number
            first = gps if first is None else first
            # A frame file appears once its second is over.
            due = begin + (gps + 1 - first) / speed
            time.sleep(max(0.0, due - time.monotonic()))
            at = offset + number * segment.sample_rate
            for ifo in ifos:
                strain = segment.strain[ifo][at : at + segment.sample_rate]
                writer.write(ifo, gps, np.asarray(strain))
            on_written(gps)
