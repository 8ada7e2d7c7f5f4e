"""Throughput and latency of a replay."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.replay.jobs import SequenceJob

LATENCY_STRIDES = 400
"""Number of single-stride requests that measure the latency."""


@dataclass(frozen=True)
class ReplaySpeed:
    """Throughput and latency of a replay.

    Attributes:
        strain_length: Strain searched in sequences, s; each injection set counts again.
        wall_length: Wall time of the sequences, s.
        slides_length: Strain searched in timeslides, s; every slide counts.
        slides_wall_length: Wall time of the timeslides, s.
        latencies: Latencies of single-stride requests, one at a time, s.
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


def measure_latency(address: str, job: SequenceJob) -> NDArray[Any]:
    """Measure the latency of a job's single-stride requests, one at a time.

    Args:
        address: gRPC address of the Triton server.
        job: The job whose strain is sent.

    Returns:
        Latencies, s, without those of the warm-up.
    """
    strides = min(LATENCY_STRIDES, job.strides)
    answers = ScoreClient(address, window=1).stream(job.read, strides, 1)
    # The first requests include the set-up of the stream and the sequence.
    return np.array([scores.latency for scores in answers][min(8, strides // 2) :])
