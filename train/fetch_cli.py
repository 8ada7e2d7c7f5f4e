"""The command ``chirpwatch fetch``."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from chirpwatch.ifos import ifos_option
from chirpwatch.train.command import typed_command


def _shares(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected three numbers with commas, such as 0.8,0.1,0.1; found {value!r}"
        ) from None


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--run", help="Observing run, such as O3a.")
@click.option("--start", type=click.IntRange(1), help="Start of the range, GPS s.")
@click.option("--end", type=click.IntRange(1), help="End of the range, GPS s.")
@ifos_option("Detectors; only times at which all have good data are taken.")
@click.option(
    "--flag",
    "flags",
    multiple=True,
    default=("CBC_CAT1", "CBC_CAT2", "CBC_CAT3", "NO_CBC_HW_INJ"),
    show_default=True,
    help="Data-quality flag that must be active in each detector, without the "
    "detector's prefix; repeat for several.",
)
@click.option(
    "--min-duration",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Shortest segment, s.",
)
@click.option(
    "--max-duration",
    type=click.IntRange(2),
    default=4096,
    show_default=True,
    help="Longest segment, s; longer ones are cut into equal parts.",
)
@click.option(
    "--livetime",
    type=click.IntRange(1),
    help="Largest livetime to take, from the start of the range, s. Missing files and "
    "rests that are too short reduce it. [default: all]",
)
@click.option(
    "--splits",
    default="0.8,0.1,0.1",
    show_default=True,
    callback=_shares,
    help="Shares of the livetime for train, valid and test, in order of time.",
)
@click.option(
    "--pad",
    type=click.FloatRange(0),
    default=64.0,
    show_default=True,
    help="Time left out on either side of each catalogued event, s.",
)
@click.option(
    "--source-rate",
    type=click.Choice(["4096", "16384"]),
    default="4096",
    show_default=True,
    help="Sample rate of the files to download, Hz; OUT has 2048 Hz.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Files that are downloaded and resampled in parallel, 0.3 GB of memory each.",
)
@click.option(
    "--host",
    default="https://gwosc.org",
    show_default=True,
    help="URL of GWOSC, or of a server with the same API.",
)
@click.option(
    "--tries",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of attempts of a request or download that fails.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Back-off before the second attempt, s; it doubles after each attempt.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and download nothing.")
def fetch(
    out: Path,
    source_rate: str,
    jobs: int,
    tries: int,
    wait: float,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Download open strain from GWOSC to a background file.

    Takes the times at which all detectors have good data and no catalogued event is
    near, resamples them to 2048 Hz and writes OUT, an HDF5 file with the splits train,
    valid and test. Finished downloads are kept in OUT.parts until OUT is complete:
    after a failure, the same command resumes.
    """
    # Imported here, since they are heavy and --help does not need them.
    from chirpwatch.train.data.gwosc.choice import make_plan
    from chirpwatch.train.data.gwosc.fetch import fetch as fetch_background
    from chirpwatch.train.data.gwosc.plan import FetchSettings

    settings = FetchSettings(source_rate=int(source_rate), **chosen)
    if dry_run:
        click.echo(make_plan(settings, tries, wait).describe())
        return
    console = Console(stderr=True)
    try:
        with _bar(console) as progress:
            fetched = fetch_background(
                out,
                settings,
                jobs=jobs,
                tries=tries,
                wait=wait,
                command=typed_command(),
                progress=progress,
            )
    except KeyboardInterrupt:
        click.echo(
            f"chirpwatch: stopped; finished downloads are in {out}.parts: run the same "
            "command again to go on",
            err=True,
        )
        sys.exit(130)
    taken = sum(each.stop - each.start for each in fetched.segments)
    lost = fetched.plan.livetime() - taken
    click.echo(
        f"{out}: {taken / 3600:.2f} h of {', '.join(settings.ifos)}, "
        f"{fetched.plan.run}, in {len(fetched.segments)} segments; "
        f"{len(fetched.plan.events)} catalogued events left out"
        + (f"; {lost} s lost to gaps in the files" if lost else "")
    )


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[Any], None]]:
    """Show a progress bar; yields the function that updates it."""
    bar = Progress(
        TextColumn("fetching"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} files"),
        TextColumn("{task.fields[received]:.1f} MB downloaded"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("fetching", total=0, received=0.0)
        yield lambda step: bar.update(
            task,
            completed=step.files_done,
            total=step.files,
            received=step.received / 1e6,
        )
