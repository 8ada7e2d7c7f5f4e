"""How fast a replay is: throughput and latency."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.replay.jobs import Job

LATENCY_STRIDES = 400
"""Single-stride updates that the latency is measured with."""


@dataclass(frozen=True)
class Measured:
    """How fast a replay was.

    Attributes:
        strain_length: Strain searched, s: every sequence once for its row 0, and once
            for each of its injection sets.
        wall_length: Time it took, s.
        slides_length: Strain searched in timeslides, every slide counted, s.
        slides_wall_length: Time that took, s.
        latencies: Of single-stride updates, one at a time, s.
    """

    strain_length: float
    wall_length: float
    slides_length: float
    slides_wall_length: float
    latencies: NDArray[Any]

    @property
    def throughput(self) -> float:
        """Strain searched per second of wall time, s/s."""
        return self.strain_length / self.wall_length

    @property
    def slides_throughput(self) -> float | None:
        """Slide-seconds per second of wall time, s/s; None without slides."""
        if not self.slides_length:
            return None
        return self.slides_length / self.slides_wall_length

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the latency, ms."""
        p50, p90, p99 = np.percentile(self.latencies, (50, 90, 99)) * 1e3
        return {
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": self.latencies.max() * 1e3,
        }


def measure_latency(address: str, job: Job) -> NDArray[Any]:
    """Time single-stride updates of a job, one at a time."""
    strides = min(LATENCY_STRIDES, job.strides)
    pieces = ScoreClient(address, window=1).stream(job.read, strides, 1)
    # The first answers include the set-up of stream and sequence.
    return np.array([piece.latency for piece in pieces][min(8, strides // 2) :])
