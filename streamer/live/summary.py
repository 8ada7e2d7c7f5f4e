"""What the page of a live run says: what was lost, and how long scores take."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from chirpwatch.api.contract.requests import (
    LatencyMs,
    RunUpdate,
)
from chirpwatch.streamer.live.coincide import Gap
from chirpwatch.text import one_line

SECONDS = 600
"""Newest seconds whose latency is told."""

MAX_REASON = 200


@dataclass
class Summary:
    """What happened to a run since this process works on it."""

    _gaps: int = 0
    _lost: int = 0
    _last_gap: str = ""
    _failures: int = 0
    _last_failure: str = ""
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=SECONDS))
    _told: RunUpdate = field(default_factory=RunUpdate)

    def gap(self, gap: Gap) -> None:
        """Seconds were given up."""
        self._gaps += 1
        self._lost += gap.length
        self._last_gap = f"{gap.length} s from GPS {gap.gps}: {gap.reason}"

    def failure(self, error: Exception) -> None:
        """Triton failed; what it was asked is asked again."""
        self._failures += 1
        self._last_failure = one_line(str(error), MAX_REASON)

    def scored(self, latency: float) -> None:
        """A second had its scores, this long after its newest frame was written, s."""
        self._latencies.append(latency)

    def update(self) -> RunUpdate | None:
        """What to tell the results service; nothing where it knows."""
        parts = []
        if self._gaps:
            parts.append(
                f"{self._lost} s lost in {self._gaps} gap{'s' * (self._gaps > 1)}, "
                f"the last of {self._last_gap}"
            )
        if self._failures:
            parts.append(
                f"Triton failed {self._failures} time{'s' * (self._failures > 1)} "
                f"and was asked again, the last: {self._last_failure}"
            )
        latency = None
        if self._latencies:
            values = 1000 * np.array(self._latencies)
            p50, p90, p99 = np.round(np.quantile(values, (0.5, 0.9, 0.99)), 1)
            largest = round(float(values.max()), 1)
            latency = LatencyMs(p50=p50, p90=p90, p99=p99, max=largest)
        message = "; ".join(parts)[:500] or None
        update = RunUpdate(message=message, latency_ms=latency)
        if update == self._told:
            return None
        self._told = update
        return update
