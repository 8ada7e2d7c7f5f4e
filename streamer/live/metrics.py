"""What a live search tells Prometheus."""

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
    """Counters and times of one search.

    Stages, from a frame that is whole: ``noticed``, ``read``, ``together`` (there of
    every detector), ``scored``; of a candidate ``decided``, from the frame that decided
    it. What telling it takes comes on top.

    Args:
        directory: Where the search keeps its state and results that wait.
    """

    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        self.stages = Histogram(
            "chirpwatch_live_stage_seconds",
            "From the time the newest frame was written to the end of a stage",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.frames = Counter(
            "chirpwatch_live_frames",
            "Frames by what became of them",
            ["ifo", "what"],
            registry=self.registry,
        )
        self.seconds = Counter(
            "chirpwatch_live_seconds",
            "Seconds of time: analysed, or a gap",
            ["what"],
            registry=self.registry,
        )
        self.sequences = Counter(
            "chirpwatch_live_sequences", "Sequences begun", registry=self.registry
        )
        self.server_failures = Counter(
            "chirpwatch_live_server_failures",
            "Answers of the server that were errors, or did not come",
            registry=self.registry,
        )
        self.candidates = Counter(
            "chirpwatch_live_candidates", "Candidates", registry=self.registry
        )
        self.told = Counter(
            "chirpwatch_live_told",
            "Candidates by sink and outcome",
            ["sink", "outcome"],
            registry=self.registry,
        )
        self.telling = Histogram(
            "chirpwatch_live_telling_seconds",
            "Time that telling a sink a candidate took",
            ["sink"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.newest = Gauge(
            "chirpwatch_live_newest_gps_seconds",
            "GPS time up to which strain was scored or given up",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "chirpwatch_live_waiting_results",
            "Results that the API has not taken yet",
            registry=self.registry,
        )
        self.background = Gauge(
            "chirpwatch_live_background_seconds",
            "Livetime of the background that candidates are ranked by; 0: none",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        disk = Gauge(
            "chirpwatch_live_disk_free_bytes",
            "Free space where state and results that wait are kept",
            registry=self.registry,
        )
        disk.set_function(lambda: shutil.disk_usage(directory).free)
