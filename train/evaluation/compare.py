"""Comparison of trained networks: efficiency and cost."""

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
    NETWORK,
    RESULTS,
    check_weights,
    read_results,
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
"""Network SNR at which networks are compared."""

CLEAN, GLITCHES = "gaussian", "glitches"
SAME_KEYS = ("seed", "run", "quick")
"""Validations with the same values draw the same noise, and can be compared."""

SHARES = ("found", "found_low", "found_high")
COST_LENGTH = 16
"""Strain on which the cost of a window is measured, s."""

REPEATS = 5
"""Timed repetitions; the median counts."""


@dataclass(frozen=True)
class Cost:
    """Cost of one score in a continuous search, at one score every 1/8 s.

    Attributes:
        mflop: Multiplications and additions, in millions.
        microseconds: CPU time on this machine with PyTorch in single precision, µs.
    """

    mflop: float
    microseconds: float


@dataclass(frozen=True)
class Efficiency:
    """Efficiency of one network, with the error of its threshold.

    Attributes:
        share: Efficiency at the threshold.
        low, high: Efficiency at thresholds with n - √n and n + √n clusters of noise
            windows above them, in place of n.
    """

    share: float
    low: float
    high: float


@dataclass
class Group:
    """Trainings of the same network with several seeds.

    Attributes:
        parameters: Number of trainable parameters.
        cost: Cost of a window.
        cpu_times: CPU time of each training, s.
        shares: Efficiencies by kind of noise, rate and masses, one for each seed. A
            seed with too little noise with glitches has none there.
    """

    parameters: int
    cost: Cost
    cpu_times: list[float] = field(default_factory=list)
    shares: dict[tuple[str, float, tuple[float, float]], list[Efficiency]] = field(
        default_factory=dict
    )


def window_cost(network: Scorer) -> Cost:
    """Measure the cost of a window on random strain of ``COST_LENGTH``.

    Args:
        network: Network to measure. It runs over the continuous strain, or on single
            windows if it can't do so.
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
            start = time.process_time()
            fused(strain)
            lengths.append(time.process_time() - start)
    return Cost(
        counter.get_total_flops() / windows / 1e6,
        1e6 * statistics.median(lengths) / windows,
    )


def gather(folders: Sequence[Path]) -> dict[str, Group]:
    """Group trainings by network.

    Args:
        folders: Folders of trainings, with ``network.ckpt`` and ``validation.json``.

    Returns:
        Groups by the network's name, with its hyper-parameters if trainings with other
        ones are compared as well.

    Raises:
        ConfigurationError: A folder has no results, no efficiency at SNR 8, or results
            for other weights; or the validations differ in seed, run or effort.
        ModelError: A folder has no network.
    """
    loaded: list[tuple[Path, Scorer, dict[str, Any], dict[str, Any], str, str]] = []
    for folder in folders:
        network, details = load_checkpoint(folder / NETWORK)
        result = read_results(folder / RESULTS)
        if result is None:
            raise ConfigurationError(
                f"{folder}: expected {RESULTS}, found none; validate with "
                "'chirpwatch train validate'"
            )
        check_weights(folder, network, result)
        _check_same(folder, result, folders[0], loaded[0][3] if loaded else result)
        kind = model_name(network)
        key = json.dumps(network.hyperparameters, sort_keys=True)
        loaded.append((folder, network, details, result, kind, key))
    keys: dict[str, set[str]] = {kind: set() for kind in MODELS}
    for *_, kind, key in loaded:
        keys[kind].add(key)
    groups: dict[str, Group] = {}
    for folder, network, details, result, kind, key in loaded:
        name = kind if len(keys[kind]) == 1 else f"{kind} {key}"
        if name not in groups:
            parameters = sum(weight.numel() for weight in network.parameters())
            groups[name] = Group(parameters, window_cost(network))
        _add(groups[name], folder, details, result)
    return groups


def _check_same(
    folder: Path, result: dict[str, Any], first: Path, reference: dict[str, Any]
) -> None:
    """Check that two validations drew the same noise."""
    for name in SAME_KEYS:
        if name not in result:
            raise ConfigurationError(
                f"{folder / RESULTS}: expected the key {name!r}, found none; validate "
                "again with 'chirpwatch train validate'"
            )
        if result[name] != reference[name]:
            raise ConfigurationError(
                f"{folder / RESULTS}: expected {name} = {reference[name]} as in "
                f"{first}, found {result[name]}; validate both with the same options"
            )


def _add(
    group: Group, folder: Path, details: dict[str, Any], result: dict[str, Any]
) -> None:
    """Add a training's CPU time and efficiencies to its group."""
    if "cpu_time_length" in details:
        group.cpu_times.append(details["cpu_time_length"])
    for kind in (CLEAN, GLITCHES):
        for rate in TABLE_RATES:
            for pair in MASSES:
                efficiencies = [
                    Efficiency(*(entry[name][str(rate)] for name in SHARES))
                    for entry in result["found"][kind]
                    if (entry["mass_1"], entry["mass_2"]) == pair
                    and entry["snr"] == SNR
                    and all(str(rate) in entry.get(name, {}) for name in SHARES)
                ]
                if not efficiencies and kind == CLEAN:
                    raise ConfigurationError(
                        f"{folder / RESULTS}: expected the efficiency for the masses "
                        f"{pair} at SNR {SNR:g} and {rate_words(rate)}, found none; "
                        "validate with more noise"
                    )
                group.shares.setdefault((kind, rate, pair), []).extend(efficiencies)


