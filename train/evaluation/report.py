"""Report of a training: one HTML page that opens from disk, and its figures as PNG."""

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

LOG, RESULTS, CONFIG = "metrics.csv", "validation.json", "config.yaml"
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
"""Jinja environment of the report's template."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: File name without suffix, and the section's id in the page.
        title: Heading.
        caption: Caption below the figure.
        alt: Alternative text for screen readers.
        draw: Draws the figure; None if its data are missing.
        size: Width and height, inches.
        missing: Text in place of a figure that cannot be drawn.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Draw | None
    size: tuple[float, float]
    missing: str = ""


def write_run_report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``report/*.png`` into a training's folder.

    Args:
        folder: Folder with ``metrics.csv``, ``validation.json``, ``config.yaml`` and
            ``network.ckpt``. The page reports files that are missing.

    Returns:
        Path of the page.

    Raises:
        ConfigurationError: The folder does not exist, a file is malformed, or the
            results were measured with other weights.
        ModelError: The checkpoint is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: expected the folder of a training ('chirpwatch train fit'), "
            "found no folder"
        )
    log, results = read_log(folder / LOG), read_results(folder / RESULTS)
    details: Mapping[str, Any] | None = None
    if (folder / NETWORK).exists():
        network, details = load_checkpoint(folder / NETWORK)
        if results and "weights" in results:
            check_weights(folder, network, results)
    if results:
        details = results.get("checkpoint", details)
    try:
        origin = _origin(details, results)
        pictures = _pictures(log, results, origin)
        images = {
            picture.name: [
                render(picture.draw, theme, picture.size) for theme in (LIGHT, DARK)
            ]
            for picture in pictures
            if picture.draw
        }
        page = _page(folder, pictures, images, log, results, origin)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{folder / RESULTS}: expected results of 'chirpwatch train validate', "
            f"found incomplete or malformed ones ({type(error).__name__}: {error}); "
            "validate again"
        ) from error
    for name, (light, _) in images.items():
        with replacing(folder / FOLDER / f"{name}.png") as temporary:
            temporary.write_bytes(light)
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page)
    return folder / PAGE


def read_log(path: Path) -> dict[str, NDArray[Any]] | None:
    """Read a training's metrics log, ``metrics.csv``.

    Returns:
        Columns by name, float64, [rows], NaN where a cell is empty; None if the file
        does not exist.

    Raises:
        ConfigurationError: The column ``step`` is missing, or a cell is not a number.
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


def read_results(path: Path) -> dict[str, Any] | None:
    """Read the results of a validation, ``validation.json``.

    Returns:
        Results of ``validation.validate``; None if the file does not exist.

    Raises:
        ConfigurationError: The file is not JSON, or lacks results.
    """
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{path}: expected JSON: {error}") from None
    required = {"found", "thresholds", "signals", "noise_windows"}
    if not isinstance(results, dict) or not required <= set(results):
        keys = sorted(results) if isinstance(results, dict) else type(results).__name__
        raise ConfigurationError(
            f"{path}: expected results of 'chirpwatch train validate' "
            f"({', '.join(sorted(required))}), found {keys}"
        )
    return results


def check_weights(folder: Path, network: Scorer, results: Mapping[str, Any]) -> None:
    """Check that results were measured with the weights of the checkpoint beside them.

    Args:
        folder: Folder of both files, for the message.
        network: Network of ``network.ckpt``.
        results: From ``read_results``.

    Raises:
        ConfigurationError: The results are of other weights, or don't record them.
    """
    measured, expected = results.get("weights"), weights_hash(network)
    if measured != expected:
        raise ConfigurationError(
            f"{folder / RESULTS}: expected results for the weights {expected[:12]}… of "
            f"{NETWORK}, found results for "
            f"{measured[:12] + '…' if measured else 'unknown weights'}; validate again "
            "with 'chirpwatch train validate'"
        )


@dataclass(frozen=True)
class Origin:
    """Which data of a report are simulated, and which are recorded.

    Mergers are always simulated.

    Attributes:
        training: Whether the training's noise is simulated; None if unknown.
        recorded: Descriptions of the validation's recorded strain and glitches.
    """

    training: bool | None
    recorded: list[str]

    @property
    def simulated(self) -> bool:
        """Whether all data are simulated; False if unknown."""
        return self.training is True and not self.recorded

    def sentence(self) -> str:
        """The origin of the data as a sentence for the report."""
        if self.simulated:
            return "All noise, glitches and mergers in this report are simulated."
        training = {
            True: ["the training's noise is simulated"],
            False: ["the training's noise is recorded strain"],
            None: [],
        }[self.training]
        recorded = (
            [f"recorded data: {', '.join(self.recorded)}"] if self.recorded else []
        )
        return "; ".join(["Mergers are simulated", *training, *recorded]) + "."


