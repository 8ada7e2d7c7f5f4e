"""Ablation of the network ``matched``: ``python -m benchmarks.parts FOLDER``.

Disables one part of the network at a time, without retraining the others, and measures
the efficiency at SNR 8, in Gaussian noise and with glitches. Writes ``FOLDER/parts.md``
and two figures, in about twelve minutes of two cores.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import nn

from benchmarks.seed import CORES
from chirpwatch.process import process_pool
from chirpwatch.train.evaluation.figures import (
    KINDS,
    LIGHT,
    comparison,
    rate_words,
    render,
)
from chirpwatch.train.evaluation.thresholds import MASSES, RATES
from chirpwatch.train.evaluation.validation import validate
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_checkpoint,
)
from chirpwatch.train.networks.matched import MatchedNetwork

MODEL = "matched"
SNR, DRAWN_RATE = 8.0, 1e-4
NO_CEILING = 400.0
"""A ceiling that no value reaches."""

JUDGEMENT: dict[str, Any] = {
    "snrs": (SNR,),
    "batches": 1,
    "scatter": 10,
    "optimum_windows": 500,
    "optimum_signals": 10,
    "bank_windows": 0,
}
"""Fields of ``Effort``: as little as possible of everything that is not reported."""

Shares = dict[tuple[float, float], float]


def _silence(layer: nn.Module) -> None:
    """Set a layer's weights and biases to zero."""
    assert isinstance(layer, nn.Conv1d) and layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def without_nothing(network: MatchedNetwork) -> None:
    """Disable nothing."""


def without_templates(network: MatchedNetwork) -> None:
    """Disable the templates; only the learned frontend remains."""
    for part in network.matched.parts:
        assert isinstance(part.mix, torch.Tensor)
        nn.init.zeros_(part.mix)
    _ignore(network, slice(0, network.groups))


def without_learned_frontend(network: MatchedNetwork) -> None:
    """Disable the learned frontend; ceilings and channels use the templates only."""
    _ignore(network, slice(network.groups, network.norm.num_features))


def _ignore(network: MatchedNetwork, inputs: slice) -> None:
    """Make ceilings and learned channels ignore some of their normalised inputs."""
    assert isinstance(network.norm, nn.BatchNorm1d)
    for layer in (network.hidden[0], network.projection):
        assert isinstance(layer, nn.Conv1d)
        nn.init.zeros_(layer.weight[:, inputs])


def without_ceilings(network: MatchedNetwork) -> None:
    """Disable the ceilings of the templates' log-likelihood ratios."""
    _silence(network.ceiling)
    assert network.ceiling.bias is not None
    nn.init.constant_(network.ceiling.bias, NO_CEILING)


def without_learned_channels(network: MatchedNetwork) -> None:
    """Remove the learned channels' term from the score."""
    _silence(network.head.learned[-1])


def without_small_network(network: MatchedNetwork) -> None:
    """Disable the last small network; the score is the plain sum of the terms."""
    _silence(network.head.combine[-1])


PARTS: dict[str, Callable[[MatchedNetwork], None]] = {
    "whole": without_nothing,
    "without templates": without_templates,
    "without learned frontend": without_learned_frontend,
    "without ceilings": without_ceilings,
    "without learned channels": without_learned_channels,
    "without the last network": without_small_network,
}


class Task(NamedTuple):
    """One part to disable, and the size of the validation.

    Attributes:
        network: Checkpoint, or name of a shipped one.
        name: Key of ``PARTS``.
        sizes: Fields of ``Effort``.
    """

    network: str
    name: str
    sizes: dict[str, Any]


def measure(task: Task) -> dict[str, Any]:
    """Validate the network without one of the parts."""
    torch.set_num_threads(1)
    network, _ = load_checkpoint(find_checkpoint(task.network))
    assert isinstance(network, MatchedNetwork)
    with torch.no_grad():
        PARTS[task.name](network)
    return validate(network, **JUDGEMENT, **task.sizes)


def shares(result: dict[str, Any], kind: str, rate: float) -> Shares:
    """Efficiency for each pair of masses; NaN if the threshold was not measured.

    Args:
        result: From ``measure``.
        kind: Kind of noise, a key of ``KINDS``.
        rate: False-positive rate of the threshold, per window.
    """
    return {
        (entry["mass_1"], entry["mass_2"]): entry["found"].get(str(rate), math.nan)
        for entry in result["found"][kind]
    }


def table(efficiencies: dict[str, Shares], clusters: dict[str, float]) -> str:
    """Format the efficiencies at one false-positive rate as Markdown.

    Args:
        efficiencies: Efficiencies of each network.
        clusters: Independent clusters above each network's threshold.
    """
    heads = " | ".join(f"{a:g}, {b:g}" for a, b in MASSES)
    lines = [f"| | {heads} | clusters above |", "|---|" + "---|" * (len(MASSES) + 1)]
    for name, by_masses in efficiencies.items():
        cells = [f"{100 * by_masses[pair]:.1f} %" for pair in MASSES]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {clusters[name]:.0f} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--part",
    "parts",
    type=click.Choice(list(PARTS)),
    multiple=True,
    default=list(PARTS),
    help="Part to disable; repeat for several.  [default: each of them]",
)
@click.option(
    "--network",
    default=MODEL,
    show_default=True,
    help="Checkpoint of a matched network, or name of a shipped one.",
)
@click.option(
    "--noise-length",
    type=click.FloatRange(0, min_open=True),
    default=12_000.0,
    show_default=True,
    help="Length of each detector's noise, s.",
)
@click.option(
    "--signals",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Number of mergers with each pair of masses.",
)
@click.option(
    "--glitch-windows",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Number of noise windows with a glitch.",
)
def main(folder: Path, parts: tuple[str, ...], network: str, **sizes: Any) -> None:
    """Measure the efficiency without each part; write FOLDER/parts.md and figures."""
    folder.mkdir(parents=True, exist_ok=True)
    with process_pool(CORES) as pool:
        tasks = [Task(network, name, sizes) for name in parts]
        results = dict(zip(parts, pool.map(measure, tasks), strict=True))
    text = ""
    for kind, title in KINDS.items():
        for rate in RATES:
            clusters = {
                name: result["clusters"][kind].get(str(rate), 0.0)
                for name, result in results.items()
            }
            if not any(clusters.values()):
                continue
            efficiencies = {
                name: shares(each, kind, rate) for name, each in results.items()
            }
            text += f"{title}, {rate_words(rate)}:\n\n{table(efficiencies, clusters)}\n"
            if rate == DRAWN_RATE:
                draw = comparison(
                    {
                        name: {pair: [share] for pair, share in by_masses.items()}
                        for name, by_masses in efficiencies.items()
                    },
                    f"share found at SNR {SNR:g} and {rate_words(rate)}",
                )
                path = folder / f"parts-{kind}.png"
                path.write_bytes(render(draw, LIGHT, (8.0, 4.2)))
    (folder / "parts.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
