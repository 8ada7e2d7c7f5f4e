"""What a background run says: its plan, how far it is, what it found."""

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
    Job,
    Plan,
)
from chirpwatch.streamer.background.run import Measured
from chirpwatch.units import JULIAN_YEAR

LOUDEST = 10
"""Events at the end of the IFAR curve that the report lists."""

RATES = {
    "one an hour": JULIAN_YEAR / 3600,
    "one a day": JULIAN_YEAR / 86_400,
    "one a week": JULIAN_YEAR / 604_800,
    "one a month": 12.0,
    "one a year": 1.0,
}
"""False-alarm rates whose thresholds the report lists, per year."""


def show_plan(plan: Plan, facts: Mapping[str, Any], console: Console) -> None:
    """Print what a run is going to do."""
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
        f"{duration(plan.livetime)}, of at most {duration(plan.most_livetime)}",
    )
    table.add_row("jobs", f"{len(plan.jobs)}")
    table.add_row("model", facts["model"])
    console.print(table)
    for what in plan.left_out:
        console.print(f"left out: {what}")


def show_estimate(length: float, console: Console) -> None:
    """Print how long a run may take."""
    console.print(
        f"takes about {duration(length)} if one job is done at a time, less where the "
        "servers have cores to spare"
    )


@contextlib.contextmanager
def progress_bar(
    plan: Plan, jobs: Sequence[Job], console: Console
) -> Iterator[Callable[[Measured], None]]:
    """A bar that shows how far jobs are; yields what is to be told of each."""
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

        def told(measured: Measured) -> None:
            elapsed = bar.tasks[0].elapsed
            bar.update(
                task,
                completed=measured.livetime,
                jobs=f"{measured.jobs} of {len(jobs)}",
                livetime=f"{duration(measured.livetime)} of {duration(total)}",
                rate=f"{measured.livetime / elapsed:,.0f} s/s" if elapsed else "",
            )

        yield told


def summarise(
    results: RunDirectory, measured: Measured, path: Path, page: str
) -> dict[str, Any]:
    """What a run found, as plain values, ready for JSON.

    Args:
        results: The run's directory, finished.
        measured: What this process did of it.
        path: File of the results.
        page: Address of the API's page.

    Returns:
        ``run``, ``model``, ``simulated``, ``data``, ``stretches``, ``slides``,
        ``jobs``, ``livetime`` (s), ``events``, ``thresholds`` (those of
        ``RATES`` that the livetime reaches), ``loudest`` (the end of the IFAR
        curve), ``wall`` (where the time went, s), ``file`` and ``page``.
    """
    plan, facts = results.plan, results.facts
    with h5py.File(path) as file:
        statistic = file["events/statistic"][:]
        time_ns = file["events/time_ns"][:]
        livetime = float(file.attrs["livetime"])
    order = np.argsort(-statistic, kind="stable")[:LOUDEST]
    # Strain that was never sound gives slides without livetime, and no rate.
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
            "total": measured.wall_length,
            "jobs": measured.jobs,
            "livetime": measured.livetime,
            "reading": measured.read_length,
            "server": measured.server_length,
            "storing": measured.store_length,
            "retries": measured.retries,
        },
        "file": str(path),
        "page": page,
    }


def _thresholds(
    background: Background | None, statistic: NDArray[Any], time_ns: NDArray[Any]
) -> list[dict[str, Any]]:
    """Smallest statistics at which false-alarm rates hold, and events above them.

    Slides show the same strain again: ``seconds`` is in how many whole seconds of the
    first detector these events lie.
    """
    found: list[dict[str, Any]] = []
    for name, far_per_year in RATES.items() if background else ():
        assert background is not None
        try:
            threshold = background.threshold_at_far(far_per_year)
        except StatisticsError:
            # The livetime is too short for this rate, and so for those that follow.
            break
        if np.isfinite(threshold):
            # Thresholds are nearer to a statistic than single precision can tell.
            above = statistic.astype(np.float64) >= threshold
            found.append(
                {
                    "rate": name,
                    "far_per_year": far_per_year,
                    "statistic": threshold,
                    "events": int(above.sum()),
                    "seconds": len(np.unique(time_ns[above] // NANOSECONDS)),
                }
            )
    return found


def show_summary(report: Mapping[str, Any], console: Console) -> None:
    """Print what a run found."""
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
            "of it, workers added up",
            f"{wall['reading']:.1f} s reading strain, {wall['server']:.1f} s at the "
            f"server; {wall['storing']:.1f} s storing; {wall['retries']} retries",
        )
    console.print(table)
    table = Table(title="Thresholds")
    for column in ("false alarms", "statistic", "events above", "in seconds of strain"):
        table.add_column(column, justify="right")
    for one in report["thresholds"]:
        table.add_row(
            one["rate"],
            f"{one['statistic']:.2f}",
            f"{one['events']}",
            f"{one['seconds']}",
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
    """A length of time for people: seconds, with years, days or hours beside it."""
    for unit, size in (("yr", JULIAN_YEAR), ("d", 86400.0), ("h", 3600.0)):
        if length >= size:
            return f"{length / size:.4g} {unit} ({length:.0f} s)"
    return f"{length:.1f} s"