def comparison_table(groups: dict[str, Group]) -> str:
    """Markdown table of the networks' seeds, sizes and costs."""
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
    """Markdown table of the networks' efficiencies in one kind of noise.

    Args:
        groups: From ``gather``.
        kind: Kind of noise, a key of ``figures.KINDS``.

    Returns:
        Table with the mean and standard deviation over the seeds, per cent, and in
        brackets the means of ``Efficiency.low`` and ``Efficiency.high``.
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


def _cell(efficiencies: Sequence[Efficiency], seeds: int) -> str:
    """Cell of the table; not measured unless all seeds have a value."""
    if len(efficiencies) < seeds:
        return NOT_MEASURED
    low, high = (
        statistics.mean(100 * getattr(efficiency, end) for efficiency in efficiencies)
        for end in ("low", "high")
    )
    spread = _spread([100 * efficiency.share for efficiency in efficiencies], 1)
    return f"{spread} ({low:.1f} to {high:.1f})"


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation."""
    if not values:
        return NOT_MEASURED
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def write_comparison(folders: Sequence[Path], path: Path) -> None:
    """Write a comparison of trained networks as Markdown, with a figure beside it.

    Args:
        folders: Folders of trainings, see ``gather``.
        path: Markdown file; the figure has the suffix ``.png``.

    Raises:
        ConfigurationError, ModelError: See ``gather``.
    """
    groups, rate = gather(folders), TABLE_RATES[-1]
    text = (
        "The cost of a window is that of one score in a continuous search, at one "
        "score every 1/8 s, on one core with PyTorch in single precision.\n\n"
        f"{comparison_table(groups)}\n"
        f"Efficiency in per cent for simulated mergers in single windows at SNR "
        f"{SNR:g} in simulated Gaussian noise, by masses (solar masses, detector "
        "frame) and false-positive rate a window: mean ± standard deviation over the "
        "seeds. In brackets: the mean at thresholds with n - √n and n + √n clusters "
        "of noise windows above them, in place of n. Validations with the same noise "
        f"share a part of this error.\n\n{shares_table(groups, CLEAN)}\n"
        "The same, where 10 % of the windows, with and without a merger, have a "
        f"simulated glitch:\n\n{shares_table(groups, GLITCHES)}"
    )
    draw = comparison(
        {
            name: {
                pair: [
                    efficiency.share for efficiency in group.shares[CLEAN, rate, pair]
                ]
                for pair in MASSES
            }
            for name, group in groups.items()
        },
        f"efficiency at SNR {SNR:g} and {rate_words(rate)}",
    )
    with replacing(path) as temporary:
        temporary.write_text(text)
    with replacing(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(render(draw, LIGHT, (8.0, 4.2)))
