"""Prometheus metrics of the service and of its runs."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.drift import drift
from chirpwatch.api.analysis.progress import run_status
from chirpwatch.api.contract.status import (
    BackgroundStatus,
    PerKind,
    RunStatus,
)
from chirpwatch.api.storage.database import Database
from chirpwatch.api.storage.tables import RunRow
from chirpwatch.api.web.change_feed import ChangeFeed

REPORTED_RUNS = 20
"""Runs with metrics of their own: those that changed last."""

DRIFT_LENGTH = 3600.0
"""Length of a live run's newest data that the drift metric covers, s."""

METHODS = {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"}
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Edges of the response times' histogram, s."""


class RunCollector(Collector):
    """Collects metrics of the runs from the database at each scrape."""

    def __init__(self, database: Database, cache: RunCache) -> None:
        self._database, self._cache = database, cache

    def describe(self) -> list[Metric]:
        """Describe nothing, so that registering does not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Collect the metrics of the runs."""
        with self._database.reading() as session:
            states = session.execute(
                select(RunRow.state, func.count()).group_by(RunRow.state)
            ).all()
            rows = session.scalars(
                select(RunRow)
                .order_by(RunRow.updated.desc(), RunRow.id)
                .limit(REPORTED_RUNS)
            ).all()
            runs = [run_status(session, row, self._cache) for row in rows]
            drifts = {
                row.id: self._drift(session, row)
                for row, run in zip(rows, runs, strict=True)
                if _is_live(run) and self._cache.background(session, row).livetime
            }
        by_state = GaugeMetricFamily(
            "chirpwatch_runs", "Runs by state", labels=["state"]
        )
        for state, count in states:
            by_state.add_metric([state], count)
        yield by_state
        yield from _metrics_by_kind(runs)
        yield from _performance_metrics(runs)
        yield from _live_metrics(runs, drifts)

    def _drift(self, session: Session, run: RunRow) -> float:
        return drift(session, run, self._cache, DRIFT_LENGTH).p_value


def _metrics_by_kind(runs: Iterable[RunStatus]) -> Iterator[Metric]:
    """Livetime, vetoed time, planned time and events, by run and kind of data."""
    labels = ["run", "kind"]
    livetime = GaugeMetricFamily(
        "chirpwatch_livetime_seconds", "Valid time outside vetoed time", labels=labels
    )
    vetoed = GaugeMetricFamily(
        "chirpwatch_vetoed_seconds", "Valid time that vetoes remove", labels=labels
    )
    planned = GaugeMetricFamily(
        "chirpwatch_planned_seconds", "Time that the run aims for", labels=labels
    )
    events = GaugeMetricFamily(
        "chirpwatch_events", "Events outside vetoed time", labels=labels
    )
    for run in runs:
        parts: dict[str, PerKind | BackgroundStatus] = {
            "zero_lag": run.zero_lag,
            "background": run.background,
            "injections": run.injections,
        }
        for kind, part in parts.items():
            livetime.add_metric([run.id, kind], part.livetime)
            vetoed.add_metric([run.id, kind], part.vetoed)
            events.add_metric([run.id, kind], part.events)
            if part.planned is not None:
                planned.add_metric([run.id, kind], part.planned)
    return iter((livetime, vetoed, planned, events))


def _performance_metrics(runs: Iterable[RunStatus]) -> Iterator[Metric]:
    """Throughput and latency, by run."""
    throughput = GaugeMetricFamily(
        "chirpwatch_throughput_ratio",
        "Strain scored per second of wall time, s/s",
        labels=["run"],
    )
    latency = GaugeMetricFamily(
        "chirpwatch_update_latency_seconds",
        "Time from sending strain to receiving its scores",
        labels=["run", "quantile"],
    )
    for run in runs:
        if run.throughput is not None:
            throughput.add_metric([run.id], run.throughput)
        if run.latency_ms is not None:
            for quantile, name in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99")):
                value = getattr(run.latency_ms, name) / 1000
                latency.add_metric([run.id, quantile], value)
    return iter((throughput, latency))


def _live_metrics(
    runs: Iterable[RunStatus], drifts: Mapping[str, float]
) -> Iterator[Metric]:
    """Lag and drift of live runs, and when each run last changed."""
    lag = GaugeMetricFamily(
        "chirpwatch_lag_seconds",
        "Time since the newest scores' data, of live runs",
        labels=["run"],
    )
    drift_p_value = GaugeMetricFamily(
        "chirpwatch_drift_p_value",
        "p-value of the last hour's event counts, given the background, of live runs",
        labels=["run"],
    )
    updated = GaugeMetricFamily(
        "chirpwatch_updated_timestamp_seconds",
        "When the run last changed, Unix time",
        labels=["run", "state"],
    )
    for run in runs:
        if run.id in drifts:
            drift_p_value.add_metric([run.id], drifts[run.id])
        if run.lag is not None and run.arrived and _is_live(run):
            since_arrival = time.time() - run.arrived.timestamp()
            lag.add_metric([run.id], run.lag + since_arrival)
        updated.add_metric([run.id, run.state], run.updated.timestamp())
    return iter((lag, drift_p_value, updated))


def _is_live(run: RunStatus) -> bool:
    return run.state == "running" and run.lag is not None


def make_registry(
    database: Database, cache: RunCache, feed: ChangeFeed
) -> tuple[CollectorRegistry, Histogram]:
    """Make the service's metrics.

    Returns:
        The registry, and its histogram of response times for `Timing`.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RunCollector(database, cache))
    listeners = Gauge(
        "chirpwatch_listeners", "Clients connected to /v1/live", registry=registry
    )
    listeners.set_function(lambda: feed.listeners)
    disk = Gauge(
        "chirpwatch_disk_free_bytes",
        "Free space on the disk with the SQLite file, or with the working directory",
        registry=registry,
    )
    disk.set_function(lambda: shutil.disk_usage(database.folder).free)
    response_times = Histogram(
        "chirpwatch_request_seconds",
        "Time from request to the start of the response",
        ["method", "route", "status"],
        buckets=BUCKETS,
        registry=registry,
    )
    return registry, response_times


class Timing:
    """ASGI middleware that measures response times, by route."""

    def __init__(self, app: ASGIApp, response_times: Histogram) -> None:
        self._app, self._response_times = app, response_times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        def count(status: int) -> None:
            route = getattr(scope.get("route"), "path", "none")
            # Arbitrary names from requests would make a metric each.
            method = scope["method"] if scope["method"] in METHODS else "other"
            labels = method, route, str(status)
            self._response_times.labels(*labels).observe(time.perf_counter() - begin)

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            # An outer middleware makes the response to an unexpected error.
            count(500)
            raise
