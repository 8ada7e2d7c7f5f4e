"""What each part of ``matched`` contributes: ``python -m benchmarks.parts FOLDER``.

Of the network that ships, one part after the other is left out, without training the
others anew, and each of what remains is validated alike: what is found at SNR 8, in
Gaussian noise and with glitches. Writes ``FOLDER/parts.md`` and two figures, in about
twelve minutes of two cores.
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
"""A ceiling above all values that there are."""

JUDGEMENT: dict[str, Any] = {
    "snrs": (SNR,),
    "batches": 1,
    "scatter": 10,
    "optimum_windows": 500,
    "optimum_signals": 10,
    "bank_windows": 0,
}
"""Fields of ``validate.Effort``: next to nothing of what is not shown."""

Shares = dict[tuple[float, float], float]


def _silence(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv1d) and layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def without_nothing(network: MatchedNetwork) -> None:
    """Leave it whole."""


def without_templates(network: MatchedNetwork) -> None:
    """Leave what the learned frontend alone tells."""
    for part in network.matched.parts:
        nn.init.zeros_(part.mix)
    _ignore(network, slice(0, network.groups))


def without_learned_frontend(network: MatchedNetwork) -> None:
    """Leave ceilings and learned channels that are made of the templates alone."""
    _ignore(network, slice(network.groups, network.norm.num_features))


def _ignore(network: MatchedNetwork, inputs: slice) -> None:
    """Give ceilings and learned channels the mean of some of their inputs."""
    assert isinstance(network.norm, nn.BatchNorm1d)
    for layer in (network.hidden[0], network.projection):
        assert isinstance(layer, nn.Conv1d)
        nn.init.zeros_(layer.weight[:, inputs])


def without_ceilings(network: MatchedNetwork) -> None:
    """Let each template be worth all that it says."""
    _silence(network.ceiling)
    assert network.ceiling.bias is not None
    nn.init.constant_(network.ceiling.bias, NO_CEILING)


def without_learned_channels(network: MatchedNetwork) -> None:
    """Take the learned channels' term out of the score."""
    _silence(network.head.learned[-1])


def without_small_network(network: MatchedNetwork) -> None:
    """Leave the plain sum of the terms."""
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
    """One network to judge, and how much is drawn.

    Attributes:
        network: A checkpoint, or the name of one that comes with the project.
        name: Of ``PARTS``.
        sizes: Fields of ``validate.Effort``.
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
    """Share found of each pair of masses; NaN at a rate that was not reached."""
    return {
        (entry["mass_1"], entry["mass_2"]): entry["found"].get(str(rate), math.nan)
        for entry in result["found"][kind]
    }


def table(found: dict[str, Shares], clusters: dict[str, float]) -> str:
    """Lay out what is found at one rate as Markdown."""
    heads = " | ".join(f"{a:g}, {b:g}" for a, b in MASSES)
    lines = [f"| | {heads} | clusters above |", "|---|" + "---|" * (len(MASSES) + 1)]
    for name, one in found.items():
        cells = [f"{100 * one[pair]:.1f} %" for pair in MASSES]
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
    help="What is judged; all of them unless given.",
)
@click.option(
    "--network",
    default=MODEL,
    show_default=True,
    help="A checkpoint of matched, or the name of one that comes with the project.",
)
@click.option(
    "--noise-length",
    type=click.FloatRange(0, min_open=True),
    default=12_000.0,
    show_default=True,
    help="Noise of each detector, s.",
)
@click.option(
    "--signals",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Mergers of each pair of masses.",
)
@click.option(
    "--glitch-windows",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Noise windows with a glitch.",
)
def main(folder: Path, parts: tuple[str, ...], network: str, **sizes: Any) -> None:
    """Measure, write and print."""
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
            found = {name: shares(one, kind, rate) for name, one in results.items()}
            text += f"{title}, {rate_words(rate)}:\n\n{table(found, clusters)}\n"
            if rate == DRAWN_RATE:
                draw = comparison(
                    {
                        name: {pair: [share] for pair, share in one.items()}
                        for name, one in found.items()
                    },
                    f"share found at SNR {SNR:g} and {rate_words(rate)}",
                )
                path = folder / f"parts-{kind}.png"
                path.write_bytes(render(draw, LIGHT, (8.0, 4.2)))
    (folder / "parts.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
