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
from chirpwatch.train.evaluation.figures import (
    LIGHT,
    comparison,
    rate_words,
    render,
)
from chirpwatch.train.evaluation.report import (
    FIGURES,
    NETWORK,
    check_weights,
    read_figures,
)
from chirpwatch.train.evaluation.tables import NOT_MEASURED, TABLE_RATES
from chirpwatch.train.evaluation.thresholds import MASSES
from chirpwatch.train.networks.baseline import SeedResNet
from chirpwatch.train.networks.checkpoint import load_checkpoint
from chirpwatch.train.networks.models import (
    MODELS,
    Scorer,
    model_name,
)

SNR = 8.0
CLEAN, GLITCHES = "gaussian", "glitches"
ALIKE = ("seed", "run", "quick")
"""What validations must have in common: they draw the same noise then."""

SHARES = ("found", "found_low", "found_high")
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


@dataclass(frozen=True)
class Found:
    """Shares of mergers that one network finds.

    Attributes:
        share: At the threshold.
        low, high: At the thresholds if √n fewer or more of the n clusters of noise
            windows above it had been found.
    """

    share: float
    low: float
    high: float


@dataclass
class Group:
    """Trainings of one network with several seeds.

    Attributes:
        parameters: Numbers that were learned.
        cost: Of a window.
        cpu_times: CPU time of each training, s; wall time times cores is not the same.
        shares: Shares found by kind of noise, rate and masses, one for each seed; with
            glitches, none for a seed whose noise did not suffice.
    """

    parameters: int
    cost: Cost
    cpu_times: list[float] = field(default_factory=list)
    shares: dict[tuple[str, float, tuple[float, float]], list[Found]] = field(
        default_factory=dict
    )


def window_cost(network: Scorer) -> Cost:
    """Measure what a window costs.

    Args:
        network: Run once over ``COST_LENGTH`` of strain if it can, on each window
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
        ConfigurationError: A folder has no figures, not those at SNR 8, or those of
            other weights; or two were validated otherwise.
        ModelError: A folder has no network.
    """
    loaded: list[tuple[Path, Scorer, dict[str, Any], dict[str, Any], str, str]] = []
    for folder in folders:
        network, details = load_checkpoint(folder / NETWORK)
        result = read_figures(folder / FIGURES)
        if result is None:
            raise ConfigurationError(
                f"{folder}: expected {FIGURES} of 'chirpwatch train validate', found "
                "none"
            )
        check_weights(folder, network, result)
        _check_alike(folder, result, folders[0], loaded[0][3] if loaded else result)
        kind = model_name(network)
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


def _check_alike(
    folder: Path, result: dict[str, Any], first: Path, reference: dict[str, Any]
) -> None:
    for name in ALIKE:
        if name not in result:
            raise ConfigurationError(
                f"{folder / FIGURES}: expected its {name!r}, found none; validate "
                "again with 'chirpwatch train validate'"
            )
        if result[name] != reference[name]:
            raise ConfigurationError(
                f"{folder / FIGURES}: expected {name} = {reference[name]} as in "
                f"{first}, found {result[name]}; validate both alike"
            )


def _add(
    group: Group, folder: Path, details: dict[str, Any], result: dict[str, Any]
) -> None:
    if "cpu_time_length" in details:
        group.cpu_times.append(details["cpu_time_length"])
    for kind in (CLEAN, GLITCHES):
        for rate in TABLE_RATES:
            for pair in MASSES:
                found = [
                    Found(*(entry[name][str(rate)] for name in SHARES))
                    for entry in result["found"][kind]
                    if (entry["mass_1"], entry["mass_2"]) == pair
                    and entry["snr"] == SNR
                    and all(str(rate) in entry.get(name, {}) for name in SHARES)
                ]
                if not found and kind == CLEAN:
                    raise ConfigurationError(
                        f"{folder / FIGURES}: expected the share of {pair} found at "
                        f"SNR {SNR:g} and {rate_words(rate)}, found none; validate "
                        "with more noise"
                    )
                group.shares.setdefault((kind, rate, pair), []).extend(found)


def comparison_table(groups: dict[str, Group]) -> str:
    """Lay out what the networks are and cost as Markdown."""
    lines = [
        "| Network | seeds | parameters | MFLOP a window | µs a window | training, CPU "
        "minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        seeds = len(group.shares[CLEAN, TABLE_RATES[0], MASSES[0]])
        minutes = _spread([length / 60 for length in group.cpu_times], 0)
        lines.append(
            f"| {name} | {seeds} | {group.parameters:,} | {group.cost.mflop:.3g} | "
            f"{group.cost.microseconds:.3g} | {minutes} |"
        )
    return "\n".join(lines) + "\n"


def shares_table(groups: dict[str, Group], kind: str) -> str:
    """Lay out as Markdown what the networks find in one kind of noise.

    Args:
        groups: From ``gather``.
        kind: A key of ``figures.KINDS``.

    Returns:
        Mean and standard deviation over the seeds, and in brackets the means at the
        thresholds of fewer and of more clusters, see ``Found``.
    """
    columns = [(rate, pair) for rate in TABLE_RATES for pair in MASSES]
    heads = [f"{a:g}, {b:g} at {rate_words(rate)}" for rate, (a, b) in columns]
    lines = [
        "| Network | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
    ]
    for name, group in groups.items():
        seeds = len(group.shares[CLEAN, TABLE_RATES[0], MASSES[0]])
        cells = [_cell(group.shares[kind, rate, pair], seeds) for rate, pair in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[Found], seeds: int) -> str:
    if len(found) < seeds:
        return NOT_MEASURED
    low, high = (
        statistics.mean(100 * getattr(one, end) for one in found)
        for end in ("low", "high")
    )
    spread = _spread([100 * one.share for one in found], 1)
    return f"{spread} ({low:.1f} to {high:.1f})"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return NOT_MEASURED
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def write_comparison(folders: Sequence[Path], path: Path) -> None:
    """Write the table of trained networks, and a figure beside it.

    Args:
        folders: Of trainings, see ``gather``.
        path: The Markdown file; the figure has the suffix ``.png``.
    """
    groups, rate = gather(folders), TABLE_RATES[-1]
    text = (
        "The cost of a window is that in a running search, one every 1/8 s, of one "
        f"core in fp32 PyTorch.\n\n{comparison_table(groups)}\n"
        f"Per cent of simulated mergers found in single windows at SNR {SNR:g}, by "
        "masses (solar masses, detector frame) and false-positive rate a window, in "
        "simulated Gaussian noise: mean ± standard deviation over the seeds. In "
        "brackets, the same at the thresholds if √n fewer or more of the n clusters "
        "of noise windows above them had been found: of this error, seeds that were "
        f"validated alike share a part.\n\n{shares_table(groups, CLEAN)}\n"
        "The same where 10 % of the windows, with and without a merger, have a "
        f"simulated glitch:\n\n{shares_table(groups, GLITCHES)}"
    )
    draw = comparison(
        {
            name: {
                pair: [one.share for one in group.shares[CLEAN, rate, pair]]
                for pair in MASSES
            }
            for name, group in groups.items()
        },
        f"share found at SNR {SNR:g} and {rate_words(rate)}",
    )
    with replacing(path) as temporary:
        temporary.write_text(text)
    with replacing(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(render(draw, LIGHT, (8.0, 4.2)))
