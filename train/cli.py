"""The command ``chirpwatch train``."""

from pathlib import Path

import click


@click.group()
def train() -> None:
    """Train the network, and measure what it finds."""


@train.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.option(
    "--config",
    "configs",
    multiple=True,
    default=["matched"],
    show_default=True,
    help="A configuration that comes with the project (matched, split, seed, dense) "
    "or a YAML file; a further one overrides the one before.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.  [default: runs/train/CONFIG]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of weights and windows.  [default: the configuration's]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the training in FOLDER where its last checkpoint was written; it "
    "ends with the same weights as if it had not stopped.",
)
@click.pass_context
def fit(
    context: click.Context,
    configs: tuple[str, ...],
    folder: Path | None,
    seed: int | None,
    resume: bool,
) -> None:
    """Train a network, as in: chirpwatch train fit --config matched --seed 1.

    Windows are made while the network trains. FOLDER gets the network (network.ckpt),
    what it finds (validation.md), a report (report.html), the logs (metrics.csv,
    tensorboard/) and the configuration (config.yaml).

    Every value of a configuration can be given here as well, such as --steps 1000,
    --data.windows.last_snr 4, --data.background FILE, --model.hyperparameters.width 8
    or --trainer.devices 2 --trainer.strategy ddp. --print_config shows all of them.
    """
    from chirpwatch.train.fitting.fit import fit

    fit(folder, configs, seed, resume, context.args)


@train.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("report", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Seed of the windows; another than in training.",
)
@click.option("--quick", is_flag=True, help="Draw less.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes at a time: the others judge it in further kinds of noise.",
)
@click.option(
    "--curves",
    multiple=True,
    metavar="RUN[/NAME]",
    help="Judge it in noise of an observing run's measured curves as well, such as O4, "
    "or of a curve that was expected of it, such as O3/T1800545-low: trainings do not "
    "see these.",
)
@click.option(
    "--spectra",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Judge it in noise of measured spectra as well: a folder for each detector.",
)
@click.option(
    "--background",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Judge it in the strain of this file's test split as well.",
)
@click.option(
    "--glitches",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Judge it with these recorded glitches as well, in the noise of O3's curves.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    help="Judge it with analytic glitches of this family alone as well; whistles are "
    "held out of the training.",
)
def validate(
    checkpoint: Path,
    report: Path,
    seed: int,
    quick: bool,
    processes: int,
    curves: tuple[str, ...],
    spectra: Path | None,
    background: Path | None,
    glitches: Path | None,
    families: tuple[str, ...],
) -> None:
    """Measure the share of mergers that CHECKPOINT finds, in simulated O3 noise.

    Writes REPORT (JSON) and a Markdown table beside it: efficiency, ROC, calibration
    and what a matched filter would find. Further kinds of noise are measured with a
    quarter of the windows.
    """
    from chirpwatch.train.evaluation.deployment import SELECTION_SEED
    from chirpwatch.train.evaluation.heldout import (
        OtherNoise,
        SpectrumStretches,
        curve_noise,
        read_glitches,
        strain_noise,
    )
    from chirpwatch.train.evaluation.tables import write_report
    from chirpwatch.train.evaluation.validation import validate
    from chirpwatch.train.networks.checkpoint import load_checkpoint

    network, details = load_checkpoint(checkpoint)
    if seed in (details.get("seed"), SELECTION_SEED):
        raise click.BadParameter(
            f"{seed} is a seed of the training: its windows would be met again",
            param_hint="--seed",
        )
    geometry = network.geometry
    rate = geometry.sample_rate
    noises = [curve_noise(curve, geometry) for curve in curves]
    if spectra:
        sources = {
            ifo: SpectrumStretches.of_folder(spectra, ifo, rate)
            for ifo in geometry.ifos
        }
        noises.append(OtherNoise(f"measured spectra ({spectra.name})", sources))
    if background:
        noises.append(strain_noise(background, geometry))
    if glitches:
        found = read_glitches(glitches, rate, geometry.kernel_size)
        noises.append(OtherNoise(f"glitches of {glitches.name}", glitches=found))
    noises += [
        OtherNoise(f"glitches: {family} alone", glitch_weights={family: 1.0})
        for family in families
    ]
    result = validate(network, seed, quick=quick, noises=noises, processes=processes)
    write_report(report, {"checkpoint": details} | result)
    click.echo(report.with_suffix(".md").read_text())


@train.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def report(folder: Path) -> None:
    """Write report.html and its figures from what lies in FOLDER.

    FOLDER is that of a training: metrics.csv, validation.json, config.yaml. The page
    opens from disk and needs no network; parts that are not there are left out.
    """
    from chirpwatch.train.evaluation.report import write_run_report

    click.echo(write_run_report(folder))


@train.command()
@click.argument(
    "folders",
    type=click.Path(path_type=Path, file_okay=False),
    nargs=-1,
    required=True,
    metavar="FOLDER...",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.md"),
    show_default=True,
    help="Markdown file to write; the figure lies beside it as .png.",
)
def compare(folders: tuple[Path, ...], out: Path) -> None:
    """Compare trained networks: shares found, parameters, cost.

    Each FOLDER is that of a training (network.ckpt, validation.json). Trainings of the
    same network with other seeds are put together.
    """
    from chirpwatch.train.evaluation.compare import write_comparison

    write_comparison(folders, out)
    click.echo(out.read_text())


