"""Results of a validation, written as JSON and as Markdown tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chirpwatch.atomic import replacing
from chirpwatch.efficiency import wilson_interval
from chirpwatch.train.evaluation.deployment import MIN_EVENTS
from chirpwatch.train.evaluation.thresholds import MASSES
from chirpwatch.train.evaluation.validation import GLITCH_SHARE

TABLE_RATES = (1e-3, 1e-4)
"""False-positive rates of the tables; the JSON has all of ``thresholds.RATES``."""

NOT_MEASURED = "n/a"
"""Cell of a table without a result, for example for lack of noise."""


def table(result: dict[str, Any]) -> str:
    """Markdown table of efficiencies by masses and SNR, from ``validate``'s results."""
    names = {"gaussian": "Gaussian noise", "glitches": "10 % with a glitch"}
    heads = [f"{names[name]}, {rate:g}" for name in names for rate in TABLE_RATES]
    lines = [
        "| Masses | SNR | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for clean, dirty in zip(
        result["found"]["gaussian"], result["found"]["glitches"], strict=True
    ):
        shares = [
            f"{100 * entry['found'][str(rate)]:.1f} %"
            if str(rate) in entry["found"]
            else NOT_MEASURED
            for entry in (clean, dirty)
            for rate in TABLE_RATES
        ]
        masses = f"{clean['mass_1']:g}, {clean['mass_2']:g}"
        lines.append(f"| {masses} | {clean['snr']:g} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def noises_table(result: dict[str, Any]) -> str:
    """Markdown table of efficiencies by kind of noise, at SNR 8 and a rate of 1e-4."""
    rate, snr = "0.0001", 8.0
    pairs = [f"{mass_1:g}, {mass_2:g}" for mass_1, mass_2 in MASSES]
    lines = [
        "| Noise | recorded | false-positive rate at the first noise's threshold | "
        + " | ".join(pairs)
        + " |",
        "|---|---|---|" + "---|" * len(pairs),
    ]
    first: dict[str, Any] = {"name": f"{result['run']} curves", "recorded": []}
    first |= result
    for noise in (first, *result["noises"]):
        for kind, words in (("gaussian", ""), ("glitches", ", 10 % with a glitch")):
            shares = [
                f"{100 * entry['found'][rate]:.1f} %"
                if rate in entry["found"]
                else NOT_MEASURED
                for entry in noise["found"][kind]
                if entry["snr"] == snr
            ]
            held = noise.get("held_rates", {}).get(kind, {}).get(rate)
            false = "1e-4 by definition" if noise is first else NOT_MEASURED
            if held is not None:
                false = f"{held:.2g}"
            recorded = ", ".join(noise["recorded"]) or "nothing"
            lines.append(
                f"| {noise['name']}{words} | {recorded} | {false} | "
                + " | ".join(shares)
                + " |"
            )
    return "\n".join(lines) + "\n"


def preamble(result: dict[str, Any]) -> str:
    """Markdown text that explains what ``table`` shows and how it was measured."""
    settings, timed = result["settings"], ""
    if result["timing"]:
        share = 100 * result["timing"]["peak_within_sixteenth"]
        timed = (
            f"\nThe network's merger time is right within 1/16 s for {share:.1f} % of "
            "signals of SNR 10 to 20.\n"
        )
    low, high = wilson_interval(result["signals"] // 2, result["signals"])
    return (
        f"{_made(result.get('checkpoint', {}))}"
        f"The table gives the efficiency for simulated mergers in simulated "
        f"{result['run']} noise at the stated false-positive rates a window. Each "
        f"value is from {result['signals']} single windows; an efficiency of 50 % has "
        f"a 68 % error of ± {50 * (high - low):.1f} %. The merger is at a random time "
        f"{settings['earliest_merger']:g} to {settings['latest_merger']:g} s "
        "before the end of the window. Sky position and orientation are isotropic. "
        f"The thresholds are from {result['noise_windows']:,} windows: "
        f"{result['noise_length']:,.0f} s of noise of each detector in "
        f"{result['slides']} timeslides, whitened with PSDs of "
        f"{settings['psd_min_length']:g} to {settings['psd_length']:g} s. A threshold "
        f"is given if at least {MIN_EVENTS} clusters of windows exceed it. In the last "
        f"{len(TABLE_RATES)} columns {100 * GLITCH_SHARE:g} % of all windows, with and "
        f"without a signal, have a glitch of SNR {settings['min_glitch_snr']:g} to "
        f"{settings['max_disturbance_snr']:g} in one detector.\n" + timed
    )


def _made(details: Mapping[str, Any]) -> str:
    """Markdown sentence on how the network was made, from its checkpoint's details."""
    if "command" not in details:
        return ""
    words = [f"Made by `{details['command']}`"]
    settings = [
        f"{name} {details[key]}"
        for key, name in (("seed", "seed"), ("steps", "steps"))
        if key in details
    ]
    if settings:
        words.append(f"({', '.join(settings)})")
    if "wall_time_length" in details:
        words.append(f"in {details['wall_time_length'] / 60:.1f} minutes")
    if "cpu_time_length" in details:
        words.append(f"({details['cpu_time_length'] / 60:.1f} minutes of CPU time)")
    if not details.get("simulated", True):
        words.append("on recorded noise")
    return " ".join(words) + ".\n\n"


def write_report(path: str | Path, result: dict[str, Any]) -> None:
    """Write a validation's results as JSON, and as Markdown tables beside it.

    Args:
        path: JSON file; the tables have the suffix ``.md``.
        result: Results of ``validate``, and the checkpoint's details under
            ``checkpoint``, if any.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    path = Path(path)
    text = f"# {path.stem}\n\n{preamble(result)}\n{table(result)}"
    if result.get("noises"):
        text += (
            "\nEfficiency at SNR 8 and a false-positive rate of 1e-4 by kind of noise:"
            f"\n\n{noises_table(result)}"
        )
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(text)
