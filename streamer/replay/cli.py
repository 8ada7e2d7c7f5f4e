"""``chirpwatch replay``: search recorded or simulated strain."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from chirpwatch.limits import STRETCH_LENGTH
from chirpwatch.logs import LOG_FORMAT
from chirpwatch.streamer.options import (
    DATA,
    REPOSITORY,
    RESULTS,
    TRITON,
    StrainCommand,
    chosen,
    connection,
    directory_option,
    far_option,
    keep_up,
    with_options,
    write_json,
)
from chirpwatch.units import JULIAN_YEAR

if TYPE_CHECKING:
    from chirpwatch.geometry import Geometry
    from chirpwatch.signals import ProjectedSignals
    from chirpwatch.strain import Segment
    from chirpwatch.streamer.results_api import Connection

log = logging.getLogger("chirpwatch.replay")


@click.command(cls=StrainCommand)
@with_options(DATA)
@click.option(
    "--signals",
    "signals_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Projected test signals, injected into a copy of the zero-lag strain. May be "
    "given several times; each file is an injection set with a copy of its own.",
)
@click.option(
    "--slides",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Most timeslides for the background; short strain allows fewer. Each detector "
    "is shifted against the previous detector, circularly within stretches of at most "
    f"{STRETCH_LENGTH:g} s.",
)
@click.option(
    "--slide-length",
    type=click.FloatRange(0, min_open=True),
    show_default="the least possible",
    help="Step between two slides, s; a multiple of a feature frame (1/64 s).",
)
@far_option(
    JULIAN_YEAR / 3600,
    "one an hour",
    "False-alarm rate at which an injection counts as found",
)
@click.option(
    "--request-length",
    type=click.FloatRange(0, min_open=True),
    default=64.0,
    show_default=True,
    help="Length of strain in a request, s; the scores do not depend on it.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of sequences to score at the same time.",
)
@directory_option(
    "runs",
    "Directory for logs, undelivered results, and the database of an API that this "
    "command starts.",
)
@with_options([TRITON, REPOSITORY], RESULTS, [LOG_FORMAT])
def replay(
    strain_files: tuple[Path, ...],
    background_file: Path | None,
    split: str,
    signals_files: tuple[Path, ...],
    api_url: str | None,
    token_file: Path | None,
    **options: Any,
) -> None:
    """Search recorded or simulated strain, and measure the background with timeslides.

    The Triton server computes the scores. The results service computes false-alarm
    rates and which injections are found. Give either --strain or --background.
    """
    source = chosen(strain_files, background_file, split)
    search(
        source.segments,
        signals_files,
        name=f"replay of {source.name}",
        api=connection(api_url, token_file),
        **options,
    )


def search(
    load: Any,
    signals_files: Sequence[Path],
    *,
    name: str,
    slides: int,
    slide_length: float | None,
    far: float,
    request_length: float,
    workers: int,
    triton: str | None,
    repository: Path,
    api: "Connection | None",
    directory: Path,
    json_file: Path | None,
    keep: bool,
) -> None:
    """Replay strain and print the results; start the servers that are not given.

    Args:
        load: Called with the served geometry; returns the segments.
        signals_files: Files of projected signals. Each is an injection set, with
            signals for every segment.
        name: Name of the run for people.
        api: Address of a running results API; None starts an API.
        slides: Most timeslides.
        slide_length: Step between two timeslides, s; None for the smallest possible.
        request_length: Length of strain in a request, s.
        workers: Number of sequences to score at the same time.
        far: False-alarm rate at which injections count as found, per Julian year.
        triton: gRPC address of a running Triton server; None starts a server.
        repository: Model repository of a server that is started.
        directory: Directory for logs, database and undelivered results.
        json_file: File for the results, or None.
        keep: Whether to leave the servers up until interrupted.

    Raises:
        ChirpwatchError: The input is bad, or a server or the replay failed.
    """
    from chirpwatch.streamer.client import ScoreClient
    from chirpwatch.streamer.delivery import check_delivered, deliver
    from chirpwatch.streamer.outbox import Outbox
    from chirpwatch.streamer.replay.inputs import Replay
    from chirpwatch.streamer.replay.report import collect, show
    from chirpwatch.streamer.replay.run import ReplayRun
    from chirpwatch.streamer.results_api import results_api
    from chirpwatch.streamer.servers import triton_server

    console = Console()
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        address, server = stack.enter_context(
            triton_server(triton, repository, directory / "triton.log")
        )
        geometry = ScoreClient(address).geometry
        segments = load(geometry)
        signals = _read_signals(signals_files, segments, geometry)
        plan = Replay(segments, slides, slide_length, signals, request_length, workers)
        _, left_out = plan.jobs(geometry)
        _, without_slides = plan.background(geometry)
        for reason in left_out + without_slides:
            log.warning("left out: %s", reason)
        results = stack.enter_context(results_api(api, directory))
        outbox = stack.enter_context(Outbox(directory / "outbox", results.client))
        try:
            with _progress(console) as report:
                run = ReplayRun(plan, address, outbox, name, report)
                log.info("run %s", run.id, extra={"run": run.id})
                measured = run.run()
        finally:
            waiting = deliver(outbox)
        check_delivered(waiting, run.id, outbox, results)
        result = collect(results.client, run.id, measured, far)
        show(result, f"{results.client.url}/", console)
        if json_file is not None:
            write_json(json_file, result)
        if keep:
            keep_up(server, results.process)


def _read_signals(
    paths: Sequence[Path], segments: "Sequence[Segment]", geometry: "Geometry"
) -> "dict[str, dict[str, ProjectedSignals]]":
    """Read the injection sets of each segment, a set from each file."""
    from chirpwatch.signals import read_test_signals

    unshifted = (0.0,) * len(geometry.ifos)
    return {
        segment.name: {
            f"injections{number}_{segment.name.replace('.', 'p')}": read_test_signals(
                path,
                segment.name,
                unshifted,
                geometry.ifos,
                geometry.sample_rate,
                stored=True,
            )
            for number, path in enumerate(paths, start=1)
        }
        for segment in segments
    }


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Any]:
    bar = Progress(
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s of strain"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("scoring", total=0.0)
        yield lambda done, total: bar.update(task, completed=done, total=total)
