"""The report of a training: figures as PNG, and one page that opens from disk."""

import base64
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from chirpwatch.atomic import replacing
from chirpwatch.efficiency import wilson_interval
from chirpwatch.errors import ConfigurationError
from chirpwatch.train.evaluation import figures
from chirpwatch.train.evaluation.deployment import MIN_EVENTS
from chirpwatch.train.evaluation.figures import (
    DARK,
    KINDS,
    LIGHT,
    Draw,
    rate_words,
    render,
)
from chirpwatch.train.evaluation.tables import NOT_MEASURED, TABLE_RATES
from chirpwatch.train.evaluation.validation import weights_hash
from chirpwatch.train.networks.checkpoint import load_checkpoint
from chirpwatch.train.networks.models import Scorer

LOG, FIGURES, CONFIG = "metrics.csv", "validation.json", "config.yaml"
NETWORK = "network.ckpt"
PAGE, FOLDER = "report.html", "report"
WIDE, NARROW = (10.5, 4.2), (6.0, 4.4)
SQUARE = (10.5, 7.0)
SUMMARY_SNR = 8.0

ENVIRONMENT = Environment(
    loader=PackageLoader("chirpwatch.train"),
    autoescape=True,
    undefined=StrictUndefined,
)
"""What finds and fills the report's page."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Of its file, without suffix.
        title: Heading.
        caption: What it shows, its units and limits.
        alt: What someone who cannot see it is told.
        draw: What draws it; None where a part is missing.
        size: Width and height, inches.
        missing: What to say in place of a figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Draw | None
    size: tuple[float, float]
    missing: str = ""


def write_run_report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``report/*.png`` into the folder of a training.

    Args:
        folder: With ``metrics.csv``, ``validation.json``, ``config.yaml`` and
            ``network.ckpt``; a part that is missing is left out of the page, which
            says so.

    Returns:
        The page.

    Raises:
        ConfigurationError: There is no such folder, a part of it is malformed, or the
            figures are of other weights.
        ModelError: The network is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: expected the folder of a training ('chirpwatch train fit'), "
            "found none"
        )
    log, result = read_log(folder / LOG), read_figures(folder / FIGURES)
    details: Mapping[str, Any] | None = None
    if (folder / NETWORK).exists():
        network, details = load_checkpoint(folder / NETWORK)
        if result and "weights" in result:
            check_weights(folder, network, result)
    if result:
        details = result.get("checkpoint", details)
    try:
        origin = _origin(details, result)
        pictures = _pictures(log, result, origin)
        images = {
            picture.name: [
                render(picture.draw, theme, picture.size) for theme in (LIGHT, DARK)
            ]
            for picture in pictures
            if picture.draw
        }
        page = _page(folder, pictures, images, log, result, origin)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{folder / FIGURES}: expected figures of 'chirpwatch train validate', "
            f"found others: {type(error).__name__}: {error}"
        ) from error
    for name, (light, _) in images.items():
        with replacing(folder / FOLDER / f"{name}.png") as temporary:
            temporary.write_bytes(light)
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page)
    return folder / PAGE


def read_log(path: Path) -> dict[str, NDArray[Any]] | None:
    """Read a training's log.

    Returns:
        Columns, float64, [rows], NaN where a cell is empty; None without a file.

    Raises:
        ConfigurationError: There is no column ``step``, or a cell is no number.
    """
    if not path.exists():
        return None
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or []), list(reader)
    if "step" not in names:
        raise ConfigurationError(
            f"{path}: expected a column 'step', found {', '.join(names) or 'none'}"
        )
    columns = {name: np.full(len(rows), np.nan) for name in names}
    for number, row in enumerate(rows):
        for name in names:
            cell = row[name]
            try:
                columns[name][number] = float(cell) if cell else np.nan
            except ValueError:
                raise ConfigurationError(
                    f"{path}, line {number + 2}: expected a number for {name}, found "
                    f"{cell!r}"
                ) from None
    return columns


def read_figures(path: Path) -> dict[str, Any] | None:
    """Read what ``validate.validate`` measured; None without a file.

    Raises:
        ConfigurationError: No JSON, or not those figures.
    """
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{path}: expected JSON: {error}") from None
    wanted = {"found", "thresholds", "signals", "noise_windows"}
    if not isinstance(result, dict) or not wanted <= set(result):
        found = sorted(result) if isinstance(result, dict) else type(result).__name__
        raise ConfigurationError(
            f"{path}: expected figures of 'chirpwatch train validate' "
            f"({', '.join(sorted(wanted))}), found {found}"
        )
    return result


def check_weights(folder: Path, network: Scorer, result: Mapping[str, Any]) -> None:
    """Refuse figures of other weights than those that lie beside them.

    Args:
        folder: Of both, for the message.
        network: Of ``network.ckpt``.
        result: From ``read_figures``.

    Raises:
        ConfigurationError: They are, or they do not say what they are of.
    """
    found, wanted = result.get("weights"), weights_hash(network)
    if found != wanted:
        raise ConfigurationError(
            f"{folder / FIGURES}: expected figures of the weights {wanted[:12]}… of "
            f"{NETWORK}, found those of {found[:12] + '…' if found else 'unknown ones'}"
            "; validate again with 'chirpwatch train validate'"
        )


@dataclass(frozen=True)
class Origin:
    """What of a page detectors recorded; mergers are always simulated.

    Attributes:
        training: Whether the training's noise was simulated; None if not known.
        recorded: Strain and glitches of the validation that were not.
    """

    training: bool | None
    recorded: list[str]

    @property
    def simulated(self) -> bool:
        """Whether all of it is known to be simulated."""
        return self.training is True and not self.recorded

    def words(self) -> str:
        """Say so in a sentence."""
        if self.simulated:
            return "All noise, glitches and mergers of this page are simulated."
        training = {
            True: ["the noise of the training is simulated"],
            False: ["the noise of the training was recorded by detectors"],
            None: [],
        }[self.training]
        other = [f"recorded: {', '.join(self.recorded)}"] if self.recorded else []
        return "; ".join(["Mergers are simulated", *training, *other]) + "."


def _origin(
    details: Mapping[str, Any] | None, result: Mapping[str, Any] | None
) -> Origin:
    """What was recorded, as the checkpoint and the figures say."""
    training = None if details is None else details.get("simulated")
    recorded = [
        f"{' and '.join(noise['recorded'])} of the validation in {noise['name']}"
        for noise in (result or {}).get("noises", [])
        if noise["recorded"]
    ]
    return Origin(training, recorded)


def _training_caption(training: bool | None) -> str:
    noise = {
        True: "simulated noise",
        False: "strain that detectors recorded, with simulated mergers and glitches",
        None: "noise of a kind that no checkpoint here tells",
    }[training]
    return (
        "Loss of single batches of windows, and of the validation's windows, both of "
        f"{noise}. As deployed: injections found in whole stretches of the same kind, "
        "by events of 8 s, at false-alarm rates measured on timeslides; a point is "
        "missing where the background is too short for it."
    )


def _pictures(
    log: Mapping[str, NDArray[Any]] | None,
    result: Mapping[str, Any] | None,
    origin: Origin,
) -> list[Picture]:
    """What the page shows, in order."""
    figure = result or {}
    lost = f"There is no {FIGURES}."
    rate = _summary_rate(figure)
    noise = ""
    if result:
        noise = (
            f"{figure['noise_windows']:,} noise windows of simulated {figure['run']} "
            f"noise, {figure['glitch_windows']:,} of windows with a glitch; no rate is "
            f"shown that fewer than {MIN_EVENTS} clusters of windows exceed (windows "
            "that overlap are one)."
        )
    has = {
        name: result is not None and bool(figure.get(name))
        for name in ("efficiency", "roc", "scatter", "calibration", "optimal")
    }
    optimum = _optimum(figure) if has["optimal"] else "No limits were measured. "
    partly = f"{FIGURES} has no such figures; 'chirpwatch train validate' makes them."
    why = lost if result is None else partly
    return [
        Picture(
            "training",
            "Training and validation",
            _training_caption(origin.training),
            "Curves of loss, validation, learning rate and waiting time by step.",
            figures.training(log) if log else None,
            SQUARE,
            f"There is no {LOG}.",
        ),
        Picture(
            "efficiency",
            f"Efficiency at a false-positive rate of {rate and rate_words(rate)}",
            "Share of simulated mergers found, in single windows of 1 s, by network "
            f"SNR; bars: 68 % (Wilson), {figure.get('signals', 0):,} mergers a point. "
            f"{optimum}",
            "Share found by SNR for pairs of masses, network and limits.",
            figures.efficiency(figure, rate) if has["efficiency"] and rate else None,
            SQUARE,
            why,
        ),
        Picture(
            "efficiency_by_rate",
            "Efficiency at every rate, in Gaussian noise",
            f"As above, at each rate that the noise suffices for. {noise}"
            f"{_banks(figure)}",
            "Share found by SNR for pairs of masses and several rates.",
            figures.efficiency_by_rate(figure) if has["efficiency"] else None,
            SQUARE,
            why,
        ),
        Picture(
            "roc",
            "ROC",
            "Share of mergers found, all pairs of masses together, against the "
            f"false-positive rate a window. {noise}",
            "Share found by false-positive rate for several SNRs.",
            figures.roc(figure) if has["roc"] else None,
            WIDE,
            why,
        ),
        Picture(
            "scatter",
            "Score against SNR",
            _scatter(figure) if has["scatter"] else "",
            "Score of each merger by its SNR, coloured by chirp mass.",
            figures.scatter(figure) if has["scatter"] else None,
            NARROW,
            why,
        ),
        Picture(
            "calibration",
            "Calibration",
            _calibration(figure) if has["calibration"] else "",
            "Share of windows with a merger by the sigmoid of their score.",
            figures.calibration(figure) if has["calibration"] else None,
            NARROW,
            why,
        ),
    ]


def _optimum(figure: Mapping[str, Any]) -> str:
    """What the limits are that an efficiency is shown beside."""
    optimal = figure["optimal"]
    bank = ""
    if optimal.get("bank"):
        bank = (
            "Dashed: all templates of the bank that comes with the project, whole, "
            "their likelihoods weighted by the population and added, at the same rate, "
            f"from {optimal['bank_noise_windows']:,} noise windows and "
            f"{optimal['bank_signals']:,} mergers. "
        )
    return (
        f"{bank}Thin: the one template that is the merger's own, as if its masses were "
        f"known. Time (within {optimal['window_length']:.2f} s), phases, amplitudes "
        "and sky position are unknown to both, the noise's spectrum is known."
    )


def _banks(figure: Mapping[str, Any]) -> str:
    """What is dashed at every rate, if it was measured."""
    if not figure.get("optimal", {}).get("bank"):
        return ""
    return f" Dashed: the bank of templates at the same rate{_fitted(figure)}."


def _fitted(figure: Mapping[str, Any]) -> str:
    """Which rates of the bank no noise was enough for."""
    found = figure.get("optimal", {}).get("bank", [])
    rates = {rate for one in found for rate in one["fitted"]}
    rates &= set(figure.get("thresholds", {}).get("gaussian", {}))
    if not rates:
        return ""
    words = [rate_words(rate) for rate in sorted(rates, key=float, reverse=True)]
    return (
        f", whose thresholds at {' and '.join(words)} come from a fit of the tail of "
        "its noise"
    )


def _scatter(figure: Mapping[str, Any]) -> str:
    masses, settings = "", figure.get("settings", {})
    if settings:
        masses = (
            f"of {settings['min_mass']:g} to {settings['max_mass']:g} solar masses "
            "(detector frame) "
        )
    return (
        f"{len(figure['scatter']['snr']):,} mergers {masses}in Gaussian noise, SNR "
        "uniform in the logarithm. Dashed: the thresholds."
    )


def _calibration(figure: Mapping[str, Any]) -> str:
    one, snr, settings = figure["calibration"], "", figure.get("settings", {})
    if settings:
        snr = f" of SNR {settings['last_snr']:g} to {settings['max_snr']:g}"
    return (
        f"{one['windows']:,} windows, {100 * one['prior']:.0f} % of them with a "
        f"merger{snr}, with glitches; bars: 68 % "
        f"(Wilson). Mean distance from the diagonal: {one['error']:.3f}. In a search "
        "mergers are far rarer, so that the score is a ranking there, no probability."
    )


def _summary_rate(figure: Mapping[str, Any]) -> str:
    """The rate that the page is about: 1e-4, or as deep as the noise reaches."""
    reached = list(figure.get("thresholds", {}).get("gaussian", {}))
    wanted = str(TABLE_RATES[-1])
    return wanted if wanted in reached else (reached[-1] if reached else "")


def _page(
    folder: Path,
    pictures: list[Picture],
    images: Mapping[str, list[bytes]],
    log: Mapping[str, NDArray[Any]] | None,
    result: Mapping[str, Any] | None,
    origin: Origin,
) -> str:
    config = folder / CONFIG
    figure = result or {}
    return ENVIRONMENT.get_template("report.html").render(
        name=folder.resolve().name,
        simulated=origin.simulated,
        origin=origin.words(),
        tiles=_tiles(figure, log),
        pictures=[
            (one, [_uri(x) for x in images.get(one.name, [])]) for one in pictures
        ],
        found=_found(figure),
        noises=_noises(figure),
        pairs=_pairs(figure),
        provenance=_provenance(figure),
        config=config.read_text() if config.exists() else "",
    )


def _uri(image: bytes) -> Markup:
    text = base64.b64encode(image).decode()
    # Nothing in base64 needs an escape.
    return Markup(f"data:image/png;base64,{text}")  # noqa: S704


def _tiles(
    figure: Mapping[str, Any], log: Mapping[str, NDArray[Any]] | None
) -> list[tuple[str, str, str]]:
    """What matters most: name, value, note."""
    rate = _summary_rate(figure)
    tiles = []
    for entry in figure.get("found", {}).get("gaussian", []):
        masses = f"{entry['mass_1']:g}, {entry['mass_2']:g}"
        if entry["snr"] == SUMMARY_SNR and rate in entry["found"]:
            share = entry["found"][rate]
            note = _distance(figure, entry, rate)
            tiles.append((f"Found at SNR 8: {masses}", f"{100 * share:.1f} %", note))
    for name, words in (("hour", "one an hour"), ("day", "one a day")):
        values = (log or {}).get(f"valid_found_{name}", np.empty(0))
        values = values[np.isfinite(values)]
        if len(values):
            note = "of the injections, at the last validation"
            tiles.append((f"Found at {words}", f"{100 * values[-1]:.1f} %", note))
    return tiles


def _distance(figure: Mapping[str, Any], entry: Mapping[str, Any], rate: str) -> str:
    """What the bank of templates finds of the same."""
    optimal = figure.get("optimal")
    if not optimal or entry["snr"] not in optimal.get("bank_snr", ()):
        return f"at {rate_words(rate)} a window"
    place = optimal["bank_snr"].index(entry["snr"])
    for one in optimal["bank"]:
        if (one["mass_1"], one["mass_2"]) == (entry["mass_1"], entry["mass_2"]):
            share = one["found"][rate][place]
            return f"at {rate_words(rate)} a window; bank {100 * share:.1f} %"
    return f"at {rate_words(rate)} a window"


def _found(figure: Mapping[str, Any]) -> dict[str, Any]:
    """The table of shares found: its heads, and its rows."""
    if not figure:
        return {}
    kinds = [(kind, list(figure["thresholds"][kind])) for kind in KINDS]
    n, rows = figure["signals"], []
    for entries in zip(*(figure["found"][kind] for kind in KINDS), strict=True):
        cells = [
            _share(entry["found"].get(rate), n)
            for entry, (_, rates) in zip(entries, kinds, strict=True)
            for rate in rates
        ]
        one = entries[0]
        rows.append((f"{one['mass_1']:g}, {one['mass_2']:g}", f"{one['snr']:g}", cells))
    return {
        "kinds": [
            (KINDS[kind], [rate_words(x) for x in rates]) for kind, rates in kinds
        ],
        "clusters": [
            f"{figure['clusters'][kind][rate]:,.0f}"
            for kind, rates in kinds
            for rate in rates
            if "clusters" in figure
        ],
        "thresholds": [
            f"{figure['thresholds'][kind][rate]:.2f}"
            for kind, rates in kinds
            for rate in rates
        ],
        "rows": rows,
        "signals": n,
    }


def _share(share: float | None, n: int) -> str:
    if share is None:
        return NOT_MEASURED
    low, high = wilson_interval(round(share * n), n)
    return f"{100 * share:.1f} ± {50 * (high - low):.1f}"


def _pairs(figure: Mapping[str, Any]) -> list[str]:
    """Masses of the mergers, in the order of the figures."""
    entries = figure.get("found", {}).get("gaussian", [])
    return list(dict.fromkeys(f"{x['mass_1']:g}, {x['mass_2']:g}" for x in entries))


def _noises(figure: Mapping[str, Any]) -> list[tuple[str, str, str, str, list[str]]]:
    """Further noise: name, what is recorded, kind, rate held, shares found."""
    rate, rows = str(TABLE_RATES[-1]), []
    for noise in figure.get("noises", []):
        for kind, words in KINDS.items():
            held = noise["held_rates"][kind].get(rate)
            shares = [
                _share(entry["found"].get(rate), noise["signals"])
                for entry in noise["found"][kind]
                if entry["snr"] == SUMMARY_SNR
            ]
            recorded = ", ".join(noise["recorded"]) or "nothing"
            told = NOT_MEASURED if held is None else f"{held:.2g}"
            rows.append((noise["name"], recorded, words, told, shares))
    return rows


def _provenance(figure: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made the network and its figures: names and values."""
    details = dict(figure.get("checkpoint", {}))
    rows = []
    for key, words in (
        ("command", "Command"),
        ("model", "Network"),
        ("seed", "Seed of the training"),
        ("steps", "Steps"),
        ("best_step", "Step of the weights"),
        ("wall_time_length", "Wall time of the training"),
        ("cpu_time_length", "CPU time of the training"),
        ("data_hash", "SHA-256 of the noise"),
        ("trainer.devices", "Processes of the training"),
    ):
        if key in details:
            value = details[key]
            if key.endswith("_length"):
                value = f"{value / 60:.1f} minutes"
            rows.append((words, str(value)))
    for name, version in details.get("versions", {}).items():
        rows.append((name, str(version)))
    if figure:
        if "weights" in figure:
            rows.append(("SHA-256 of the weights", figure["weights"]))
        rows.append(("Seed of the validation", str(figure["seed"])))
        noise = f"{figure['noise_length']:,.0f} s of each detector"
        rows.append(
            ("Noise of the validation", f"{noise}, {figure['slides']} pairings")
        )
    return rows
