"""The command ``chirpwatch train``."""

from pathlib import Path

import click


@click.group()
def train() -> None:
    """Train a network, and measure its efficiency."""


@train.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.option(
    "--config",
    "configs",
    multiple=True,
    default=["matched"],
    show_default=True,
    help="Shipped configuration (matched, split, seed, dense) or YAML file; if "
    "repeated, later ones override earlier ones.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the training run.  [default: runs/train/CONFIG]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of weights and windows.  [default: the configuration's]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume the training in FOLDER from its last checkpoint; the final weights "
    "are the same as without the interruption.",
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

    Training windows are simulated while the network trains. FOLDER gets the network
    (network.ckpt), its validation (validation.md), a report (report.html), the logs
    (metrics.csv, tensorboard/) and the configuration (config.yaml).

    Every value of a configuration is an option, such as --steps 1000,
    --data.windows.last_snr 4, --data.background FILE, --model.hyperparameters.width 8
    or --trainer.devices 2 --trainer.strategy ddp. --print_config prints all of them.
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
    help="Seed of the windows; must differ from the training's.",
)
@click.option("--quick", is_flag=True, help="Use fewer windows and injections.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes; those beyond the first validate in additional noise.",
)
@click.option(
    "--curves",
    multiple=True,
    metavar="RUN[/NAME]",
    help="Validate in noise with an observing run's measured curves as well, such as "
    "O4, or with an expected curve, such as O3/T1800545-low, which trainings do not "
    "use.",
)
@click.option(
    "--spectra",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Validate in noise with measured spectra as well: a folder with a folder of "
    "spectra for each detector.",
)
@click.option(
    "--background",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Validate in the strain of this background file's test split as well.",
)
@click.option(
    "--glitches",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Validate with these recorded glitches as well, in noise with O3's curves.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    help="Validate with analytic glitches of only this family as well; trainings use "
    "all families but whistle.",
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
    """Measure the efficiency of CHECKPOINT in simulated O3 noise.

    Writes REPORT (JSON) and a Markdown table beside it: efficiency, ROC, calibration
    and the efficiency of a matched filter. Additional noise is measured with a quarter
    of the windows.
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
            f"expected a seed that the training did not use, found {seed}: validation "
            "would repeat its windows",
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
        recorded = read_glitches(glitches, rate, geometry.kernel_size)
        noises.append(OtherNoise(f"glitches of {glitches.name}", glitches=recorded))
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
    """Write report.html and its figures for the training run in FOLDER.

    Reads metrics.csv, validation.json and config.yaml; a section whose file is missing
    is left out. The page is self-contained.
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
    help="Markdown file to write, with a figure beside it (.png).",
)
def compare(folders: tuple[Path, ...], out: Path) -> None:
    """Compare trained networks: efficiency, number of parameters, cost.

    Each FOLDER is that of a training run (network.ckpt, validation.json). Runs of the
    same network with different seeds are combined.
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
    help="GWOSC's HDF5 file of a detector; repeat for each detector.",
)
@click.option("--time", type=float, required=True, help="GPS time of the event, s.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="JSON file to write.",
)
def rank(checkpoint: Path, strain: tuple[Path, ...], time: float, out: Path) -> None:
    """Score an event in recorded strain, and compare it with the background.

    The background consists of timeslides of the same strain, and of ten days of
    simulated strain with glitches.
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
        geometry, WindowSettings(), VALIDATION_SEED, injections=0, windows=0
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
    help="Number of templates in the bank.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 8000),
    default=4000,
    show_default=True,
    help="Number of mergers from which the templates are chosen.",
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
    help="Share of the mergers with log-uniform masses; the others' are uniform.",
)
@click.option(
    "--mass-flattening",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="How far the distribution of the log chirp mass is flattened: 0 not at all, 1 "
    "to uniform.",
)
@click.option(
    "--before",
    type=click.FloatRange(0, 2.5, min_open=True),
    default=1.145,
    show_default=True,
    help="Length of a template before its merger, s.",
)
@click.option(
    "--after",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.055,
    show_default=True,
    help="Length of a template after its merger, s.",
)
@click.option(
    "--max-frequency",
    type=click.FloatRange(0, min_open=True),
    default=450.0,
    show_default=True,
    help="High-frequency cutoff of the templates, Hz.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    default=("O3", "O4"),
    show_default=True,
    help="Observing run whose noise curves whiten the templates; repeat for several.",
)
@click.option(
    "--emphasis",
    type=click.FloatRange(1, 100),
    default=3.0,
    show_default=True,
    help="Exponent of the match in the mean that the placement maximises.",
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
    help="Number of independent mergers with which the bank is measured.",
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
    """Place a template bank for the network's matched filters.

    Writes OUTPUT (JSON), and beside it a table (.md) and a figure (.png) of the share
    of the SNR that the bank recovers, by chirp mass and by component masses.
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
