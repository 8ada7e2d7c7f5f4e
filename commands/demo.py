"""The main job on simulated strain: what ``make demo`` runs."""

import logging
from pathlib import Path

import click

from chirpwatch.logs import LOG_FORMAT
from chirpwatch.shipped import SHIPPED
from chirpwatch.streamer.options import (
    RESULTS,
    TRITON,
    connection,
    directory_option,
    with_options,
)
from chirpwatch.streamer.replay.cli import search
from chirpwatch.units import JULIAN_YEAR

log = logging.getLogger("chirpwatch.demo")

SIGNALS = Path(__file__).parents[1] / "data" / "test_signals.hdf5"
# The stretch that the shipped signals were drawn for.
START = 1262304000
DURATION = 1200
RUN = "O3"
SEED = 0
GLITCH_RATE = 0.01


@click.command()
@click.option(
    "--slides",
    type=click.IntRange(4),
    default=200,
    show_default=True,
    help="Timeslides for the background.",
)
@directory_option(
    "runs/demo",
    "Where the strain, logs and results are kept.",
)
@with_options([TRITON], RESULTS, [LOG_FORMAT])
def demo(
    slides: int,
    directory: Path,
    triton: str | None,
    api_url: str | None,
    token_file: Path | None,
    json_file: Path | None,
    keep: bool,
) -> None:
    """Run the whole system on twenty minutes of simulated strain.

    Makes strain of H1 and L1 with the noise curves of O3 and a glitch about every 100
    s in each, starts the embedded Triton on the shipped models and the results API,
    searches the strain as it is, with 48 injected mergers, and in timeslides, and
    prints what was found.
    """
    from chirpwatch.background_file import read_background

    path = directory / "background.hdf5"
    if not path.exists():
        log.info("simulating %d s of strain of H1 and L1", DURATION)
        _simulate(path)

    search(
        lambda geometry: read_background(
            path, "test", geometry.ifos, geometry.sample_rate
        ),
        [SIGNALS],
        name="demo",
        slides=slides,
        slide_length=None,
        far=JULIAN_YEAR / 3600,
        request_length=64.0,
        workers=2,
        triton=triton,
        repository=SHIPPED,
        api=connection(api_url, token_file),
        directory=directory,
        json_file=json_file,
        keep=keep,
    )


def _simulate(path: Path) -> None:
    from chirpwatch.background_file import write_background
    from chirpwatch.train.data.noise.background import simulate_background

    strain, _ = simulate_background(
        DURATION, RUN, ("H1", "L1"), 2048, SEED, GLITCH_RATE
    )
    write_background(
        path,
        "test",
        START,
        strain,
        2048,
        {
            "simulated": True,
            "noise": f"Gaussian, {RUN} curves, seed {SEED}",
            "glitch_rate": GLITCH_RATE,
        },
    )
