"""Figures of a training's report, in a light and a dark theme."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from chirpwatch.efficiency import wilson_interval
from chirpwatch.train.data.signals.waveforms import chirp_mass

MIN_RATE = 1e-7
"""Lower end of the ROC's axis, false-positive rate a window."""

RESOLUTION = 144
"""Dots per inch; sharp on high-density screens."""

KINDS = {"gaussian": "Gaussian noise", "glitches": "10 % of windows with a glitch"}
"""Kinds of noise windows in a validation's results, with their names in figures."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; the same as those of the results page.

    Attributes:
        panel: Background.
        ink: Text.
        muted: Axes and ticks.
        grid: Grid lines.
        series: Up to four series: blue, orange, green and pink.
    """

    panel: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, str, str, str]


LIGHT = Theme(
    "#ffffff", "#131820", "#566070", "#e8ecf1",
    ("#0b66b5", "#a8500f", "#17733f", "#b4165c"),
)  # fmt: skip
DARK = Theme(
    "#141a22", "#e9edf3", "#9fabba", "#212935",
    ("#5eb0ff", "#f2a65a", "#5fd38d", "#ff7db3"),
)  # fmt: skip


def rate_words(rate: float | str) -> str:
    """Format a rate briefly, such as ``1e-4``."""
    digits, power = f"{float(rate):.0e}".split("e")
    return f"{digits}e{int(power)}"


Draw = Callable[[Figure, Theme], None]
"""Draws on an empty figure."""


def render(draw: Draw, theme: Theme, size: tuple[float, float]) -> bytes:
    """Render a figure as PNG.

    Args:
        draw: Draws the figure.
        theme: Colours.
        size: Width and height, inches.

    Returns:
        Content of the PNG file.
    """
    style: Any = {
        "figure.facecolor": theme.panel,
        "axes.facecolor": theme.panel,
        "savefig.facecolor": theme.panel,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.edgecolor": theme.muted,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "grid.color": theme.grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 8.5,
        "legend.framealpha": 0.85,
        "legend.facecolor": theme.panel,
        "legend.edgecolor": "none",
        "lines.linewidth": 1.6,
        "font.family": "DejaVu Sans",
    }
    with mpl.rc_context(style):
        # Without pyplot, which keeps every figure in memory and needs a display.
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return buffer.getvalue()


def training(log: Mapping[str, NDArray[Any]]) -> Draw:
    """Figure of loss, deployed validation, batch statistics and learning rate by step.

    Args:
        log: Columns of ``metrics.csv``, NaN where a step has no value, [rows].
    """

    def series(axes: Axes, name: str, label: str, **options: Any) -> bool:
        values = log.get(name)
        if values is None or not np.isfinite(values).any():
            return False
        logged = np.isfinite(values)
        axes.plot(log["step"][logged], values[logged], label=label, **options)
        return True

    def draw(figure: Figure, theme: Theme) -> None:
        blue, orange, green, _ = theme.series
        loss, deployed, shares, rate = figure.subplots(2, 2, sharex=True).flat
        series(loss, "loss", "training, logged batches", color=blue, alpha=0.6, lw=1)
        series(loss, "valid_loss", "validation", color=orange, marker="o", ms=3.5)
        loss.set(title="Loss", ylabel="binary cross-entropy, nat")
        label = "injections, FAR of one an hour"
        series(deployed, "valid_found_hour", label, color=blue, **DOTS)
        label = "injections, FAR of one a day"
        series(deployed, "valid_found_day", label, color=orange, **DOTS)
        label = "single windows, mean below FPR 1e-3"
        series(deployed, "valid_auroc", label, color=green, **DOTS)
        deployed.set(title="Validation as deployed", ylabel="efficiency", ylim=(0, 1))
        series(shares, "found", "signals above score 0", color=blue, lw=1)
        series(shares, "false", "noise above score 0", color=orange, lw=1)
        waiting = "time spent waiting for windows"
        series(shares, "loading_share", waiting, color=green, lw=1)
        shares.set(title="Training batches", ylabel="share", ylim=(0, 1))
        series(rate, "learning_rate", "learning rate", color=blue)
        rate.set(title="Learning rate", ylabel="learning rate")
        rate.ticklabel_format(axis="y", scilimits=(-2, 2))
        for axes in (loss, deployed, shares, rate):
            if axes.lines:
                axes.legend()
            else:
                _say(axes, "not logged", theme)
        for axes in (shares, rate):
            axes.set_xlabel("step")

    return draw


DOTS: dict[str, Any] = {"marker": "o", "ms": 3.5}


def _say(axes: Axes, words: str, theme: Theme) -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=theme.muted)


