"""Progress of a live run, for its page and for the log."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from chirpwatch.api.contract.requests import (
    LatencyMs,
    RunUpdate,
)
from chirpwatch.streamer.live.coincide import Gap
from chirpwatch.text import one_line

LATENCY_SECONDS = 600
"""Number of newest seconds whose latency is summarised."""

MAX_REASON = 200


@dataclass
class Summary:
    """Counts gaps, failures, candidates and latencies since the process started."""

    _analysed: int = 0
    _candidates: int = 0
    _gaps: int = 0
    _lost: int = 0
    _last_gap: str = ""
    _failures: int = 0
    _last_failure: str = ""
    _latencies: deque[float] = field(
        default_factory=lambda: deque(maxlen=LATENCY_SECONDS)
    )
    _reported: RunUpdate = field(default_factory=RunUpdate)

    def gap(self, gap: Gap) -> None:
        """Count a gap."""
        self._gaps += 1
        self._lost += gap.length
        self._last_gap = f"{gap.length} s from GPS {gap.gps}: {gap.reason}"

    def failure(self, error: Exception) -> None:
        """Count a failure of Triton, after which the request is repeated."""
        self._failures += 1
        self._last_failure = one_line(str(error), MAX_REASON)

    def scored(self, latency: float) -> None:
        """Count a scored second, with its latency since the newest frame file, s."""
        self._analysed += 1
        self._latencies.append(latency)

    def candidate(self) -> None:
        """Count a candidate."""
        self._candidates += 1

    def progress(self) -> tuple[str, dict[str, float]]:
        """A progress line for the log, and its numbers by name."""
        fields: dict[str, float] = {
            "analysed_s": self._analysed,
            "gaps": self._gaps,
            "lost_s": self._lost,
            "candidates": self._candidates,
        }
        latency = ""
        if (measured := self._latency()) is not None:
            fields |= {"latency_p50_ms": measured.p50, "latency_p99_ms": measured.p99}
            latency = f" (latency {measured.p50:g} ms, 99 %: {measured.p99:g} ms)"
        return (
            f"{self._analysed} s analysed{latency}, lost: {self._lost} s, gaps: "
            f"{self._gaps}, candidates: {self._candidates}",
            fields,
        )

    def _latency(self) -> LatencyMs | None:
        """Quantiles of the newest seconds' latency."""
        if not self._latencies:
            return None
        values = 1000 * np.array(self._latencies)
        p50, p90, p99 = np.round(np.quantile(values, (0.5, 0.9, 0.99)), 1)
        return LatencyMs(p50=p50, p90=p90, p99=p99, max=round(float(values.max()), 1))

    def update(self) -> RunUpdate | None:
        """The update for the API; None if nothing changed since the last one."""
        parts = []
        if self._gaps:
            parts.append(
                f"{self._lost} s lost in {self._gaps} gap{'s' * (self._gaps > 1)}, "
                f"the last of {self._last_gap}"
            )
        if self._failures:
            parts.append(
                f"Triton failed {self._failures} time{'s' * (self._failures > 1)} "
                f"and was retried, the last: {self._last_failure}"
            )
        message = "; ".join(parts)[:500] or None
        update = RunUpdate(message=message, latency_ms=self._latency())
        if update == self._reported:
            return None
        self._reported = update
        return update
