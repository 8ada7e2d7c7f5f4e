"""The command ``chirpwatch simulate``."""

import shlex
import sys
from pathlib import Path

import click
import numpy as np

from chirpwatch.geometry import Geometry

IFOS = ("H1", "L1")
RUNS = click.Choice(["O3", "O4"])
OUT = click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
SEED = click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Seed of everything that is drawn: the same seed gives the same numbers.",
)
START = click.option(
    "--start",
    type=click.IntRange(1),
    default=1262304000,
    show_default=True,
    help="GPS time at which the segment starts, s.",
)
DURATION = click.option(
    "--duration",
    type=click.IntRange(4),
    default=1200,
    show_default=True,
    help="Length of the segment, s.",
)
CURVE = click.option(
    "--curve",
    type=RUNS,
    default="O3",
    show_default=True,
    help="Observing run whose published noise curves of H1 and L1 are used.",
)

MASSES = click.option(
    "--masses",
    type=click.FloatRange(5, 150),
    nargs=2,
    default=(15.0, 50.0),
    show_default=True,
    help="Range of the component masses as the detectors see them, solar masses.",
)
REFERENCE_SHARE = click.option(
    "--reference-share",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Share of the mergers that are of 35 and 35 solar masses.",
)


def typed_command() -> str:
    """The command as typed, without the path of the interpreter's script."""
    return shlex.join(["chirpwatch", *sys.argv[1:]])


@click.group()
def simulate() -> None:
    """Make strain or mergers without a detector.

    Everything made here is marked as simulated, and every report says so.
    """


@simulate.command()
@OUT
@START
@DURATION
@CURVE
@SEED
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help="What the segment is for.",
)
@click.option(
    "--glitch-rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Glitches in each detector, a minute; independent of one another.",
)
def background(
    out: Path,
    start: int,
    duration: int,
    curve: str,
    seed: int,
    split: str,
    glitch_rate: float,
) -> None:
    """Write a segment of Gaussian noise of H1 and L1, with glitches if wanted.

    The noise is stationary and has the spectrum of the published curves between 0 and
    1024 Hz. OUT is an HDF5 file; a segment is added to it if it is there already.
    """
    from chirpwatch.strain import write_background
    from train.data.background import simulate_background

    rate = Geometry().sample_rate
    strain, glitches = simulate_background(
        duration,
        curve,
        IFOS,
        rate,
        # Segments and splits are independent of one another.
        [seed, start, *split.encode()],
        glitch_rate / 60,
    )
    attributes = {
        "simulated": True,
        "command": typed_command(),
        "seed": seed,
        "noise_curves": curve,
    }
    for ifo, times in glitches.items():
        attributes[f"glitch_times_{ifo}"] = np.array(times) + start
    write_background(out, split, start, strain, rate, attributes)
    click.echo(
        f"{out}: {duration} s of simulated {curve} noise of {' and '.join(IFOS)} from "
        f"GPS {start}, {sum(map(len, glitches.values()))} glitches"
    )


@simulate.command()
@OUT
@START
@DURATION
@CURVE
@SEED
@click.option(
    "--shifts",
    default="0,0",
    show_default=True,
    help="Timeslide that the signals are for: seconds for each detector.",
)
@MASSES
@REFERENCE_SHARE
@click.option(
    "--snr",
    type=click.FloatRange(min=0, min_open=True),
    nargs=2,
    default=(5.0, 20.0),
    show_default=True,
    help="Range of the network SNR above 32 Hz; distances are adapted to it.",
)
@click.option(
    "--volume",
    type=click.FloatRange(0, 2, min_open=True),
    help="Draw distances uniform in comoving volume up to this redshift instead, and "
    "reject (and count) mergers fainter than network SNR 4.",
)
@click.option(
    "--first",
    type=float,
    default=44.0,
    show_default=True,
    help="First merger after the start, s.",
)
@click.option(
    "--spacing",
    type=click.FloatRange(0, min_open=True),
    default=24.0,
    show_default=True,
    help="Time between mergers, s.",
)
@click.option(
    "--jitter",
    type=click.FloatRange(0),
    default=4.0,
    show_default=True,
    help="Each merger is moved by up to this to either side, s.",
)
def signals(
    out: Path,
    start: int,
    duration: int,
    curve: str,
    seed: int,
    shifts: str,
    masses: tuple[float, float],
    reference_share: float,
    snr: tuple[float, float],
    volume: float | None,
    first: float,
    spacing: float,
    jitter: float,
) -> None:
    """Write mergers that are ready to be injected into one segment.

    IMRPhenomD waveforms from all over the sky, as H1 and L1 see them, the light-travel
    time between the sites included. OUT is an HDF5 file; a set is added to it if it is
    there already.
    """
    from chirpwatch.signals import shift_key, write_test_signals
    from train.data.injections import InjectionSettings, simulate_test_signals

    try:
        seconds = [float(shift) for shift in shifts.split(",")]
    except ValueError:
        seconds = []
    if len(seconds) != len(IFOS):
        raise click.BadParameter(
            f"expected {len(IFOS)} numbers with a comma, such as 0,4; found {shifts!r}",
            param_hint="--shifts",
        )
    settings = InjectionSettings(
        run=curve,
        min_mass=min(masses),
        max_mass=max(masses),
        reference_share=reference_share,
        snr_range=None if volume else (min(snr), max(snr)),
        max_redshift=volume or 1.0,
        first_length=first,
        spacing_length=spacing,
        jitter_length=jitter,
    )
    injected = simulate_test_signals(start, duration, settings, seed, typed_command())
    write_test_signals(out, f"{start}-{duration}", seconds, injected)
    click.echo(
        f"{out}: {len(injected)} mergers for segment {start}-{duration}, shifts "
        f"{shift_key(seconds)}; {injected.num_rejected} rejected"
    )


@simulate.command()
@OUT
@click.option(
    "--count",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Mergers to draw.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid"]),
    default="train",
    show_default=True,
    help="What the mergers are for.",
)
@MASSES
@REFERENCE_SHARE
@SEED
def polarizations(
    out: Path,
    count: int,
    split: str,
    masses: tuple[float, float],
    reference_share: float,
    seed: int,
) -> None:
    """Write mergers as they arrive at the Earth, before any detector.

    IMRPhenomD waveforms at 100 Mpc, plus and cross, with inclination and phase drawn.
    'chirpwatch train fit' makes its own and needs no such file; other programs that
    read this layout do.
    """
    from chirpwatch.signals import write_polarizations
    from train.data.injections import InjectionSettings, simulate_polarizations

    settings = InjectionSettings(
        min_mass=min(masses), max_mass=max(masses), reference_share=reference_share
    )
    # The splits are independent of one another.
    drawn = np.random.SeedSequence([seed, *split.encode()]).generate_state(1)
    signals = simulate_polarizations(count, settings, int(drawn[0]), typed_command())
    write_polarizations(out, split, signals)
    click.echo(f"{out}: {count} mergers for {split}")
