"""Fitting factors of a template bank: measurement, table and figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binned_statistic_2d

from chirpwatch.atomic import replacing
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.signals.waveforms import chirp_mass
from chirpwatch.train.evaluation.figures import (
    LIGHT,
    Draw,
    Theme,
    render,
)
from chirpwatch.train.evaluation.tables import NOT_MEASURED
from chirpwatch.train.networks.bank import Bank
from chirpwatch.train.networks.placement import JUDGEMENT, draw_mergers
from chirpwatch.train.networks.templates import SIGNAL_LENGTH, Grid, best_matches

CHIRP_MASSES = (4.0, 6.0, 8.0, 10.0, 13.0, 18.0, 30.0, 60.0, 175.0)
"""Edges of the table's bins, solar masses."""

PERCENTILES = (10, 1)
CHUNK = 256
"""Signals matched at once."""

COLOUR_RANGE = (0.7, 1.0)
CELLS = 26
"""Bins of the mass plane along each axis."""

SIZE = (9.0, 4.0)
"""Width and height of the figure, inches."""


@dataclass(frozen=True)
class FittingFactors:
    """Fitting factors of a bank for signals that its templates were not chosen from.

    Attributes:
        masses: Heavier and lighter mass of each signal, detector frame, solar masses,
            [n, 2].
        fitting: Bank's fitting factor for each signal, see
            ``templates.best_matches``, [n].
        own: Match with a template of the signal's own masses and spins, truncated
            like those of the bank, [n].
    """

    masses: NDArray[Any]
    fitting: NDArray[Any]
    own: NDArray[Any]


def measure(bank: Bank, geometry: Geometry, signals: int) -> FittingFactors:
    """Measure a bank's fitting factors on an independent draw from its population.

    Args:
        bank: Bank to measure.
        geometry: Sample rate and highpass.
        signals: Number of signals to draw.
    """
    settings = bank.settings
    masses, spins = draw_mergers(signals, settings, JUDGEMENT)
    grid = Grid(settings, geometry)
    spectra = grid.transform(grid.signals(masses, spins, SIGNAL_LENGTH))
    own = grid.transform(grid.templates(masses, spins))
    matches = [
        grid.match(*pair).amax(0)
        for pair in zip(spectra.split(CHUNK), own.split(CHUNK), strict=True)
    ]
    return FittingFactors(
        masses, best_matches(grid, spectra, bank).mean(0), torch.cat(matches).numpy()
    )


def write_bank(
    path: Path, bank: Bank, geometry: Geometry, signals: int, command: str
) -> None:
    """Write a bank as JSON, with a report of its fitting factors beside it.

    The report has the suffix ``.md``, its figure ``.png``.

    Args:
        path: JSON file to write.
        bank: Bank to write.
        geometry: Sample rate and highpass.
        signals: Number of signals to measure fitting factors with.
        command: Command that made the bank, for the report.
    """
    factors = measure(bank, geometry, signals)
    figure = path.with_suffix(".png")
    text = report(bank, factors, geometry, command, figure.name)
    with replacing(figure) as temporary:
        temporary.write_bytes(render(planes(bank, factors), LIGHT, SIZE))
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    with replacing(path) as temporary:
        temporary.write_text(bank.to_json() + "\n")


def report(
    bank: Bank, factors: FittingFactors, geometry: Geometry, command: str, figure: str
) -> str:
    """Report on a bank's settings and fitting factors, Markdown.

    Args:
        bank: Bank to report on.
        factors: Its fitting factors.
        geometry: Sample rate and highpass.
        command: Command that made the bank.
        figure: Path of the figure, relative to the report.
    """
    settings = bank.settings
    rate = Grid(settings, geometry).rate
    return (
        f"# Template bank {bank.digest}\n\n"
        f"```\n{command}\n```\n\n"
        f"The bank has {settings.templates} templates. They were chosen from "
        f"{settings.candidates} mergers, one by one, to maximise the mean of the best "
        f"match to the power of {settings.emphasis:g}. Component masses are from "
        f"{settings.min_mass:g} to {settings.max_mass:g} solar masses (detector "
        f"frame), log-uniform for {100 * settings.logarithmic_share:.0f} % of the "
        "mergers and uniform for the others. Spins are isotropic up to "
        f"{settings.max_spin:g}. The waveform model is IMRPhenomD. A template covers "
        f"{settings.before_length:g} s before its merger and "
        f"{settings.after_length:g} s after it, from {geometry.highpass:g} to "
        f"{settings.max_frequency:g} Hz. It is whitened by the mean inverse PSD of H1 "
        f"and L1 in {' and '.join(settings.runs)}.\n\n"
        "The fitting factor is the share of a signal's SNR above "
        f"{geometry.highpass:g} Hz that the best template recovers, averaged over "
        "the merger's position between two filter outputs "
        f"({rate:g} outputs per second). It was measured "
        f"with {len(factors.masses)} complete signals that the templates were not "
        "chosen from. *Own template* is the match with a template of the signal's own "
        "masses and spins, truncated like those of the bank. It loses SNR by the "
        "truncation only; more templates could recover what the bank loses beyond it. "
        "Where the truncation costs much SNR, a template of other masses can match "
        "better than the signal's own.\n\n"
        f"{table(bank, factors)}\n"
        f"![Fitting factor by component masses]({figure})\n"
    )