def _origin(
    details: Mapping[str, Any] | None, results: Mapping[str, Any] | None
) -> Origin:
    """Origin of the data, from the checkpoint's details and the results."""
    training = None if details is None else details.get("simulated")
    recorded = [
        f"the validation's {' and '.join(noise['recorded'])} ({noise['name']})"
        for noise in (results or {}).get("noises", [])
        if noise["recorded"]
    ]
    return Origin(training, recorded)


def _training_caption(training: bool | None) -> str:
    noise = {
        True: "simulated noise",
        False: "recorded strain with simulated mergers and glitches",
        None: "noise of unknown origin",
    }[training]
    return (
        "Loss of single training batches, and of the validation's windows, both in "
        f"{noise}. As deployed: efficiency for injections into long stretches of the "
        "same noise, at false-alarm rates measured with timeslides. An injection is "
        "found by an event, the loudest score within 8 s. Points are missing where "
        "the background's livetime is too short."
    )


def _pictures(
    log: Mapping[str, NDArray[Any]] | None,
    results: Mapping[str, Any] | None,
    origin: Origin,
) -> list[Picture]:
    """Figures of the report, in order."""
    measured = results or {}
    no_file = f"There is no {RESULTS}."
    rate = _summary_rate(measured)
    noise = ""
    if results:
        noise = (
            f"There are {measured['noise_windows']:,} windows of simulated "
            f"{measured['run']} noise without a glitch and "
            f"{measured['glitch_windows']:,} with a glitch. A rate is shown if at "
            f"least {MIN_EVENTS} clusters of windows exceed its threshold; overlapping "
            "windows form one cluster."
        )
    has = {
        name: results is not None and bool(measured.get(name))
        for name in ("efficiency", "roc", "scatter", "calibration", "optimal")
    }
    optimum = _optimum(measured) if has["optimal"] else "No limits were measured. "
    no_results = (
        f"{RESULTS} lacks the results for this figure; run 'chirpwatch train validate'."
    )
    why = no_file if results is None else no_results
    return [
        Picture(
            "training",
            "Training and validation",
            _training_caption(origin.training),
            "Loss, deployed validation, batch statistics and learning rate by step.",
            figures.training(log) if log else None,
            SQUARE,
            f"There is no {LOG}.",
        ),
        Picture(
            "efficiency",
            f"Efficiency at a false-positive rate of {rate and rate_words(rate)}",
            "Efficiency for simulated mergers in single windows, by network SNR. Bars: "
            f"68 % Wilson intervals, {measured.get('signals', 0):,} mergers per point. "
            f"{optimum}",
            "Efficiency by SNR for each pair of masses: network and limits.",
            figures.efficiency(measured, rate) if has["efficiency"] and rate else None,
            SQUARE,
            why,
        ),
        Picture(
            "efficiency_by_rate",
            "Efficiency at every rate, in Gaussian noise",
            f"As above, at each rate for which there is enough noise. {noise}"
            f"{_banks(measured)}",
            "Efficiency by SNR for each pair of masses at several rates.",
            figures.efficiency_by_rate(measured) if has["efficiency"] else None,
            SQUARE,
            why,
        ),
        Picture(
            "roc",
            "ROC",
            "Efficiency, averaged over all pairs of masses, against the "
            f"false-positive rate a window. {noise}",
            "Efficiency by false-positive rate for several SNRs.",
            figures.roc(measured) if has["roc"] else None,
            WIDE,
            why,
        ),
        Picture(
            "scatter",
            "Score against SNR",
            _scatter(measured) if has["scatter"] else "",
            "Score of each merger by its SNR, coloured by chirp mass.",
            figures.scatter(measured) if has["scatter"] else None,
            NARROW,
            why,
        ),
        Picture(
            "calibration",
            "Calibration",
            _calibration(measured) if has["calibration"] else "",
            "Share of windows with a merger by the sigmoid of the score.",
            figures.calibration(measured) if has["calibration"] else None,
            NARROW,
            why,
        ),
    ]


