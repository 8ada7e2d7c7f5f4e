"""The command ``chirpwatch simulate``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from chirpwatch.errors import (
    ConfigurationError,
    SignalError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.ifos import ifos_option
from chirpwatch.train.command import typed_command
from chirpwatch.train.data.noise.families import (
    FAMILIES,
    WEIGHTS,
)

RUNS = click.Choice(["O3", "O4"])
OUT = click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
SEED = click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Random seed: the same seed gives the same numbers.",
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
    help="Observing run of the published noise curves.",
)

MASSES = click.option(
    "--masses",
    type=click.FloatRange(5, 150),
    nargs=2,
    default=(15.0, 50.0),
    show_default=True,
    help="Smallest and largest component mass, solar masses, in the detector frame "
    "unless --source-frame is given.",
)
MASS_DISTRIBUTION = click.option(
    "--mass-distribution",
    type=click.Choice(["uniform", "log-uniform"]),
    default="uniform",
    show_default=True,
    help="Distribution of each component mass.",
)
SOURCE_FRAME = click.option(
    "--source-frame",
    is_flag=True,
    help="With --volume: masses are in the source frame.",
)
REFERENCE_SHARE = click.option(
    "--reference-share",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Share of the mergers that have --reference-masses.",
)
REFERENCE_MASSES = click.option(
    "--reference-masses",
    type=click.FloatRange(5, 150),
    nargs=2,
    default=(35.0, 35.0),
    show_default=True,
    help="Heavier and lighter mass of the --reference-share, solar masses.",
)
APPROXIMANT = click.option(
    "--approximant",
    type=click.Choice(["IMRPhenomD", "IMRPhenomPv2"]),
    default="IMRPhenomD",
    show_default=True,
    help="Waveform approximant; IMRPhenomPv2 precesses.",
)
MAX_SPIN = click.option(
    "--max-spin",
    type=click.FloatRange(0, 0.99),
    default=0.0,
    show_default=True,
    help="Largest dimensionless spin: magnitudes uniform, directions isotropic "
    "(IMRPhenomD uses the components along the orbital angular momentum).",
)
VOLUME = click.option(
    "--volume",
    type=click.FloatRange(0, 2, min_open=True),
    help="Draw distances uniform in comoving volume (Planck18) up to this redshift, "
    "and reject and count mergers below network SNR 4.",
)
TIME_DILATION = click.option(
    "--time-dilation",
    is_flag=True,
    help="With --volume: weight the volume by 1 / (1 + redshift), for a constant "
    "merger rate in the source frame.",
)
KEEP_REJECTED = click.option(
    "--keep-rejected",
    is_flag=True,
    help="With --volume: write the parameters of rejected mergers too.",
)
LENGTH = click.option(
    "--length",
    type=click.FloatRange(1, 64),
    default=4.0,
    show_default=True,
    help="Length of each signal, s; a longer inspiral is cut. The merger is 1/2 s "
    "before the end.",
)
POPULATION = (
    MASSES,
    MASS_DISTRIBUTION,
    SOURCE_FRAME,
    REFERENCE_SHARE,
    REFERENCE_MASSES,
    APPROXIMANT,
    MAX_SPIN,
    VOLUME,
    TIME_DILATION,
    KEEP_REJECTED,
    LENGTH,
)
Command = Callable[..., None]


def population(command: Command) -> Command:
    """Add the options of a population of mergers to a command."""
    for option in reversed(POPULATION):
        command = option(command)
    return command


def population_settings(
    masses: tuple[float, float],
    mass_distribution: str,
    source_frame: bool,
    reference_share: float,
    reference_masses: tuple[float, float],
    approximant: str,
    max_spin: float,
    volume: float | None,
    time_dilation: bool,
    length: float,
) -> dict[str, Any]:
    """Convert the options of ``population`` to arguments of ``InjectionSettings``.

    Raises:
        ConfigurationError: Options contradict each other.
    """
    if time_dilation and volume is None:
        raise ConfigurationError("--time-dilation: expected --volume too")
    return {
        "min_mass": masses[0],
        "max_mass": masses[1],
        "mass_distribution": mass_distribution.replace("-", "_"),
        "source_frame": source_frame,
        "reference_share": reference_share,
        "reference_masses": reference_masses,
        "approximant": approximant,
        "max_spin": max_spin,
        "max_redshift": volume or 1.0,
        "time_dilation": time_dilation,
        "signal_length": length,
    }


def refuse_idle(rule: str, *names: str) -> None:
    """Refuse options of the current command that were given but have no effect.

    Args:
        rule: What the options need to have an effect, such as ``--drift too``.
        names: Parameter names of the options.

    Raises:
        ConfigurationError: One of them was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is not ParameterSource.DEFAULT:
            raise ConfigurationError(f"{parameter.opts[0]}: expected {rule}")