@train.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--strain",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    required=True,
    help="GWOSC's HDF5 file of one detector; once for each.",
)
@click.option("--time", type=float, required=True, help="GPS time of the event, s.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="JSON file to write.",
)
def rank(checkpoint: Path, strain: tuple[Path, ...], time: float, out: Path) -> None:
    """Score an event in recorded strain, and rank it among background.

    The background are windows of the same strain that lie apart in time in each two
    detectors, and ten days of simulated strain with glitches.
    """
    import json

    from chirpwatch.atomic import replacing
    from chirpwatch.gwosc_file import read_gwosc
    from chirpwatch.train.data.window_settings import WindowSettings
    from chirpwatch.train.evaluation.deployment import DeployedValidation
    from chirpwatch.train.evaluation.rank import (
        check_shiftable,
        find_segment,
        rank_event,
    )
    from chirpwatch.train.evaluation.validation import VALIDATION_SEED
    from chirpwatch.train.networks.checkpoint import load_sliding

    network, _ = load_sliding(checkpoint)
    geometry = network.geometry
    check_shiftable(geometry)
    segments = read_gwosc(strain, geometry.ifos, geometry.sample_rate)
    segment = find_segment(segments, time)
    validation = DeployedValidation(
        geometry, WindowSettings(), VALIDATION_SEED, injections=0, windows=1
    )
    slides = validation.run_slides(network.fused())
    assert slides is not None  # this kind of network has them
    result = rank_event(network, segment, time, slides.background)
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(out.read_text(), nl=False)


@train.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--templates",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Templates in the bank.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 8000),
    default=4000,
    show_default=True,
    help="Mergers drawn from the population that templates are chosen from.",
)
@click.option(
    "--masses",
    type=click.FloatRange(5, 200),
    nargs=2,
    default=(5.0, 200.0),
    show_default=True,
    help="Smallest and largest component mass, detector frame, solar masses.",
)
@click.option(
    "--max-spin",
    type=click.FloatRange(0, 0.99),
    default=0.9,
    show_default=True,
    help="Largest dimensionless spin; directions are isotropic.",
)
@click.option(
    "--logarithmic-share",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    help="Share of the mergers whose masses are uniform in the logarithm; the others' "
    "are uniform.",
)
@click.option(
    "--mass-flattening",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="How far the logarithm of the chirp mass is made uniform.",
)
@click.option(
    "--before",
    type=click.FloatRange(0, 2.5, min_open=True),
    default=1.145,
    show_default=True,
    help="What a template keeps before its merger, s.",
)
@click.option(
    "--after",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.055,
    show_default=True,
    help="What a template keeps after its merger, s.",
)
@click.option(
    "--max-frequency",
    type=click.FloatRange(0, min_open=True),
    default=450.0,
    show_default=True,
    help="Frequency above which a template has nothing, Hz.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    default=("O3", "O4"),
    show_default=True,
    help="Observing run whose noise curves whiten the templates; once for each.",
)
@click.option(
    "--emphasis",
    type=click.FloatRange(1, 100),
    default=3.0,
    show_default=True,
    help="Power of the match in the mean that the placement maximises.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Seed of the mergers.",
)
@click.option(
    "--signals",
    type=click.IntRange(100),
    default=2000,
    show_default=True,
    help="Further mergers that the bank is measured with.",
)
def bank(
    output: Path,
    templates: int,
    candidates: int,
    masses: tuple[float, float],
    max_spin: float,
    logarithmic_share: float,
    mass_flattening: float,
    before: float,
    after: float,
    max_frequency: float,
    runs: tuple[str, ...],
    emphasis: float,
    seed: int,
    signals: int,
) -> None:
    """Choose the templates of the network's matched filters: a bank.

    Writes OUTPUT (JSON), and beside it a table (.md) and a figure (.png) of the SNR
    that the bank recovers, by chirp mass and over the plane of component masses.
    """
    if output.suffix != ".json":
        raise click.BadParameter(
            f"expected a file whose name ends with .json, found {output}",
            param_hint="OUTPUT",
        )
    if candidates < templates:
        raise click.BadParameter(
            f"expected at least as many as --templates, {templates}; found "
            f"{candidates}",
            param_hint="--candidates",
        )

    from chirpwatch.geometry import Geometry
    from chirpwatch.train.command import typed_command
    from chirpwatch.train.evaluation.bank_report import write_bank
    from chirpwatch.train.networks.bank import BankSettings
    from chirpwatch.train.networks.placement import place

    settings = BankSettings(
        templates=templates,
        candidates=candidates,
        min_mass=masses[0],
        max_mass=masses[1],
        max_spin=max_spin,
        logarithmic_share=logarithmic_share,
        mass_flattening=mass_flattening,
        before_length=before,
        after_length=after,
        max_frequency=max_frequency,
        runs=runs,
        emphasis=emphasis,
        seed=seed,
    )
    geometry = Geometry()
    write_bank(output, place(settings, geometry), geometry, signals, typed_command())
    click.echo(output.with_suffix(".md").read_text())
