"""A validation's figures as JSON, and as Markdown tables with their explanation."""

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
"""False-positive rates of the tables; JSON has ``RATES``."""

NOT_MEASURED = "n/a"


def table(result: dict[str, Any]) -> str:
    """Lay out ``validate``'s figures as Markdown."""
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
    """Lay out the further kinds of noise as Markdown, at SNR 8 and 1e-4."""
    rate, snr = "0.0001", 8.0
    pairs = [f"{mass_1:g}, {mass_2:g}" for mass_1, mass_2 in MASSES]
    lines = [
        "| Noise | recorded | false positives at the first noise's threshold | "
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
    """Say in Markdown what ``table`` shows and how it was measured."""
    settings, timed = result["settings"], ""
    if result["timing"]:
        share = 100 * result["timing"]["peak_within_sixteenth"]
        timed = (
            f"\nThe merger's time is right to 1/16 s for {share:.1f} % of signals of "
            "SNR 10 to 20.\n"
        )
    low, high = wilson_interval(result["signals"] // 2, result["signals"])
    return (
        f"{_made(result.get('checkpoint', {}))}"
        f"Share of simulated mergers found in simulated {result['run']} noise, "
        f"in {result['signals']} single windows each (half of them found is known to "
        f"{50 * (high - low):.1f} %), with the merger at a random place "
        f"{settings['earliest_merger']:g} to {settings['latest_merger']:g} s "
        "before the end of the window; sky and orientation are isotropic. Thresholds "
        f"are for the stated false-positive rate a window, from "
        f"{result['noise_windows']:,} windows of {result['noise_length']:,.0f} s of "
        f"noise of each detector in {result['slides']} pairings, whitened with PSDs of "
        f"{settings['psd_min_length']:g} to {settings['psd_length']:g} s; none is "
        f"given that fewer than {MIN_EVENTS} clusters of windows exceed. In the last "
        f"{len(TABLE_RATES)} columns {100 * GLITCH_SHARE:g} % of all windows, with and "
        f"without a signal, have a glitch of SNR {settings['min_glitch_snr']:g} to "
        f"{settings['max_disturbance_snr']:g} in one detector.\n" + timed
    )


def _made(details: Mapping[str, Any]) -> str:
    """Say in Markdown how the network was made, as far as its checkpoint tells."""
    if "command" not in details:
        return ""
    words = [f"Made by `{details['command']}`"]
    known = [
        f"{name} {details[key]}"
        for key, name in (("seed", "seed"), ("steps", "steps"))
        if key in details
    ]
    if known:
        words.append(f"({', '.join(known)})")
    if "wall_time_length" in details:
        words.append(f"in {details['wall_time_length'] / 60:.1f} minutes")
    if "cpu_time_length" in details:
        words.append(f"({details['cpu_time_length'] / 60:.1f} minutes of CPU time)")
    if not details.get("simulated", True):
        words.append("on recorded noise")
    return " ".join(words) + ".\n\n"


def write_report(path: str | Path, result: dict[str, Any]) -> None:
    """Write figures as JSON, and beside it a Markdown table.

    Args:
        path: The JSON file; the table has the suffix ``.md``.
        result: From ``validate``; with ``checkpoint``, what the checkpoint says
            about its making.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    path = Path(path)
    text = f"# {path.stem}\n\n{preamble(result)}\n{table(result)}"
    if result.get("noises"):
        text += f"\nShares found at SNR 8 and 1e-4 elsewhere:\n\n{noises_table(result)}"
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(text)