def roc(result: Mapping[str, Any]) -> Draw:
    """Figure of ROC curves by kind of noise and SNR, down to the lowest measured rate.

    Args:
        result: Results of ``validation.validate``.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        curves = result["roc"]
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
            rates = curves[kind]["rates"]
            by_snr = curves[kind]["found"].items()
            for colour, (snr, shares) in zip(theme.series, by_snr, strict=False):
                label = f"SNR {float(snr):g}"
                axes.plot(rates, shares, color=colour, label=label)
            if rates:
                axes.axvspan(MIN_RATE, min(rates), color=theme.grid, zorder=0)
            axes.plot([], [], color=theme.grid, lw=8, label="too little noise")
            limits = {"xlim": (MIN_RATE, 1), "ylim": (0, 1.01), "xscale": "log"}
            axes.set(title=KINDS[kind], xlabel="false-positive rate a window", **limits)
            axes.legend(loc="lower right")
        figure.axes[0].set_ylabel("efficiency")

    return draw


def _bars(
    axes: Axes, snrs: Sequence[float], shares: Sequence[float], n: int, **options: Any
) -> None:
    """Draw efficiencies from ``n`` mergers each, with 68 % Wilson intervals."""
    ends = np.array([wilson_interval(round(share * n), n) for share in shares])
    values = np.array(shares)
    errors = np.abs(np.stack([values - ends[:, 0], ends[:, 1] - values]))
    axes.errorbar(snrs, values, errors, capsize=2, ms=4, elinewidth=1, **options)


def efficiency(result: Mapping[str, Any], rate: str) -> Draw:
    """Figure of efficiency against SNR at one rate, with the matched-filter limits.

    Args:
        result: Results of ``validation.validate``.
        rate: False-positive rate, a key of the results.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        blue, orange, green, _ = theme.series
        optimal = result.get("optimal")
        grid = _grid(figure, result)
        for axes, pair in zip(grid.flat, _pairs(result), strict=False):
            for kind, style in (
                ("gaussian", {"color": blue, "marker": "o"}),
                ("glitches", {"color": orange, "marker": "s", "mfc": theme.panel}),
            ):
                snrs, shares = _curve(result, kind, pair, rate)
                if snrs:
                    words = f"network, {KINDS[kind]}"
                    n = result["signals"]
                    _bars(axes, snrs, shares, n, label=words, **style)
            if optimal and optimal.get("bank"):
                (limit,) = _of_pair(optimal["bank"], pair)
                axes.plot(
                    optimal["bank_snr"], limit["found"][rate], color=green, ls="--",
                    label="template bank",
                )  # fmt: skip
            if optimal:
                (limit,) = _of_pair(optimal["matched"], pair)
                axes.plot(
                    optimal["snr"], limit["found"][rate], color=theme.muted, lw=0.7,
                    label="matched filter, known masses",
                )  # fmt: skip
            axes.set(title=_words(pair), xlim=(3.5, 16.5), ylim=(0, 1.02))
        grid[0, 0].legend(loc="lower right")
        _label(grid, "network SNR", "efficiency")

    return draw


