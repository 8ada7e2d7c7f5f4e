"""Prometheus metrics of a live search."""

import shutil
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class LiveMetrics:
    """Counters, gauges and latencies of a search.

    The latency of each stage counts from when the frame file was written: ``noticed``,
    ``read``, ``together`` (every detector delivered the second), ``scored``, and
    ``decided`` for a candidate. Sending the candidate is measured separately.

    Args:
        directory: Directory for state and undelivered results.
    """

    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        self.stages = Histogram(
            "chirpwatch_live_stage_seconds",
            "Latency from the writing of the newest frame file to the end of a stage",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.frames = Counter(
            "chirpwatch_live_frames",
            "Frame files by outcome",
            ["ifo", "what"],
            registry=self.registry,
        )
        self.seconds = Counter(
            "chirpwatch_live_seconds",
            "Seconds of strain that were analysed, or are in a gap",
            ["what"],
            registry=self.registry,
        )
        self.sequences = Counter(
            "chirpwatch_live_sequences", "Sequences begun", registry=self.registry
        )
        self.server_failures = Counter(
            "chirpwatch_live_server_failures",
            "Triton requests that failed or timed out",
            registry=self.registry,
        )
        self.candidates = Counter(
            "chirpwatch_live_candidates", "Candidates", registry=self.registry
        )
        self.deliveries = Counter(
            "chirpwatch_live_told",
            "Deliveries of candidates, by sink and outcome",
            ["sink", "outcome"],
            registry=self.registry,
        )
        self.delivery_length = Histogram(
            "chirpwatch_live_telling_seconds",
            "Time to deliver a candidate to a sink",
            ["sink"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.newest = Gauge(
            "chirpwatch_live_newest_gps_seconds",
            "GPS time up to which strain was scored or declared a gap",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "chirpwatch_live_waiting_results",
            "Results that the API has not taken yet",
            registry=self.registry,
        )
        self.background = Gauge(
            "chirpwatch_live_background_seconds",
            "Livetime of the background that ranks candidates; 0 without background",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        disk = Gauge(
            "chirpwatch_live_disk_free_bytes",
            "Free space on the disk of state and undelivered results",
            registry=self.registry,
        )
        disk.set_function(lambda: shutil.disk_usage(directory).free)
