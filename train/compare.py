"""Networks side by side: what they find, and what they cost."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from chirpwatch.atomic import replacing
from chirpwatch.errors import ConfigurationError
from train.baseline import SeedResNet
from train.checkpoint import load_checkpoint
from train.figures import LIGHT, comparison, rate_words, render
from train.models import MODELS, Scorer
from train.report import FIGURES, read_figures
from train.validate import MASSES, TABLE_RATES

NETWORK = "network.ckpt"
SNR = 8.0
KIND = "gaussian"
COST_LENGTH = 16
"""Strain that the cost of a window is measured on, s."""

REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """What a score costs in a running search, one every 1/8 s.

    Attributes:
        mflop: Multiplications and additions.
        microseconds: Of one core of this machine, in fp32 PyTorch.
    """

    mflop: float
    microseconds: float


@dataclass
class Group:
    """Trainings of one network with several seeds.

    Attributes:
        parameters: Numbers that were learned.
        cost: Of a window.
        cpu_times: CPU time of each training, s; wall time times cores is not the same.
        shares: Share found by rate and masses, one for each seed.
    """

    parameters: int
    cost: Cost
    cpu_times: list[float] = field(default_factory=list)
    shares: dict[tuple[float, tuple[float, float]], list[float]] = field(
        default_factory=dict
    )


def window_cost(network: Scorer) -> Cost:
    """Measure what a window costs.

    Args:
        network: Run once over :data:`COST_LENGTH` of strain if it can, on each window
            by itself if not.
    """
    fused, geometry = network.fused(), network.geometry
    size, step = geometry.kernel_size, geometry.stride_size
    strain = torch.randn(1, len(geometry.ifos), COST_LENGTH * geometry.sample_rate)
    if isinstance(network, SeedResNet):
        strain = strain[0].unfold(-1, size, step).transpose(0, 1).contiguous()
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            windows = fused(strain).numel()
        lengths = []
        for _ in range(REPEATS):
            begin = time.process_time()
            fused(strain)
            lengths.append(time.process_time() - begin)
    return Cost(
        counter.get_total_flops() / windows / 1e6,
        1e6 * statistics.median(lengths) / windows,
    )


def gather(folders: Sequence[Path]) -> dict[str, Group]:
    """Put trainings of the same network together.

    Args:
        folders: Of trainings, with ``network.ckpt`` and ``validation.json``.

    Returns:
        Groups by the network's name and, where it is needed, its hyper-parameters.

    Raises:
        ConfigurationError: A folder has no figures, or not those at SNR 8.
        ModelError: A folder has no network.
    """
    loaded = []
    for folder in folders:
        network, details = load_checkpoint(folder / NETWORK)
        result = read_figures(folder / FIGURES)
        if result is None:
            raise ConfigurationError(
                f"{folder}: expected {FIGURES} of 'chirpwatch train validate', found "
                "none"
            )
        kind = next(name for name, one in MODELS.items() if type(network) is one)
        key = json.dumps(network.hyperparameters, sort_keys=True)
        loaded.append((folder, network, details, result, kind, key))
    keys = {kind: {one[5] for one in loaded if one[4] == kind} for kind in MODELS}
    groups: dict[str, Group] = {}
    for folder, network, details, result, kind, key in loaded:
        name = kind if len(keys[kind]) == 1 else f"{kind} {key}"
        if name not in groups:
            learned = sum(weight.numel() for weight in network.parameters())
            groups[name] = Group(learned, window_cost(network))
        _add(groups[name], folder, details, result)
    return groups


def _add(
    group: Group, folder: Path, details: dict[str, Any], result: dict[str, Any]
) -> None:
    if "cpu_time_length" in details:
        group.cpu_times.append(details["cpu_time_length"])
    for pair in MASSES:
        for rate in TABLE_RATES:
            found = [
                entry["found"][str(rate)]
                for entry in result["found"][KIND]
                if (entry["mass_1"], entry["mass_2"]) == pair
                and entry["snr"] == SNR
                and str(rate) in entry["found"]
            ]
            if not found:
                raise ConfigurationError(
                    f"{folder / FIGURES}: expected the share of {pair} found at SNR "
                    f"{SNR:g} and {rate_words(rate)}, found none; validate with more "
                    "noise"
                )
            group.shares.setdefault((rate, pair), []).append(found[0])


def comparison_table(groups: dict[str, Group]) -> str:
    """Lay groups out as Markdown: mean and standard deviation over the seeds."""
    heads = [
        f"{pair[0]:g}, {pair[1]:g} at {rate_words(rate)}"
        for rate in TABLE_RATES
        for pair in MASSES
    ]
    lines = [
        "| Network | seeds | parameters | MFLOP a window | µs a window | training, CPU "
        "minutes | " + " | ".join(heads) + " |",
        "|---|" + "---|" * (5 + len(heads)),
    ]
    for name, group in groups.items():
        shares = [
            _spread([100 * share for share in group.shares[rate, pair]], 1)
            for rate in TABLE_RATES
            for pair in MASSES
        ]
        seeds = len(next(iter(group.shares.values())))
        minutes = _spread([length / 60 for length in group.cpu_times], 0)
        lines.append(
            f"| {name} | {seeds} | {group.parameters:,} | {group.cost.mflop:.3g} | "
            f"{group.cost.microseconds:.3g} | {minutes} | " + " | ".join(shares) + " |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "n/a"
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def write_comparison(folders: Sequence[Path], path: Path) -> None:
    """Write the table of trained networks, and a figure beside it.

    Args:
        folders: Of trainings, see :func:`gather`.
        path: The Markdown file; the figure has the suffix ``.png``.
    """
    groups, rate = gather(folders), TABLE_RATES[-1]
    text = (
        f"Per cent of simulated mergers found in single windows at SNR {SNR:g}, by "
        "masses (solar masses, detector frame) and false-positive rate a window, in "
        "simulated Gaussian noise: mean and standard deviation over the seeds. The "
        "cost of a window is that in a running search, one every 1/8 s, of one core "
        "in fp32 PyTorch.\n\n" + comparison_table(groups)
    )
    draw = comparison(
        {
            name: {pair: group.shares[rate, pair] for pair in MASSES}
            for name, group in groups.items()
        },
        f"share found at SNR {SNR:g} and {rate_words(rate)}",
    )
    with replacing(path) as temporary:
        temporary.write_text(text)
    with replacing(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(render(draw, LIGHT, (8.0, 4.2)))