def table(bank: Bank, factors: FittingFactors) -> str:
    """Fitting factors by chirp mass as a Markdown table."""
    signals, templates = (chirp_mass(*mergers.masses.T) for mergers in (factors, bank))
    all_masses = (0.0, float("inf"))
    bins = list(pairwise(CHIRP_MASSES))
    names = ["mean", *(f"{_ordinal(rank)} percentile" for rank in PERCENTILES)]
    heads = [
        "Chirp mass, solar masses",
        "signals",
        "templates",
        f"fitting factor: {names[0]}",
        *names[1:],
        f"own template: {names[0]}",
        *names[1:],
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for low, high in [all_masses, *bins]:
        inside = (signals >= low) & (signals < high)
        cells = [
            "all" if (low, high) == all_masses else f"{low:g} to {high:g}",
            str(inside.sum()),
            str(((templates >= low) & (templates < high)).sum()),
            *_cells(factors.fitting[inside]),
            *_cells(factors.own[inside]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _ordinal(rank: int) -> str:
    return f"{rank}{'st' if rank == 1 else 'th'}"


def _cells(matches: NDArray[Any]) -> Sequence[str]:
    """Mean and percentiles; a percentile needs at least one signal below it."""
    values = [matches.mean() if len(matches) else None]
    values += [
        np.percentile(matches, rank) if len(matches) * rank >= 100 else None
        for rank in PERCENTILES
    ]
    return [NOT_MEASURED if value is None else f"{value:.3f}" for value in values]


def planes(bank: Bank, factors: FittingFactors) -> Draw:
    """Figure of the fitting factor in the mass plane: bank and own templates."""
    low, high = bank.settings.min_mass, bank.settings.max_mass
    edges = np.geomspace(low, high, CELLS + 1)

    def draw(figure: Figure, theme: Theme) -> None:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, title, values in (
            (left, "Fitting factor of the bank", factors.fitting),
            (right, "Own template, truncated", factors.own),
        ):
            mean, *_ = binned_statistic_2d(*factors.masses.T, values, bins=edges)
            cells = axes.pcolormesh(
                edges, edges, mean.T, cmap="cividis",
                vmin=COLOUR_RANGE[0], vmax=COLOUR_RANGE[1],
            )  # fmt: skip
            axes.set(title=title, xlabel="heavier mass, solar masses")
            axes.set(xscale="log", yscale="log")
            axes.grid(visible=False)
            _mass_ticks(axes, low, high)
        left.plot(
            *bank.masses.T, "o", ms=2.5, mfc="none", mec=theme.series[3], mew=0.7,
            label="templates",
        )  # fmt: skip
        left.legend(loc="upper left")
        left.set_ylabel("lighter mass, solar masses")
        bar = figure.colorbar(cells, ax=[left, right], pad=0.01, extend="min")
        bar.set_label("share of the SNR, mean over the bin's signals")

    return draw


def _mass_ticks(axes: Axes, low: float, high: float) -> None:
    ticks = [mass for mass in (5, 10, 20, 50, 100, 200) if low <= mass <= high]
    axes.set_xticks(ticks, labels=[f"{mass}" for mass in ticks])
    axes.set_yticks(ticks, labels=[f"{mass}" for mass in ticks])
    axes.minorticks_off()
