"""Prints a background run's plan, progress and results."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chirpwatch.background import Background
from chirpwatch.errors import StatisticsError
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.background.directory import RunDirectory
from chirpwatch.streamer.background.plan import (
    Plan,
    SlideJob,
)
from chirpwatch.streamer.background.run import RunTotals
from chirpwatch.units import JULIAN_YEAR

LOUDEST = 10
"""Number of loudest events in the report."""

RATES = {
    "one an hour": JULIAN_YEAR / 3600,
    "one a day": JULIAN_YEAR / 86_400,
    "one a week": JULIAN_YEAR / 604_800,
    "one a month": 12.0,
    "one a year": 1.0,
}
"""False-alarm rates whose thresholds are in the report, per Julian year."""


def show_plan(plan: Plan, facts: Mapping[str, Any], console: Console) -> None:
    """Print a run's plan."""
    geometry = plan.geometry
    kind = "simulated" if facts["simulated"] else "recorded"
    length = sum(stretch.strides for stretch in plan.stretches) * geometry.stride_length
    step = plan.step * geometry.frame_size / geometry.sample_rate
    table = Table(show_header=False, box=None)
    table.add_row("strain", f"{facts['data']} ({kind})")
    table.add_row("stretches", f"{len(plan.stretches)}, {length:g} s")
    table.add_row("slides", f"{plan.slides} in all, {step:g} s apart")
    table.add_row(
        "livetime",
        f"{duration(plan.livetime)}, of at most {duration(plan.max_livetime)}",
    )
    table.add_row("jobs", f"{len(plan.jobs)}")
    table.add_row("model", facts["model"])
    console.print(table)
    for description in plan.left_out:
        console.print(f"left out: {description}")


def show_estimate(length: float, console: Console) -> None:
    """Print the estimated run time, s."""
    console.print(
        f"takes about {duration(length)} with one job at a time; less if the servers "
        "have idle cores"
    )


