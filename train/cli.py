"""The command ``chirpwatch train``."""

from pathlib import Path

import click

from chirpwatch.geometry import Geometry
from train.simulate_cli import SEED, typed_command


@click.group()
def train() -> None:
    """Train the network, and measure what it finds."""


@train.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--steps",
    type=click.IntRange(10),
    default=6500,
    show_default=True,
    help="Batches of 256 windows to train on.",
)
@click.option(
    "--width",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Channels of the frontend's first layer.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=6e-3,
    show_default=True,
    help="Highest learning rate of the cycle.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a CSV log of loss and shares found.",
)
@SEED
def fit(
    checkpoint: Path,
    steps: int,
    width: int,
    learning_rate: float,
    log: Path | None,
    seed: int,
) -> None:
    """Train on simulated windows and write CHECKPOINT, a table beside it.

    Windows are made while the network trains: O3 and O4 noise, whitened as the search
    whitens it; mergers of 7 to 60 solar masses from loud to faint; glitches of single
    detectors. On two cores 6500 steps take about 20 minutes.
    """
    from train.fit import fit_and_validate
    from train.windows import WindowSettings

    fit_and_validate(
        checkpoint,
        Geometry(),
        WindowSettings(),
        steps=steps,
        seed=seed,
        width=width,
        learning_rate=learning_rate,
        log_folder=log,
        command=typed_command(),
    )
    click.echo(checkpoint.with_suffix(".md").read_text())


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
def validate(checkpoint: Path, report: Path, seed: int) -> None:
    """Measure the share of mergers that CHECKPOINT finds, in simulated O3 noise.

    Writes REPORT (JSON) and a Markdown table beside it.
    """
    from train.checkpoint import load_checkpoint
    from train.validate import validate, write_report

    network, details = load_checkpoint(checkpoint)
    if seed == details.get("seed"):
        raise click.BadParameter(
            f"{seed} is the seed of the training: its windows would be met again",
            param_hint="--seed",
        )
    result = validate(network, seed)
    if "command" in details:
        result = {"checkpoint": details} | result
    write_report(report, result)
    click.echo(report.with_suffix(".md").read_text())
