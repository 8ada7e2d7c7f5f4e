"""What Prometheus asks for: the service, and the runs that go on."""

import shutil
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chirpwatch.api.analysis.drift import drift
from chirpwatch.api.analysis.progress import run_status
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.contract.status import (
    BackgroundStatus,
    PerKind,
    RunStatus,
)
from chirpwatch.api.storage.database import (
    Database,
    RunRow,
)
from chirpwatch.api.web.change_feed import Changes

RUNS = 20
"""Runs that are told one by one: those that changed last."""

DRIFT_LENGTH = 3600.0
"""Newest time of a live run that is compared with background, s."""

METHODS = {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"}
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RunCollector(Collector):
    """The runs as they are when asked for."""

    def __init__(self, database: Database, accumulated: Accumulated) -> None:
        self._database, self._accumulated = database, accumulated

    def describe(self) -> list[Metric]:
        """Nothing: the database is not asked before somebody else asks."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the runs."""
        runs = GaugeMetricFamily("chirpwatch_runs", "Runs by state", labels=["state"])
        with self._database.reading() as session:
            for state, count in session.execute(
                select(RunRow.state, func.count()).group_by(RunRow.state)
            ):
                runs.add_metric([state], count)
            rows = session.scalars(
                select(RunRow).order_by(RunRow.updated.desc(), RunRow.id).limit(RUNS)
            ).all()
            told = [run_status(session, row, self._accumulated) for row in rows]
            drifted = {
                row.id: drift(session, row, self._accumulated, DRIFT_LENGTH).p_value
                for row, run in zip(rows, told, strict=True)
                if _is_live(run) and self._accumulated.noise(session, row).livetime
            }
        yield runs
        by_kind = ["run", "kind"]
        livetime = GaugeMetricFamily(
            "chirpwatch_livetime_seconds",
            "Valid time that no veto takes",
            labels=by_kind,
        )
        vetoed = GaugeMetricFamily(
            "chirpwatch_vetoed_seconds", "Valid time that vetoes take", labels=by_kind
        )
        planned = GaugeMetricFamily(
            "chirpwatch_planned_seconds", "Time that the run aims at", labels=by_kind
        )
        events = GaugeMetricFamily(
            "chirpwatch_events", "Events that no veto takes", labels=by_kind
        )
        throughput = GaugeMetricFamily(
            "chirpwatch_throughput_ratio",
            "Strain scored per wall time, s/s",
            labels=["run"],
        )
        latency = GaugeMetricFamily(
            "chirpwatch_update_latency_seconds",
            "From sending an update of strain to having its scores",
            labels=["run", "quantile"],
        )
        lag = GaugeMetricFamily(
            "chirpwatch_lag_seconds",
            "By how much the newest scores trail the clock, of runs on live data",
            labels=["run"],
        )
        drifts = GaugeMetricFamily(
            "chirpwatch_drift_p_value",
            "Probability that the last hour's events are still those of the background",
            labels=["run"],
        )
        updated = GaugeMetricFamily(
            "chirpwatch_updated_timestamp_seconds",
            "When the run last changed, Unix time",
            labels=["run", "state"],
        )
        for run in told:
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
            if run.throughput is not None:
                throughput.add_metric([run.id], run.throughput)
            if run.latency_ms is not None:
                for quantile, name in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99")):
                    value = getattr(run.latency_ms, name) / 1000
                    latency.add_metric([run.id, quantile], value)
            if run.id in drifted:
                drifts.add_metric([run.id], drifted[run.id])
            if run.lag is not None and run.arrived and _is_live(run):
                since = time.time() - run.arrived.timestamp()
                lag.add_metric([run.id], run.lag + since)
            updated.add_metric([run.id, run.state], run.updated.timestamp())
        yield from (livetime, vetoed, planned, events)
        yield from (throughput, latency, lag, drifts, updated)


def _is_live(run: RunStatus) -> bool:
    return run.state == "running" and run.lag is not None


def make_registry(
    database: Database, accumulated: Accumulated, changes: Changes
) -> tuple[CollectorRegistry, Histogram]:
    """The metrics of one service, and the one that takes how long answers took."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RunCollector(database, accumulated))
    listeners = Gauge(
        "chirpwatch_listeners", "Who listens to /v1/live now", registry=registry
    )
    listeners.set_function(lambda: changes.listeners)
    disk = Gauge(
        "chirpwatch_disk_free_bytes",
        "Free space where the SQLite file is, else where the service runs",
        registry=registry,
    )
    disk.set_function(lambda: shutil.disk_usage(database.folder).free)
    answers = Histogram(
        "chirpwatch_request_seconds",
        "Time to the begin of an answer",
        ["method", "route", "status"],
        buckets=BUCKETS,
        registry=registry,
    )
    return registry, answers


class Timing:
    """ASGI middleware that measures how long answers take, by route."""

    def __init__(self, app: ASGIApp, answers: Histogram) -> None:
        self._app, self._answers = app, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        def count(status: int) -> None:
            route = getattr(scope.get("route"), "path", "none")
            # A name from the request would make a metric for each.
            method = scope["method"] if scope["method"] in METHODS else "other"
            labels = method, route, str(status)
            self._answers.labels(*labels).observe(time.perf_counter() - begin)

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            # What no one expected is answered further out.
            count(500)
            raise