def _optimum(results: Mapping[str, Any]) -> str:
    """Caption of the limits beside an efficiency curve."""
    optimal = results["optimal"]
    bank = ""
    if optimal.get("bank"):
        bank = (
            "Dashed: limit of the template bank that comes with the project, with "
            "complete templates and their likelihoods averaged over the population, at "
            f"the same rate, from {optimal['bank_noise_windows']:,} noise windows and "
            f"{optimal['bank_signals']:,} mergers. "
        )
    return (
        f"{bank}Thin: limit of a matched filter that knows the merger's masses. Both "
        f"limits search over time (within {optimal['window_length']:.2f} s), phases, "
        "amplitudes and sky position, and know the noise's PSD."
    )


def _banks(results: Mapping[str, Any]) -> str:
    """Caption of the bank's curves at every rate; empty if it was not measured."""
    if not results.get("optimal", {}).get("bank"):
        return ""
    return f" Dashed: the template bank's limit at the same rate{_fitted(results)}."


def _fitted(results: Mapping[str, Any]) -> str:
    """Caption of the rates at which the bank's threshold comes from a fit."""
    entries = results.get("optimal", {}).get("bank", [])
    rates = {rate for entry in entries for rate in entry["fitted"]}
    rates &= set(results.get("thresholds", {}).get("gaussian", {}))
    if not rates:
        return ""
    words = [rate_words(rate) for rate in sorted(rates, key=float, reverse=True)]
    return (
        f", whose thresholds at {' and '.join(words)} come from a fit to the tail of "
        "its statistic in noise"
    )


def _scatter(results: Mapping[str, Any]) -> str:
    masses, settings = "", results.get("settings", {})
    if settings:
        masses = (
            f"of {settings['min_mass']:g} to {settings['max_mass']:g} solar masses "
            "(detector frame) "
        )
    return (
        f"{len(results['scatter']['snr']):,} mergers {masses}in Gaussian noise, "
        "log-uniform in SNR. Dashed: thresholds by false-positive rate."
    )


def _calibration(results: Mapping[str, Any]) -> str:
    calibration, snr = results["calibration"], ""
    settings = results.get("settings", {})
    if settings:
        snr = f" of SNR {settings['last_snr']:g} to {settings['max_snr']:g}"
    return (
        f"{calibration['windows']:,} windows with glitches, "
        f"{100 * calibration['prior']:.0f} % of them with a merger{snr}. Bars: 68 % "
        "Wilson intervals. Mean distance from the diagonal: "
        f"{calibration['error']:.3f}. Mergers are far rarer in a search, where the "
        "score ranks events and is not a probability."
    )


def _summary_rate(results: Mapping[str, Any]) -> str:
    """False-positive rate of the report's summary: 1e-4, or the lowest measured one."""
    measured = list(results.get("thresholds", {}).get("gaussian", {}))
    preferred = str(TABLE_RATES[-1])
    return preferred if preferred in measured else (measured[-1] if measured else "")


def _page(
    folder: Path,
    pictures: list[Picture],
    images: Mapping[str, list[bytes]],
    log: Mapping[str, NDArray[Any]] | None,
    results: Mapping[str, Any] | None,
    origin: Origin,
) -> str:
    config = folder / CONFIG
    measured = results or {}
    return ENVIRONMENT.get_template("report.html").render(
        name=folder.resolve().name,
        simulated=origin.simulated,
        origin=origin.sentence(),
        tiles=_tiles(measured, log),
        pictures=[
            (picture, [_uri(image) for image in images.get(picture.name, [])])
            for picture in pictures
        ],
        found=_found(measured),
        noises=_noises(measured),
        pairs=_pairs(measured),
        provenance=_provenance(measured),
        config=config.read_text() if config.exists() else "",
    )


def _uri(image: bytes) -> Markup:
    text = base64.b64encode(image).decode()
    return Markup(f"data:image/png;base64,{text}")  # noqa: S704 - base64 is safe


def _tiles(
    results: Mapping[str, Any], log: Mapping[str, NDArray[Any]] | None
) -> list[tuple[str, str, str]]:
    """Headline results: label, value and note."""
    rate = _summary_rate(results)
    tiles = []
    for entry in results.get("found", {}).get("gaussian", []):
        masses = f"{entry['mass_1']:g}, {entry['mass_2']:g}"
        if entry["snr"] == SUMMARY_SNR and rate in entry["found"]:
            share = entry["found"][rate]
            note = _distance(results, entry, rate)
            label = f"Efficiency at SNR {SUMMARY_SNR:g}: {masses}"
            tiles.append((label, f"{100 * share:.1f} %", note))
    for name, words in (("hour", "one an hour"), ("day", "one a day")):
        values = (log or {}).get(f"valid_found_{name}", np.empty(0))
        values = values[np.isfinite(values)]
        if len(values):
            note = "false-alarm rate; injections, last validation as deployed"
            label = f"Efficiency at {words}"
            tiles.append((label, f"{100 * values[-1]:.1f} %", note))
    return tiles


