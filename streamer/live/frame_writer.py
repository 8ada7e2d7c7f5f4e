"""Recorded strain written as low-latency distribution does: a frame a second."""

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
"""Values of the state vector in a second."""


@dataclass(frozen=True)
class FrameWriter:
    """Writes frames of some detectors.

    Attributes:
        directory: Each detector's frames go to a directory of its name in here.
        kept: Newest frames of each detector that are kept, s; the older are removed.
        kind: What stands in the frames' names after the detector, as in `llhoft`.
    """

    directory: Path
    kept: int = 300
    kind: str = "llhoft"

    def path(self, ifo: str, gps: int) -> Path:
        """Where a frame of one second is written."""
        name = f"{ifo[0]}-{ifo}_{self.kind}-{gps}-1.gwf"
        return self.directory / ifo / name

    def write(self, ifo: str, gps: int, strain: NDArray[Any], on: bool = True) -> Path:
        """Write a second of a detector; it appears whole.

        Args:
            ifo: Detector.
            gps: The second, GPS.
            strain: [rate].
            on: Whether the state vector allows it to be analysed.
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
    told: Callable[[int], None] = lambda gps: None,
) -> None:
    """Write the whole seconds of some segments, in time with a clock.

    Args:
        writer: Where to.
        segments: The strain, in order of time; what lies between is not written.
        ifos: Detectors.
        speed: Seconds of strain in a second; infinite: as fast as it goes.
        told: Told each second that was written, GPS.

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
            raise StrainError(f"{segment.source}: no whole second in {segment.name}")
        for number in range(seconds):
            gps = start + number
            first = gps if first is None else first
            # A frame appears once its second is over.
            due = begin + (gps + 1 - first) / speed
            time.sleep(max(0.0, due - time.monotonic()))
            at = offset + number * segment.sample_rate
            for ifo in ifos:
                strain = segment.strain[ifo][at : at + segment.sample_rate]
                writer.write(ifo, gps, np.asarray(strain))
            told(gps)