@contextlib.contextmanager
def progress_bar(
    plan: Plan, jobs: Sequence[SlideJob], console: Console
) -> Iterator[Callable[[RunTotals], None]]:
    """Show a progress bar; yields a function that updates it after each job."""
    stride_length = plan.geometry.stride_length
    total = sum(sum(job.strides) for job in jobs) * stride_length
    bar = Progress(
        TextColumn("{task.fields[jobs]} jobs"),
        BarColumn(),
        TextColumn("{task.fields[livetime]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(
            "slides",
            total=total,
            jobs=f"0 of {len(jobs)}",
            livetime=f"0 s of {duration(total)}",
            rate="",
        )

        def update(totals: RunTotals) -> None:
            elapsed = bar.tasks[0].elapsed
            bar.update(
                task,
                completed=totals.livetime,
                jobs=f"{totals.jobs} of {len(jobs)}",
                livetime=f"{duration(totals.livetime)} of {duration(total)}",
                rate=f"{totals.livetime / elapsed:,.0f} s/s" if elapsed else "",
            )

        yield update


def summarise(
    results: RunDirectory, totals: RunTotals, path: Path, page: str
) -> dict[str, Any]:
    """Summarise a finished run as JSON values.

    Args:
        results: The run's directory.
        totals: Work and time of this process.
        path: File of the results.
        page: URL of the results page.

    Returns:
        ``run``, ``model``, ``simulated``, ``data``, ``stretches``, ``slides``,
        ``jobs``, ``livetime`` (s), ``events``, ``thresholds`` (for those
        ``RATES`` that the livetime reaches), ``loudest`` (the loudest events),
        ``wall`` (work and time of this process, s), ``file`` and ``page``.
    """
    plan, facts = results.plan, results.facts
    with h5py.File(path) as file:
        statistic = file["events/statistic"][:]
        time_ns = file["events/time_ns"][:]
        livetime = float(file.attrs["livetime"])
    order = np.argsort(-statistic, kind="stable")[:LOUDEST]
    # If no strain is valid, the slides have no livetime, and there is no rate.
    background = Background.of(statistic, livetime) if livetime else None
    loudest = []
    for i in order if background else []:
        assert background is not None
        far = background.far(float(statistic[i]))
        loudest.append(
            {
                "statistic": float(statistic[i]),
                "time": int(time_ns[i]) / NANOSECONDS,
                "far_per_year": far.far_per_year,
                "ifar_years": far.ifar_years,
            }
        )
    return {
        "run": results.run,
        "model": facts["model"],
        "simulated": facts["simulated"],
        "data": facts["data"],
        "stretches": len(plan.stretches),
        "slides": plan.slides,
        "jobs": len(plan.jobs),
        "livetime": livetime,
        "events": len(statistic),
        "thresholds": _thresholds(background, statistic, time_ns),
        "loudest": loudest,
        "wall": {
            "total": totals.wall_length,
            "jobs": totals.jobs,
            "livetime": totals.livetime,
            "reading": totals.read_length,
            "server": totals.server_length,
            "storing": totals.store_length,
            "retries": totals.retries,
        },
        "file": str(path),
        "page": page,
    }


def _thresholds(
    background: Background | None, statistic: NDArray[Any], time_ns: NDArray[Any]
) -> list[dict[str, Any]]:
    """Threshold of each false-alarm rate, and the number of events above it.

    Slides repeat the same strain: ``seconds`` is the number of GPS seconds of the first
    detector in which these events lie.
    """
    thresholds: list[dict[str, Any]] = []
    for name, far_per_year in RATES.items() if background else ():
        assert background is not None
        try:
            threshold = background.threshold_at_far(far_per_year)
        except StatisticsError:
            # The livetime is too short for this rate and the lower ones that follow.
            break
        if np.isfinite(threshold):
            # A threshold may differ from a statistic by less than float32 resolves.
            above = statistic.astype(np.float64) >= threshold
            thresholds.append(
                {
                    "rate": name,
                    "far_per_year": far_per_year,
                    "statistic": threshold,
                    "events": int(above.sum()),
                    "seconds": len(np.unique(time_ns[above] // NANOSECONDS)),
                }
            )
    return thresholds


def show_summary(report: Mapping[str, Any], console: Console) -> None:
    """Print a run's summary."""
    kind = "simulated strain" if report["simulated"] else "recorded strain"
    wall = report["wall"]
    console.print(f"\n[bold]{report['data']}[/bold] ({kind}, model {report['model']})")
    table = Table(show_header=False, box=None)
    table.add_row(
        "livetime, background",
        f"{duration(report['livetime'])} in {report['slides']} slides of "
        f"{report['stretches']} stretches",
    )
    table.add_row("background events", f"{report['events']}")
    if wall["jobs"]:
        table.add_row(
            "wall time",
            f"{duration(wall['total'])} for {wall['jobs']} of {report['jobs']} jobs, "
            f"{wall['livetime'] / wall['total']:,.0f} s of livetime per second",
        )
        table.add_row(
            "summed over workers",
            f"{wall['reading']:.1f} s reading strain, {wall['server']:.1f} s at the "
            f"server; {wall['storing']:.1f} s storing; {wall['retries']} retries",
        )
    console.print(table)
    table = Table(title="Thresholds")
    for column in ("false alarms", "statistic", "events above", "in seconds of strain"):
        table.add_column(column, justify="right")
    for threshold in report["thresholds"]:
        table.add_row(
            threshold["rate"],
            f"{threshold['statistic']:.2f}",
            f"{threshold['events']}",
            f"{threshold['seconds']}",
        )
    console.print(table)
    table = Table(title="The end of the IFAR curve")
    for column in ("statistic", "IFAR (years)", "FAR per year", "GPS time"):
        table.add_column(column, justify="right")
    for event in report["loudest"]:
        table.add_row(
            f"{event['statistic']:.2f}",
            f"{event['ifar_years']:.3g}",
            f"{event['far_per_year']:.3g}",
            f"{event['time']:.3f}",
        )
    console.print(table)
    console.print(f"\nThe events: {report['file']}")
    console.print(f"The page: [link={report['page']}]{report['page']}[/link]")


def duration(length: float) -> str:
    """Format a length of time for people, such as ``1.5 h (5400 s)``."""
    for unit, size in (("yr", JULIAN_YEAR), ("d", 86400.0), ("h", 3600.0)):
        if length >= size:
            return f"{length / size:.4g} {unit} ({length:.0f} s)"
    return f"{length:.1f} s"
