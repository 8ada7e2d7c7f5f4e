"""``chirpwatch demo``: a complete search of simulated strain, for ``make demo``."""

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
# GPS start and length of the segment that the shipped signals were drawn for, s.
START = 1262304000
DURATION = 1200
IFOS = ("H1", "L1")
SAMPLE_RATE = 2048
RUN = "O3"
SEED = 0
# Glitches per second in each detector.
GLITCH_RATE = 0.01


@click.command()
@click.option(
    "--slides",
    type=click.IntRange(4),
    default=200,
    show_default=True,
    help="Number of timeslides for the background.",
)
@directory_option("runs/demo", "Directory for the strain, logs and results.")
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
    """Run a complete search on twenty minutes of simulated strain.

    Simulates noise in H1 and L1 with O3 noise curves and, in each detector, a glitch
    about every 100 s; starts the embedded Triton server with the shipped models, and
    the results API; searches the strain in zero-lag, with 48 injections, and in
    timeslides; and prints the candidates and the efficiency.
    """
    from chirpwatch.background_file import read_background

    path = directory / "background.hdf5"
    if not path.exists():
        log.info("simulating %d s of strain in %s", DURATION, " and ".join(IFOS))
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

    strain, _ = simulate_background(DURATION, RUN, IFOS, SAMPLE_RATE, SEED, GLITCH_RATE)
    write_background(
        path,
        "test",
        START,
        strain,
        SAMPLE_RATE,
        {
            "simulated": True,
            "noise": f"Gaussian, {RUN} curves, seed {SEED}",
            "glitch_rate": GLITCH_RATE,
        },
    )
