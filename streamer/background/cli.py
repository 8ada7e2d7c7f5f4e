"""``chirpwatch background``: years of timeslides, on one machine or many."""

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
"""More jobs than this are worth the requests that an estimate takes."""

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
        """In seconds, which is also what a plain number means."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", value)
        try:
            assert found is not None
            length = float(found[1]) * UNITS[found[2] or "s"]
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
    help="Livetime that is wanted, such as 1yr (of 365.25 d), 30d, 12h, 90min, 600s.",
)
@click.option(
    "--slides",
    type=click.IntRange(1),
    help="Timeslides of each stretch of strain, in place of --livetime.",
)
@click.option(
    "--stretch-length",
    type=Length(),
    metavar="TIME",
    default=STRETCH_LENGTH,
    show_default=f"{STRETCH_LENGTH:g}s",
    help="Longest stretch of strain that is shifted circularly within itself.",
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
    help="gRPC address of a running Triton server; may be given several times, and "
    "jobs take turns. Without it, one is started.",
)
@with_options([REPOSITORY])
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    show_default="number of cores",
    help="Dask workers to start.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler that runs already, such as tcp://host:8786, with its workers.",
)
@click.option(
    "--cluster",
    "batch",
    type=click.Choice(list(BATCH_SYSTEMS)),
    help="Submit the workers to a batch system, as Dask's configuration says.",
)
@click.option(
    "--patience",
    type=Length(),
    metavar="TIME",
    default=300.0,
    show_default="300s",
    help="How long jobs may fail, for want of a server, without one that succeeds.",
)
@directory_option(
    "runs/background",
    "Where plan and results are kept; an interrupted run goes on from there.",
)
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
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

    Strain is cut into stretches; within each, the detectors are shifted against each
    other in steps that let no two data meet twice. One pass of the network serves all
    slides of a stretch. Interrupted, the same command goes on where it stopped, and
    ends with the same results. Give either --strain or --background, and either
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
        wanted={
            "livetime": livetime,
            "slides": slides,
            "stretch_length": stretch_length,
            "step_length": slide_length,
        },
        workers={"workers": workers, "scheduler": scheduler, "batch": batch},
        addresses=addresses,
        api=connection(api_url, token_file),
        **options,
    )


def _run(
    source: "Source",
    *,
    wanted: dict[str, Any],
    workers: dict[str, Any],
    addresses: tuple[str, ...],
    repository: Path,
    patience: float,
    directory: Path,
    dry_run: bool,
    api: "Connection | None",
    json_file: Path | None,
    keep: bool,
) -> None:
    """Plan, start what is not running, do what is not done, report."""
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
        # A plan alone has no directory.
        log_path = None if dry_run else directory / "triton.log"
        servers = stack.enter_context(Servers(addresses, repository, log_path))
        stack.enter_context(explained(servers.server))
        geometry, model = servers.served()
        segments, fingerprints = open_once(source, geometry)
        plan = make_plan(segments, geometry, **wanted)
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
                    # A server that is away just now is waited for below.
                    with contextlib.suppress(ServerError):
                        show_estimate(coordinator.estimate(jobs), console)
                if jobs:
                    with (
                        connect(**workers) as cluster,
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
        report = summarise(
            results, coordinator.measured, path, f"{service.client.url}/"
        )
        show_summary(report, console)
        if json_file is not None:
            write_json(json_file, report)
        if keep:
            keep_up(servers.server, service.process)


@contextlib.contextmanager
def _reported(results: "RunDirectory", outbox: "Outbox") -> Iterator[None]:
    """Tell the API that a run begins or goes on, and if it failed."""
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
        update = RunUpdate(state="running", message="goes on where it was interrupted")
        outbox.update_run(results.run, update)
    try:
        yield
    except BaseException as error:
        outbox.update_run(results.run, ended_by(error))
        raise
