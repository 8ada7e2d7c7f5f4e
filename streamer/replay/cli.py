"""``chirpwatch replay``: recorded or simulated strain through the detector."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from chirpwatch.atomic import replacing
from chirpwatch.limits import STRETCH_LENGTH
from chirpwatch.streamer.options import (
    DATA,
    REPOSITORY,
    RESULTS,
    TRITON,
    StrainCommand,
    chosen,
    connection,
    wait,
    with_options,
)
from chirpwatch.units import JULIAN_YEAR


@click.command(cls=StrainCommand)
@with_options(DATA)
@click.option(
    "--signals",
    "signals_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Projected test signals, injected into a copy of the zero-lag data. May be "
    "given several times; each file is a set with a copy of its own.",
)
@click.option(
    "--slides",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Timeslides for the background, as many as the strain gives: each detector "
    "read later than the one before it, circularly in stretches of "
    f"{STRETCH_LENGTH:g} s at most.",
)
@click.option(
    "--slide-length",
    type=click.FloatRange(0, min_open=True),
    show_default="the least possible",
    help="Step between two slides, s; whole feature frames of 1/64 s.",
)
@click.option(
    "--far",
    type=click.FloatRange(0, min_open=True),
    default=JULIAN_YEAR / 3600,
    show_default="one an hour",
    help="False-alarm rate at which an injection counts as found, per year.",
)
@click.option(
    "--request-length",
    type=click.FloatRange(0, min_open=True),
    default=64.0,
    show_default=True,
    help="Strain in one request, s; the scores do not depend on it.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Sequences under way at once.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where logs, the database of an API started here, and results that the API "
    "has not taken yet are kept.",
)
@with_options([TRITON, REPOSITORY], RESULTS)
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

    Every score is computed by the Triton server; events, false-alarm rates and found
    injections come from the results API. Give either --strain or --background.
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
    api: tuple[str, str | None] | None,
    directory: Path,
    json_file: Path | None,
    keep: bool,
) -> None:
    """Start what is not running, replay, report.

    Args:
        load: Gives the segments, once the served geometry is known.
        signals_files: Projected test signals, a set of each segment in each file.
        name: What people call the run.
        api: Address and token of a running API; None starts one.
        slides: Number of timeslides.
        slide_length: Step between two of them, s; None for the least possible.
        request_length: Strain in one request, s.
        workers: Sequences under way at once.
        far: False-alarm rate at which injections count as found, per year.
        triton: Address of a running server; None starts one on ``repository``.
        repository: Model repository for that.
        directory: Where logs, database and undelivered results are kept.
        json_file: File for the result, or None.
        keep: Leave the servers up until interrupted.

    Raises:
        ChirpwatchError: Bad input, or a part that failed.
    """
    from chirpwatch.api.client import ApiClient
    from chirpwatch.api.process import ApiProcess
    from chirpwatch.serve.embedded import TritonServer
    from chirpwatch.signals import read_test_signals
    from chirpwatch.streamer.client import Detector
    from chirpwatch.streamer.delivery import (
        check_delivered,
        deliver,
    )
    from chirpwatch.streamer.outbox import Outbox
    from chirpwatch.streamer.replay.report import (
        collect,
        show,
    )
    from chirpwatch.streamer.replay.run import (
        Replay,
        run_replay,
    )
    from chirpwatch.streamer.servers import explained

    console = Console()
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        server: TritonServer | None = None
        service: ApiProcess | None = None
        if triton is None:
            console.print("starting Triton ...")
            server = stack.enter_context(
                TritonServer(repository, log=directory / "triton.log")
            )
            stack.enter_context(explained(server))
            triton = server.address
        geometry = Detector(triton).geometry
        segments = load(geometry)
        still = (0.0,) * len(geometry.ifos)
        signals = {
            segment.name: {
                f"injections{number}_{segment.name.replace('.', 'p')}": (
                    read_test_signals(
                        path,
                        segment.name,
                        still,
                        geometry.ifos,
                        geometry.sample_rate,
                        stored=True,
                    )
                )
                for number, path in enumerate(signals_files, start=1)
            }
            for segment in segments
        }
        plan = Replay(segments, slides, slide_length, signals, request_length, workers)
        _, left_out = plan.jobs(geometry)
        _, without_slides = plan.background(geometry)
        for what in left_out + without_slides:
            console.print(f"left out: {what}")
        if api is None:
            console.print("starting the results API ...")
            service = stack.enter_context(
                ApiProcess(directory / "results.db", log=directory / "api.log")
            )
            client = stack.enter_context(service.client())
        else:
            client = stack.enter_context(ApiClient(*api))
        outbox = stack.enter_context(Outbox(directory / "outbox", client))
        try:
            with _progress(console) as told:
                run, measured = run_replay(plan, triton, outbox, name, told)
        finally:
            waiting = deliver(outbox, console)
        check_delivered(waiting, run, outbox, client.url, service)
        result = collect(client, run, measured, far)
        show(result, f"{client.url}/", console)
        if json_file is not None:
            with replacing(json_file) as temporary:
                temporary.write_text(json.dumps(result, indent=2) + "\n")
        if keep:
            wait(console, server, service)


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