def _distance(results: Mapping[str, Any], entry: Mapping[str, Any], rate: str) -> str:
    """Note of a headline efficiency: its rate, and the template bank's efficiency."""
    optimal = results.get("optimal")
    if not optimal or entry["snr"] not in optimal.get("bank_snr", ()):
        return f"at {rate_words(rate)} a window"
    index = optimal["bank_snr"].index(entry["snr"])
    for limit in optimal["bank"]:
        if (limit["mass_1"], limit["mass_2"]) == (entry["mass_1"], entry["mass_2"]):
            share = limit["found"][rate][index]
            return f"at {rate_words(rate)} a window; bank {100 * share:.1f} %"
    return f"at {rate_words(rate)} a window"


def _found(results: Mapping[str, Any]) -> dict[str, Any]:
    """Table of efficiencies by masses, SNR, kind of noise and rate; empty without."""
    if not results:
        return {}
    kinds = [(kind, list(results["thresholds"][kind])) for kind in KINDS]
    n, rows = results["signals"], []
    for entries in zip(*(results["found"][kind] for kind in KINDS), strict=True):
        cells = [
            _share(entry["found"].get(rate), n)
            for entry, (_, rates) in zip(entries, kinds, strict=True)
            for rate in rates
        ]
        first = entries[0]
        masses = f"{first['mass_1']:g}, {first['mass_2']:g}"
        rows.append((masses, f"{first['snr']:g}", cells))
    return {
        "kinds": [
            (KINDS[kind], [rate_words(x) for x in rates]) for kind, rates in kinds
        ],
        "clusters": [
            f"{results['clusters'][kind][rate]:,.0f}"
            for kind, rates in kinds
            for rate in rates
            if "clusters" in results
        ],
        "thresholds": [
            f"{results['thresholds'][kind][rate]:.2f}"
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


def _pairs(results: Mapping[str, Any]) -> list[str]:
    """Pairs of masses of the reference mergers, as column headings."""
    entries = results.get("found", {}).get("gaussian", [])
    return list(dict.fromkeys(f"{x['mass_1']:g}, {x['mass_2']:g}" for x in entries))


def _noises(results: Mapping[str, Any]) -> list[tuple[str, str, str, str, list[str]]]:
    """Rows of the table of further noise.

    Each has the name, what is recorded, the kind of windows, the false-positive rate at
    the first noise's threshold, and the efficiency for each pair of masses.
    """
    rate, rows = str(TABLE_RATES[-1]), []
    for noise in results.get("noises", []):
        for kind, words in KINDS.items():
            held = noise["held_rates"][kind].get(rate)
            shares = [
                _share(entry["found"].get(rate), noise["signals"])
                for entry in noise["found"][kind]
                if entry["snr"] == SUMMARY_SNR
            ]
            recorded = ", ".join(noise["recorded"]) or "nothing"
            held_rate = NOT_MEASURED if held is None else f"{held:.2g}"
            rows.append((noise["name"], recorded, words, held_rate, shares))
    return rows


def _provenance(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Provenance of the network and its results: labels and values."""
    details = dict(results.get("checkpoint", {}))
    rows = []
    for key, words in (
        ("command", "Command"),
        ("model", "Network"),
        ("seed", "Seed of the training"),
        ("steps", "Steps"),
        ("best_step", "Step of the best weights"),
        ("wall_time_length", "Wall time of the training"),
        ("cpu_time_length", "CPU time of the training"),
        ("data_hash", "SHA-256 of the background file or noise curves"),
        ("trainer.devices", "Processes of the training"),
    ):
        if key in details:
            value = details[key]
            if key.endswith("_length"):
                value = f"{value / 60:.1f} minutes"
            rows.append((words, str(value)))
    for name, version in details.get("versions", {}).items():
        rows.append((name, str(version)))
    if results:
        if "weights" in results:
            rows.append(("SHA-256 of the weights", results["weights"]))
        rows.append(("Seed of the validation", str(results["seed"])))
        noise = f"{results['noise_length']:,.0f} s of each detector"
        rows.append(
            ("Noise of the validation", f"{noise}, {results['slides']} timeslides")
        )
    return rows