@click.group()
def simulate() -> None:
    """Simulate background strain or mergers.

    The files are marked as simulated, and so is every report on them.
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
    help="Split to which the segment belongs.",
)
@ifos_option("Detectors.")
@click.option(
    "--drift/--no-drift",
    help="Let the spectrum drift over minutes: between the run's curves, and in level, "
    "tilt and line heights.",
)
@click.option(
    "--curve-name",
    "curve_names",
    multiple=True,
    help="Noise curve of the run: 'measured' or an expected one (see "
    "docs/explanation/simulation.md); repeat with --drift. [default: measured; "
    "with --drift all]",
)
@click.option(
    "--drift-length",
    type=click.FloatRange(16),
    default=300.0,
    show_default=True,
    help="With --drift: correlation time of the drift, s.",
)
@click.option(
    "--lines/--no-lines",
    help="Add mains, violin modes and calibration lines. The measured curves have "
    "their run's lines already.",
)
@click.option(
    "--glitch-rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Rate of glitches in each detector, per minute; detectors are independent.",
)
@click.option(
    "--glitch-family",
    "families",
    type=click.Choice(FAMILIES),
    multiple=True,
    help="Family of the glitches; repeat for several in equal shares. [default: blip "
    "60 %, tomte 25 %, scattered_light 15 %]",
)
@click.option(
    "--glitch-snr",
    type=click.FloatRange(min=0, min_open=True),
    nargs=2,
    default=(5.0, 100.0),
    show_default=True,
    help="Smallest and largest SNR of a glitch above 32 Hz.",
)
@click.option(
    "--glitch-index",
    type=float,
    default=-1.0,
    show_default=True,
    help="Exponent of the power law of glitch SNRs; -1 is log-uniform.",
)
@click.option(
    "--gap-rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Gaps per hour of livetime, common to all detectors; a new segment follows "
    "each.",
)
@click.option(
    "--gap-length",
    type=click.FloatRange(1),
    default=600.0,
    show_default=True,
    help="Mean length of a gap, s.",
)
@click.option(
    "--min-length",
    type=click.IntRange(4),
    default=64,
    show_default=True,
    help="With --gap-rate: shortest segment to write, s.",
)
def background(
    out: Path,
    start: int,
    duration: int,
    curve: str,
    seed: int,
    split: str,
    ifos: tuple[str, ...],
    drift: bool,
    curve_names: tuple[str, ...],
    drift_length: float,
    lines: bool,
    glitch_rate: float,
    families: tuple[str, ...],
    glitch_snr: tuple[float, float],
    glitch_index: float,
    gap_rate: float,
    gap_length: float,
    min_length: int,
) -> None:
    """Simulate detector noise, optionally with drift, lines, glitches and gaps.

    The noise is Gaussian and has the spectrum of the published curves up to 1024 Hz;
    without --drift it is stationary. OUT is an HDF5 file; if it exists, the segments
    are added to it. A day needs 3 GB of disk and little memory.
    """
    if not drift:
        refuse_idle("--drift too", "drift_length")
    if not glitch_rate:
        refuse_idle(
            "a --glitch-rate above zero", "families", "glitch_snr", "glitch_index"
        )
    if not gap_rate:
        refuse_idle("a --gap-rate above zero", "gap_length", "min_length")

    import numpy as np

    from chirpwatch.train.data.noise.background import (
        BackgroundSettings,
        draw_live_times,
        write_simulated_background,
    )
    from chirpwatch.train.data.noise.drift import DriftSettings

    settings = BackgroundSettings(
        run=curve,
        curves=curve_names,
        drift=DriftSettings(correlation_length=drift_length) if drift else None,
        lines=lines,
        glitch_rate=glitch_rate / 60,
        glitch_weights=dict.fromkeys(families, 1.0) or WEIGHTS,
        glitch_snrs=glitch_snr,
        glitch_index=glitch_index,
    )
    spans = [(0, duration)]
    if gap_rate:
        rng = np.random.default_rng([seed, start, *split.encode(), *b"gaps"])
        spans = draw_live_times(duration, gap_rate / 3600, gap_length, min_length, rng)
    if not spans:
        raise ConfigurationError(
            f"--gap-rate {gap_rate:g}: expected a segment of --min-length {min_length} "
            f"s in {duration} s, found none; ask for fewer gaps"
        )
    count = write_simulated_background(
        out,
        split,
        [(start + begin, length) for begin, length in spans],
        ifos,
        Geometry().sample_rate,
        settings,
        seed,
        typed_command(),
    )
    live = sum(length for _, length in spans)
    click.echo(
        f"{out}: {live} s of simulated {curve} noise for {', '.join(ifos)} from "
        f"GPS {start} in {len(spans)} segments, {count} glitches"
    )


@simulate.command()
@OUT
@START
@DURATION
@click.option(
    "--background",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Background file whose segments get a set each, instead of the segment of "
    "--start and --duration.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help="With --background: split whose segments are used.",
)
@CURVE
@SEED
@ifos_option("Detectors onto which the mergers are projected.")
@click.option(
    "--shifts",
    "slides",
    multiple=True,
    show_default="zero-lag",
    help="Timeslide of a set: the shift of each of --ifos, s, such as 0,4. Repeat for "
    "several sets.",
)
@population
@click.option(
    "--snr",
    type=click.FloatRange(min=0, min_open=True),
    nargs=2,
    default=(5.0, 20.0),
    show_default=True,
    help="Smallest and largest network SNR above 32 Hz, uniform; sets the distances.",
)
@click.option(
    "--first",
    type=float,
    default=44.0,
    show_default=True,
    help="Time from the segment's start to the first merger, s.",
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
    help="Largest random shift of a merger to either side, s.",
)
def signals(
    out: Path,
    start: int,
    duration: int,
    background: Path | None,
    split: str,
    curve: str,
    seed: int,
    ifos: tuple[str, ...],
    slides: tuple[str, ...],
    snr: tuple[float, float],
    first: float,
    spacing: float,
    jitter: float,
    volume: float | None,
    keep_rejected: bool,
    **options: Any,
) -> None:
    """Simulate mergers for injection, a set for each segment and timeslide.

    Sky positions are isotropic; the signals include antenna responses and light-travel
    delays. OUT is an HDF5 file; if it exists, the sets are added to it. Each call
    copies the file, so write all sets of a large file in one call. Memory grows by
    about 1 KB per merger.
    """
    if keep_rejected and volume is None:
        raise ConfigurationError("--keep-rejected: expected --volume too")
    if volume is not None:
        refuse_idle("no --volume, which draws distances instead of SNRs", "snr")
    if background is None:
        refuse_idle("--background too", "split")
    else:
        refuse_idle("no --background, which sets the segments", "start", "duration")
    mergers = population_settings(volume=volume, **options)
    shifts = [_seconds(slide, ifos) for slide in slides] or [[0.0] * len(ifos)]

    from chirpwatch.train.data.files import write_simulated_signals
    from chirpwatch.train.data.signals.injections import (
        count_mergers,
        has_room,
    )
    from chirpwatch.train.data.signals.population import InjectionSettings

    settings = InjectionSettings(
        run=curve,
        snr_range=None if volume else snr,
        first_length=first,
        spacing_length=spacing,
        jitter_length=jitter,
        ifos=ifos,
        **mergers,
    )
    spans = [(start, duration)]
    if background is not None:
        spans = _spans(background, split, ifos)
        fitting = [span for span in spans if has_room(span[1], settings)]
        if not fitting:
            raise SignalError(
                f"{background}: expected a segment under '{split}/' that is long "
                "enough for a merger, found at most "
                f"{max(length for _, length in spans)} s; choose a smaller --first, "
                "--jitter or --length"
            )
        for begin, length in sorted(set(spans) - set(fitting)):
            click.echo(f"left out: {begin}-{length}, too short for a merger", err=True)
        spans = fitting
    total = len(shifts) * sum(count_mergers(length, settings) for _, length in spans)
    with click.progressbar(length=total, label="Mergers", file=sys.stderr) as bar:
        counts = write_simulated_signals(
            out,
            spans,
            shifts,
            settings,
            seed,
            typed_command(),
            keep_rejected,
            bar.update,
        )
    for name, (accepted, rejected) in counts.items():
        segment, shift = name.split("/")
        click.echo(
            f"{out}: {accepted} mergers for segment {segment}, shifts {shift}; "
            f"{rejected} rejected"
        )


def _spans(
    background: Path, split: str, ifos: tuple[str, ...]
) -> list[tuple[int, int]]:
    """GPS start and length of each segment in a split of a background file, s.

    Raises:
        StrainError: The file cannot be read, or a segment is not of whole seconds.
    """
    from chirpwatch.background_file import read_background
    from chirpwatch.strain import NANOSECONDS

    spans = []
    for segment in read_background(background, split, ifos, Geometry().sample_rate):
        start, rest = divmod(segment.t0_ns, NANOSECONDS)
        if rest or segment.duration % 1:
            raise StrainError(
                f"{background}, {split}/{segment.name}: expected start and length in "
                f"whole seconds, found {segment.t0_ns / NANOSECONDS:.9f} and "
                f"{segment.duration:g} s; cut the segment to whole seconds"
            )
        spans.append((start, round(segment.duration)))
    return spans


def _seconds(slide: str, ifos: tuple[str, ...]) -> list[float]:
    """Parse the value of ``--shifts``: each detector's shift, s."""
    try:
        seconds = [float(shift) for shift in slide.split(",")]
    except ValueError:
        seconds = []
    if len(seconds) != len(ifos):
        raise click.BadParameter(
            f"expected {len(ifos)} numbers with commas, for {', '.join(ifos)}; found "
            f"{slide!r}",
            param_hint="--shifts",
        )
    return seconds


