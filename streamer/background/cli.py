"""``chirpwatch background``: measure the background with many timeslides."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from chirpwatch.errors import ServerError
from chirpwatch.limits import STRETCH_LENGTH
from chirpwatch.logs import LOG_FORMAT
from chirpwatch.streamer.background.cluster import (
    BATCH_SYSTEMS,
    connect,
)
from chirpwatch.streamer.options import (
    DATA,
    REPOSITORY,
    RESULTS,
    StrainCommand,
    chosen,
    connection,
    directory_option,
    keep_up,
    with_options,
    write_json,
)
from chirpwatch.units import JULIAN_YEAR

if TYPE_CHECKING:
    from chirpwatch.streamer.background.directory import RunDirectory
    from chirpwatch.streamer.outbox import Outbox
    from chirpwatch.streamer.results_api import Connection
    from chirpwatch.streamer.source import Source

log = logging.getLogger("chirpwatch.background")

CALIBRATED_JOBS = 4
"""With more jobs than this, the run time is estimated first, by a few requests."""

UNITS = {
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "yr": JULIAN_YEAR,
}


class Length(click.ParamType[float]):
    """A length of time such as ``1yr``, ``30d``, ``12h``, ``90min``, ``600s``."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert to seconds; a plain number is in seconds already."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", value)
        try:
            assert match is not None
            length = float(match[1]) * UNITS[match[2] or "s"]
        except (AssertionError, ValueError, KeyError):
            self.fail(
                f"expected a time such as 1yr, 30d, 12h, 90min, 600s or 600, found "
                f"{value!r}",
                param,
                ctx,
            )
        if not 0 < length < float("inf"):
            self.fail(f"expected a time above 0 s, found {value!r}", param, ctx)
        return length


