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
    help="Observing run whose published noise curves are used.",
)

MASSES = click.option(
    "--masses",
    type=click.FloatRange(5, 150),
    nargs=2,
    default=(15.0, 50.0),
    show_default=True,
    help="Smallest and largest component mass as the detectors see them (see "
    "--source-frame), solar masses.",
)
MASS_DISTRIBUTION = click.option(
    "--mass-distribution",
    type=click.Choice(["uniform", "log-uniform"]),
    default="uniform",
    show_default=True,
    help="How each component mass is distributed.",
)
SOURCE_FRAME = click.option(
    "--source-frame",
    is_flag=True,
    help="Masses are those in the source's frame; the detectors see them times 1 + "
    "redshift. Only with --volume.",
)
REFERENCE_SHARE = click.option(
    "--reference-share",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Share of the mergers that are of --reference-masses; 1 for these alone.",
)
REFERENCE_MASSES = click.option(
    "--reference-masses",
    type=click.FloatRange(5, 150),
    nargs=2,
    default=(35.0, 35.0),
    show_default=True,
    help="A fixed pair of masses, solar masses.",
)
APPROXIMANT = click.option(
    "--approximant",
    type=click.Choice(["IMRPhenomD", "IMRPhenomPv2"]),
    default="IMRPhenomD",
    show_default=True,
    help="Waveform; IMRPhenomPv2 precesses.",
)
MAX_SPIN = click.option(
    "--max-spin",
    type=click.FloatRange(0, 0.99),
    default=0.0,
    show_default=True,
    help="Largest dimensionless spin: magnitudes uniform, directions isotropic "
    "(IMRPhenomD takes their part along the orbit's axis).",
)
VOLUME = click.option(
    "--volume",
    type=click.FloatRange(0, 2, min_open=True),
    help="Draw distances uniform in comoving volume (Planck18) up to this redshift "
    "instead, and reject (and count) mergers fainter than network SNR 4.",
)
TIME_DILATION = click.option(
    "--time-dilation",
    is_flag=True,
    help="With --volume: fewer mergers from far away, as 1 / (1 + redshift), as a "
    "constant rate in the sources' own time has it.",
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
    help="Length of each signal, s; what lies earlier is cut off. The merger is 1/2 s "
    "before its end.",
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
    """Give a command the options that say which mergers there are."""
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
    """Settings of a population from the options of ``population``.

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
    """Refuse options that were given and would do nothing.

    Args:
        rule: What they need, such as ``--drift too``.
        names: Parameters of the current command.

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
@ifos_option("Detectors whose noise is made.")
@click.option(
    "--drift/--no-drift",
    help="Let the spectrum move over minutes, between all curves of the run, and in "
    "level, tilt and lines.",
)
@click.option(
    "--curve-name",
    "curve_names",
    multiple=True,
    help="Which of the run's noise curves: 'measured' or an expected one (see "
    "docs/explanation/simulation.md); with --drift several. [default: measured; with "
    "--drift all]",
)
@click.option(
    "--drift-length",
    type=click.FloatRange(16),
    default=300.0,
    show_default=True,
    help="With --drift: time after which the spectrum has forgotten what it was, s.",
)
@click.option(
    "--lines/--no-lines",
    help="Add mains, violin modes and calibration lines. The measured curves have "
    "those of their time already.",
)
@click.option(
    "--glitch-rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Glitches in each detector, a minute; independent of one another.",
)
@click.option(
    "--glitch-family",
    "families",
    type=click.Choice(FAMILIES),
    multiple=True,
    help="Draw glitches of this family; several are drawn equally often. Without it: "
    "blip 60 %, tomte 25 %, scattered_light 15 %.",
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
    help="Power of the SNR that the number of glitches follows; -1 is uniform in the "
    "logarithm.",
)
@click.option(
    "--gap-rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Gaps in an hour of live time; all detectors have them together, and each "
    "begins a new segment.",
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
    help="With --gap-rate: segments shorter than this are left out, s.",
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
    """Write noise of detectors, with drift, lines, glitches and gaps if wanted.

    The noise is Gaussian and has the spectrum of the published curves between 0 and
    1024 Hz; without --drift it is stationary. OUT is an HDF5 file; segments are added
    to it if it is there already. A day needs 3 GB of disk and little memory.
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
        f"{out}: {live} s of simulated {curve} noise of {', '.join(ifos)} from "
        f"GPS {start} in {len(spans)} segments, {count} glitches"
    )


@simulate.command()
@OUT
@START
@DURATION
@click.option(
    "--background",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the segments of this file of strain, in place of --start and "
    "--duration: a set for each.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help="With --background: which segments of it.",
)
@CURVE
@SEED
@ifos_option("Detectors that see the mergers.")
@click.option(
    "--shifts",
    "slides",
    multiple=True,
    show_default="zero-lag",
    help="Timeslide that the signals are for: seconds for each of --ifos, such as 0,4. "
    "Several times for a set of its own for each.",
)
@population
@click.option(
    "--snr",
    type=click.FloatRange(min=0, min_open=True),
    nargs=2,
    default=(5.0, 20.0),
    show_default=True,
    help="Smallest and largest network SNR above 32 Hz; distances are adapted to it.",
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
    """Write mergers that are ready to be injected, a set for each segment and slide.

    Waveforms from all over the sky, as the detectors see them, the light-travel time
    between the sites included. OUT is an HDF5 file; sets are added to it if it is there
    already (it is copied for that, so ask for all sets of a large file at once). Memory
    grows by about 1 KB a merger.
    """
    if keep_rejected and volume is None:
        raise ConfigurationError("--keep-rejected: expected --volume too")
    if volume is not None:
        refuse_idle("no --volume, which gives each merger its SNR", "snr")
    if background is None:
        refuse_idle("--background too", "split")
    else:
        refuse_idle("no --background, which has segments", "start", "duration")
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
                f"{background}: expected a segment with room for a merger under "
                f"'{split}/', found none; the longest is "
                f"{max(length for _, length in spans)} s"
            )
        for begin, length in sorted(set(spans) - set(fitting)):
            click.echo(f"left out: {begin}-{length}, no room for a merger", err=True)
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
    """GPS start and length of the segments of a file, s."""
    from chirpwatch.strain import (
        NANOSECONDS,
        read_background,
    )

    spans = []
    for segment in read_background(background, split, ifos, Geometry().sample_rate):
        start, rest = divmod(segment.t0_ns, NANOSECONDS)
        if rest or segment.duration % 1:
            raise StrainError(
                f"{background}, {split}/{segment.name}: expected a segment of whole "
                "seconds; cut it there"
            )
        spans.append((start, round(segment.duration)))
    return spans


def _seconds(slide: str, ifos: tuple[str, ...]) -> list[float]:
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
    help="Mergers to draw.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid"]),
    default="train",
    show_default=True,
    help="What the mergers are for.",
)
@CURVE
@ifos_option("With --volume: detectors in which SNR is counted.")
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
    """Write mergers as they arrive at the Earth, before any detector.

    Plus and cross polarization, with inclination and phase drawn; at 100 Mpc, or with
    --volume at their distances. 'chirpwatch train fit' makes its own and needs no such
    file; other programs that read this layout do.
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