def efficiency_by_rate(result: Mapping[str, Any]) -> Draw:
    """Figure of efficiency against SNR in Gaussian noise at every rate.

    Args:
        result: Results of ``validation.validate``.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        optimal = result.get("optimal")
        rates = list(result["thresholds"]["gaussian"])
        grid = _grid(figure, result)
        for axes, pair in zip(grid.flat, _pairs(result), strict=False):
            for colour, rate in zip(theme.series, rates, strict=False):
                snrs, shares = _curve(result, "gaussian", pair, rate)
                _bars(
                    axes, snrs, shares, result["signals"], color=colour, marker="o",
                    label=f"network, {rate_words(rate)}",
                )  # fmt: skip
                if optimal and optimal.get("bank"):
                    (limit,) = _of_pair(optimal["bank"], pair)
                    axes.plot(
                        optimal["bank_snr"], limit["found"][rate], color=colour,
                        ls="--", lw=1,
                    )  # fmt: skip
            if optimal and optimal.get("bank"):
                label = "template bank, same rate"
                axes.plot([], [], color=theme.muted, ls="--", lw=1, label=label)
            axes.set(title=_words(pair), xlim=(3.5, 16.5), ylim=(0, 1.02))
        grid[0, 0].legend(loc="lower right")
        _label(grid, "network SNR", "efficiency")

    return draw


def _grid(figure: Figure, result: Mapping[str, Any]) -> NDArray[Any]:
    """Axes for each pair of masses, in a grid of two rows."""
    count = len(_pairs(result))
    grid: NDArray[Any] = figure.subplots(
        2, max(1, math.ceil(count / 2)), sharex=True, sharey=True, squeeze=False
    )
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return grid


def _label(grid: NDArray[Any], x: str, y: str) -> None:
    for axes in grid[-1]:
        axes.set_xlabel(x)
    for axes in grid[:, 0]:
        axes.set_ylabel(y)


def _words(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g} and {pair[1]:g} solar masses"


def _pairs(result: Mapping[str, Any]) -> list[tuple[float, float]]:
    entries = result["efficiency"]["gaussian"]
    return list(dict.fromkeys((entry["mass_1"], entry["mass_2"]) for entry in entries))


def _of_pair(
    entries: Sequence[Mapping[str, Any]], pair: tuple[float, float]
) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if (entry["mass_1"], entry["mass_2"]) == pair]


def _curve(
    result: Mapping[str, Any], kind: str, pair: tuple[float, float], rate: str
) -> tuple[list[float], list[float]]:
    """SNRs and efficiencies; both empty if there is too little noise for the rate."""
    entries = [
        entry
        for entry in _of_pair(result["efficiency"][kind], pair)
        if rate in entry["found"]
    ]
    shares = [entry["found"][rate] for entry in entries]
    return [entry["snr"] for entry in entries], shares


def scatter(result: Mapping[str, Any]) -> Draw:
    """Figure of score against SNR for single mergers, coloured by chirp mass.

    Args:
        result: Results of ``validation.validate``.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        columns = {name: np.array(values) for name, values in result["scatter"].items()}
        chirp = chirp_mass(columns["mass_1"], columns["mass_2"])
        axes = figure.subplots()
        points = axes.scatter(
            columns["snr"], columns["score"], c=chirp, s=9, cmap="viridis", lw=0,
            alpha=0.85, norm=LogNorm(),
        )  # fmt: skip
        bar = figure.colorbar(points, ax=axes, pad=0.01)
        bar.set_label("chirp mass, solar masses")
        ticks = [mass for mass in (7, 10, 15, 20, 30, 50) if mass < chirp.max()]
        bar.set_ticks(ticks, labels=[f"{mass}" for mass in ticks])
        bar.ax.minorticks_off()
        low, high = columns["snr"].min(), columns["snr"].max()
        for rate, limit in result["thresholds"]["gaussian"].items():
            axes.axhline(limit, color=theme.series[3], lw=1, ls="--")
            axes.annotate(
                rate_words(rate), (low, limit), color=theme.series[3], fontsize=8.5,
                va="center", xytext=(4, 0), textcoords="offset points",
                bbox={"facecolor": theme.panel, "lw": 0, "pad": 1},
            )  # fmt: skip
        axes.set(xscale="log", xlim=(low, high), xlabel="network SNR")
        axes.set_ylabel("score (logit); dashed: thresholds by false-positive rate")
        marks = [snr for snr in (4, 5, 6, 8, 10, 15, 20, 30, 40, 60) if snr <= high + 1]
        axes.set_xticks(marks, labels=[f"{snr}" for snr in marks])
        axes.minorticks_off()

    return draw


def calibration(result: Mapping[str, Any]) -> Draw:
    """Calibration figure: share of windows with a merger by the score's sigmoid.

    Args:
        result: Results of ``validation.validate``.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        bins = result["calibration"]["bins"]
        predicted = np.array([entry["predicted"] for entry in bins])
        share = np.array([entry["share"] for entry in bins])
        counts = np.array([entry["windows"] for entry in bins])
        ends = [
            wilson_interval(round(entry["share"] * entry["windows"]), entry["windows"])
            for entry in bins
        ]
        errors = np.abs(share - np.array(ends).T)
        axes, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
        )
        axes.plot([0, 1], [0, 1], color=theme.muted, ls=":", label="calibrated")
        axes.errorbar(
            predicted, share, errors, color=theme.series[0], marker="o", ms=4,
            capsize=2, label="network",
        )  # fmt: skip
        axes.set(ylabel="share with a merger", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="lower right")
        below.bar(predicted, counts, width=0.06, color=theme.series[0], alpha=0.75)
        below.set(yscale="log", ylabel="windows", xlabel="sigmoid of the score")
        below.yaxis.set_minor_formatter(NullFormatter())

    return draw


def comparison(
    shares: Mapping[str, Mapping[tuple[float, float], Sequence[float]]], words: str
) -> Draw:
    """Bar chart that compares networks, with a dot for each seed.

    Args:
        shares: For each network, and pair of masses, the efficiency of each seed.
        words: Label of the vertical axis.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        width = 0.8 / max(1, len(shares))
        pairs = list(next(iter(shares.values())))
        for number, (name, by_pair) in enumerate(shares.items()):
            # When colours repeat, markers and hatching distinguish the networks.
            turn, kind = divmod(number, len(theme.series))
            colour, marker = theme.series[kind], "osD"[turn % 3]
            bars: dict[str, Any] = {"color": colour, "alpha": 0.35}
            if turn:
                bars |= {"edgecolor": colour, "hatch": "///"}
            for index, pair in enumerate(pairs):
                x = index + (number - (len(shares) - 1) / 2) * width
                values = np.array(by_pair[pair])
                axes.bar(x, values.mean(), width * 0.9, **bars)
                spots = x + width * 0.12 * (np.arange(len(values)) - len(values) / 2)
                axes.plot(spots, values, marker, color=colour, ms=5)
            axes.plot([], [], marker, color=colour, label=name)
        axes.set_xticks(range(len(pairs)), [f"{a:g}, {b:g}" for a, b in pairs])
        axes.set(xlabel="solar masses", ylabel=words, ylim=(0, 1))
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))

    return draw