@click.command(cls=StrainCommand)
@with_options(DATA)
@click.option(
    "--livetime",
    type=Length(),
    metavar="TIME",
    help="Livetime to reach, such as 1yr (of 365.25 d), 30d, 12h, 90min, 600s.",
)
@click.option(
    "--slides",
    type=click.IntRange(1),
    help="Number of timeslides of each stretch, instead of --livetime.",
)
@click.option(
    "--stretch-length",
    type=Length(),
    metavar="TIME",
    default=STRETCH_LENGTH,
    show_default=f"{STRETCH_LENGTH:g}s",
    help="Longest stretch of strain within which the shifts are circular.",
)
@click.option(
    "--slide-length",
    type=Length(),
    metavar="TIME",
    show_default="the least possible",
    help="Step between two slides, a multiple of a feature frame (1/64 s).",
)
@click.option(
    "--triton",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="gRPC address of a running Triton server; may be given several times to share "
    "the jobs among servers. Without it, a server is started.",
)
@with_options([REPOSITORY])
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    show_default="number of cores",
    help="Number of Dask workers to start.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a running Dask scheduler with workers, such as tcp://host:8786.",
)
@click.option(
    "--cluster",
    "batch",
    type=click.Choice(list(BATCH_SYSTEMS)),
    help="Submit the workers to a batch system, as configured for Dask.",
)
@click.option(
    "--patience",
    type=Length(),
    metavar="TIME",
    default=300.0,
    show_default="300s",
    help="Longest time in which jobs fail and none succeeds before the run is ended.",
)
@directory_option(
    "runs/background",
    "Directory for plan and results; an interrupted run continues from it.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
@with_options(RESULTS, [LOG_FORMAT])
def background(
    strain_files: tuple[Path, ...],
    background_file: Path | None,
    split: str,
    livetime: float | None,
    slides: int | None,
    stretch_length: float,
    slide_length: float | None,
    workers: int,
    scheduler: str | None,
    batch: str | None,
    addresses: tuple[str, ...],
    api_url: str | None,
    token_file: Path | None,
    **options: Any,
) -> None:
    """Measure the background of a search with many timeslides.

    Strain is cut into stretches. Within each, the detectors are shifted circularly
    against each other, in steps so long that no two slides combine the same data. An
    interrupted run continues when the same command is given, with the same results.
    Give either --strain or --background, and either
    --livetime or --slides.
    """
    if (livetime is None) == (slides is None):
        raise click.UsageError("give either --livetime or --slides")
    if scheduler is not None and batch is not None:
        raise click.UsageError("give either --scheduler or --cluster")
    if (scheduler or batch) and not addresses:
        raise click.UsageError(
            "workers on other machines need a Triton server that they can reach: give "
            "--triton"
        )
    _run(
        chosen(strain_files, background_file, split),
        plan_options={
            "livetime": livetime,
            "slides": slides,
            "stretch_length": stretch_length,
            "step_length": slide_length,
        },
        worker_options={"workers": workers, "scheduler": scheduler, "batch": batch},
        addresses=addresses,
        api=connection(api_url, token_file),
        **options,
    )


def _run(
    source: "Source",
    *,
    plan_options: dict[str, Any],
    worker_options: dict[str, Any],
    addresses: tuple[str, ...],
    repository: Path,
    patience: float,
    directory: Path,
    dry_run: bool,
    api: "Connection | None",
    json_file: Path | None,
    keep: bool,
) -> None:
    """Make or continue a plan, run its remaining jobs, and print the results."""
    from chirpwatch.api.contract.requests import RunUpdate
    from chirpwatch.streamer.background.directory import RunDirectory
    from chirpwatch.streamer.background.plan import make_plan
    from chirpwatch.streamer.background.report import (
        progress_bar,
        show_estimate,
        show_plan,
        show_summary,
        summarise,
    )
    from chirpwatch.streamer.background.run import (
        Coordinator,
        send_again,
    )
    from chirpwatch.streamer.delivery import check_delivered, deliver
    from chirpwatch.streamer.outbox import Outbox
    from chirpwatch.streamer.results_api import results_api
    from chirpwatch.streamer.run_ids import new_run_id
    from chirpwatch.streamer.servers import Servers, explained
    from chirpwatch.streamer.source import open_once

    console = Console()
    with contextlib.ExitStack() as stack:
        # A dry run creates no directory.
        log_path = None if dry_run else directory / "triton.log"
        servers = stack.enter_context(Servers(addresses, repository, log_path))
        stack.enter_context(explained(servers.server))
        geometry, model = servers.served()
        segments, fingerprints = open_once(source, geometry)
        plan = make_plan(segments, geometry, **plan_options)
        total = sum(segment.duration for segment in segments)
        facts = {
            "model": model,
            "strain": fingerprints,
            "simulated": any(segment.simulated for segment in segments),
            "data": f"{source.name}: {len(segments)} segment(s), {total:g} s",
        }
        show_plan(plan, facts, console)
        if dry_run:
            return
        results = stack.enter_context(
            RunDirectory(directory, new_run_id(), plan, facts)
        )
        log.info("run %s", results.run, extra={"run": results.run})
        service = stack.enter_context(results_api(api, directory))
        outbox = stack.enter_context(Outbox(directory / "outbox", service.client))
        try:
            with _reported(results, outbox):
                coordinator = Coordinator(
                    results,
                    source,
                    servers.addresses,
                    outbox,
                    patience,
                    servers.supervise,
                )
                done = results.done()
                send_again(results, done, service.client, outbox)
                jobs = [job for job in plan.jobs if job.number not in set(done)]
                if done:
                    log.info("%d jobs are done already", len(done))
                if len(jobs) > CALIBRATED_JOBS:
                    # The coordinator waits for a server that is unreachable now.
                    with contextlib.suppress(ServerError):
                        show_estimate(coordinator.estimate(jobs), console)
                if jobs:
                    with (
                        connect(**worker_options) as cluster,
                        progress_bar(plan, jobs, console) as progress,
                    ):
                        coordinator.run(cluster, jobs, progress)
                path = results.finish()
                outbox.update_run(
                    results.run,
                    RunUpdate(
                        state="complete",
                        message="after an interruption" if results.continued else None,
                        throughput=coordinator.throughput,
                    ),
                )
        finally:
            waiting = deliver(outbox)
        check_delivered(waiting, results.run, outbox, service)
        report = summarise(results, coordinator.totals, path, f"{service.client.url}/")
        show_summary(report, console)
        if json_file is not None:
            write_json(json_file, report)
        if keep:
            keep_up(servers.server, service.process)


@contextlib.contextmanager
def _reported(results: "RunDirectory", outbox: "Outbox") -> Iterator[None]:
    """Report to the API that the run begins or continues, and if it fails."""
    from chirpwatch.api.contract.requests import (
        GeometryBody,
        Run,
        RunUpdate,
        ended_by,
    )
    from chirpwatch.text import one_line

    facts, plan = results.facts, results.plan
    outbox.put_run(
        results.run,
        Run(
            name=one_line(f"background of {facts['data']}"),
            model=facts["model"],
            geometry=GeometryBody.of(plan.geometry),
            simulated=facts["simulated"],
            data=one_line(facts["data"]),
            planned_background=plan.livetime,
        ),
    )
    if results.continued:
        update = RunUpdate(state="running", message="continues after an interruption")
        outbox.update_run(results.run, update)
    try:
        yield
    except BaseException as error:
        outbox.update_run(results.run, ended_by(error))
        raise