@simulate.command()
@OUT
@click.option(
    "--count",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Number of mergers.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid"]),
    default="train",
    show_default=True,
    help="Split to which the mergers belong.",
)
@CURVE
@ifos_option("With --volume: detectors of the network SNR.")
@population
@SEED
def polarizations(
    out: Path,
    count: int,
    split: str,
    curve: str,
    seed: int,
    ifos: tuple[str, ...],
    volume: float | None,
    keep_rejected: bool,
    **options: Any,
) -> None:
    """Simulate the plus and cross polarizations of mergers, for training.

    Inclinations and phases are random; distances are 100 Mpc, or random with --volume.
    The file is for other programs that read this layout: 'chirpwatch train fit'
    generates its own signals.
    """
    if keep_rejected and volume is None:
        raise ConfigurationError("--keep-rejected: expected --volume too")
    if volume is None:
        refuse_idle("--volume too", "ifos")
    mergers = population_settings(volume=volume, **options)

    from chirpwatch.train.data.files import write_simulated_polarizations
    from chirpwatch.train.data.signals.population import InjectionSettings

    settings = InjectionSettings(
        run=curve,
        snr_range=None if volume else (5.0, 20.0),
        ifos=ifos,
        **mergers,
    )
    with click.progressbar(length=count, label="Mergers", file=sys.stderr) as bar:
        rejected = write_simulated_polarizations(
            out,
            split,
            count,
            settings,
            seed,
            typed_command(),
            keep_rejected,
            bar.update,
        )
    click.echo(f"{out}: {count} mergers for {split}; {rejected} rejected")
