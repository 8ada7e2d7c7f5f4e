"""Markdown report of ``benchmarks.deployed``."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import lay_out
from chirpwatch.train.evaluation.tables import NOT_MEASURED
from chirpwatch.train.evaluation.thresholds import MASSES

WORDS = {"hour": "one an hour", "day": "one a day"}
KINDS = {"quiet": "no glitch in reach", "all": "all windows"}
WANTED_CAUSES = 10
"""Independent causes above a threshold that make it reliable."""

FAINT_SNR = 4.0
"""SNR below which a merger is faint in a detector."""

MOST_ROWS = 40
"""Most missed mergers in a table; the JSON has all."""


def report(result: Mapping[str, Any]) -> str:
    """Format all figures as Markdown.

    Args:
        result: From ``benchmarks.deployed.measure``.
    """
    parts = [
        _preamble(result),
        "## Found at a false-alarm rate",
        _found(result),
        f"## Missed above SNR {result['loud_snr']:g}",
        _missed(result),
        "## In one detector alone",
        _lone(result),
        "## Windows at SNR 8",
        _windows(result),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _half_width(interval: Sequence[float]) -> float:
    return (interval[1] - interval[0]) / 2


def _preamble(result: Mapping[str, Any]) -> str:
    sizes, drawn = result["sizes"], result["population"]
    times = ", ".join(
        f"{name} {figures['time'] / 60:.1f} minutes"
        for name, figures in result["networks"].items()
    )
    days = next(iter(result["networks"].values()))["livetime"] / 86400
    return (
        "# Deployed\n\n"
        f"Simulated noise with the curves of {' and '.join(drawn['runs'])} and 0.6 "
        f"glitches a minute in each detector: {sizes['length']:,.0f} s in "
        f"{sizes['stretches']} stretches, {sizes['slides']} timeslides, livetime "
        f"{days:.1f} days. {sizes['injections']:,} mergers of "
        f"{drawn['min_mass']:g} to {drawn['max_mass']:g} solar masses, chirp masses "
        f"flattened ({drawn['mass_flattening']:g}), spins up to "
        f"{drawn['max_spin']:g}, network SNR {drawn['last_snr']:g} to "
        f"{drawn['max_snr']:g}, and {sizes['loud']:,} additional ones above "
        f"{result['loud_snr']:g}; seed {result['seed']}. CPU time: "
        f"drawing and whitening {result['drawing_time'] / 60:.1f} minutes, {times}."
    )


def _found(result: Mapping[str, Any]) -> str:
    rows, notes = [], []
    for name, network in result["networks"].items():
        for rate, words in WORDS.items():
            figure = network["rates"][rate]
            share = threshold = moved = NOT_MEASURED
            if "share" in figure:
                error = _half_width(figure["wilson"])
                share = f"{_percent(figure['share'])} ± {_percent(error)}"
                moved = (
                    f"{_percent(figure['share_low'])} to "
                    f"{_percent(figure['share_high'])}"
                )
                threshold = f"{figure['threshold']:.2f}"
            rows.append(
                [
                    name,
                    words,
                    threshold,
                    f"{figure['events']}",
                    f"{figure['causes']}",
                    f"{figure['clusters']:.1f}",
                    share,
                    moved,
                ]
            )
            if 0 < figure["causes"] < WANTED_CAUSES:
                more = WANTED_CAUSES / figure["causes"]
                length = more * result["sizes"]["length"]
                spent = result["drawing_time"] + network["time"]
                notes.append(
                    f"- {name}, {words}: {figure['causes']} causes; "
                    f"{WANTED_CAUSES} need about `--length {length:.0f}` "
                    f"and at most {more * spent / 60:.0f} minutes of CPU time."
                )
    heads = [
        *("network", "false alarms", "threshold", "events above", "causes"),
        *("effective number", "found, %", "at thresholds moved by √n, %"),
    ]
    return (
        "Errors are binomial (68 %); the last column is the efficiency at the "
        "thresholds if √n fewer or more of the n effective events were above. Events "
        "that share strain of a detector within one kernel's length have one cause.\n\n"
        + lay_out(heads, rows)
        + "\n"
        + "\n".join(notes)
    )


def _missed(result: Mapping[str, Any]) -> str:
    parts = []
    for name, network in result["networks"].items():
        for rate, figure in network["missed"].items():
            low, high = figure["wilson"]
            count, rows = figure["mergers"], figure["list"]
            faint = sum(min(row["ifo_snrs"].values()) < FAINT_SNR for row in rows)
            glitches = sum(bool(row["glitches"]) for row in rows)
            parts.append(
                f"{name}, {WORDS[rate]}: {figure['missed']} of {count} missed, "
                f"{100 * figure['missed'] / count:.2f} % (68 %: {100 * low:.2f} to "
                f"{100 * high:.2f}); {figure['missed_high']} to "
                f"{figure['missed_low']} at thresholds moved by √n. Of the missed "
                f"mergers, {faint} have an SNR below {FAINT_SNR:g} in one detector, "
                f"and {glitches} a glitch within a kernel's length."
            )
            if rate == "day" and rows:
                parts.append(_each(rows))
    return "\n\n".join(parts) or "No threshold at one a day.\n"


def _each(rows: Sequence[Mapping[str, Any]]) -> str:
    """Table of the loudest missed mergers."""
    ifos = list(rows[0]["ifo_snrs"])
    cells = []
    for row in sorted(rows, key=lambda row: -row["snr"])[:MOST_ROWS]:
        glitches = "; ".join(
            f"{glitch['ifo']}, SNR {glitch['snr']:.0f}, {glitch['after']:+.1f} s"
            for glitch in row["glitches"]
        )
        score = row["statistic"]
        cells.append(
            [
                ", ".join(f"{mass:.1f}" for mass in row["masses"]),
                f"{row['snr']:.1f}",
                *(f"{row['ifo_snrs'][ifo]:.1f}" for ifo in ifos),
                "no event" if score is None else f"{score:.2f}",
                glitches or "none",
            ]
        )
    heads = ["masses", "network SNR", *ifos, "score", "glitch within the kernel"]
    more = len(rows) - len(cells)
    return lay_out(heads, cells) + (f"\nAnd {more} fainter ones.\n" if more else "")


def _lone(result: Mapping[str, Any]) -> str:
    rows = []
    for name, network in result["networks"].items():
        for kind, words in (("lone", "merger"), ("glitches", "glitch")):
            for entry in network[kind]:
                shares = [NOT_MEASURED] * len(WORDS)
                spread = NOT_MEASURED
                if entry["sources"]:
                    spread = ", ".join(f"{x:.1f}" for x in entry["quantiles"])
                    shares = [
                        f"{100 * above['share']:.2f} ± {100 * above['error']:.2f}"
                        if (above := entry["above"].get(rate))
                        else NOT_MEASURED
                        for rate in WORDS
                    ]
                span = f"{entry['low']:g} to {entry['high']:g}"
                counts = f"{entry['sources']}", f"{entry['pairings']:,}"
                rows.append([name, words, span, *counts, spread, *shares])
    heads = [
        *("network", "source", "SNR", "sources", "pairings"),
        "score: 5 %, median, 95 %",
        *(f"above {words}, %" for words in WORDS.values()),
    ]
    return (
        "The largest score of the kernels that contain the source, in each slide "
        f"({result['lone_slides']} for mergers, all for glitches). Errors are standard "
        "errors of the mean over sources, 1 / (n + 1) if all n sources agree.\n\n"
        + lay_out(heads, rows)
    )


def _windows(result: Mapping[str, Any]) -> str:
    pairs = [f"{mass_1:g}, {mass_2:g}" for mass_1, mass_2 in MASSES]
    rows = []
    for name, network in result["networks"].items():
        for entry in network["found"]:
            limits = entry["limits"]
            cells = [NOT_MEASURED] * (3 + len(pairs))
            if limits:
                cells = [
                    f"{limits['threshold']:.2f}",
                    f"{limits['windows']:,}",
                    f"{limits['clusters']:.0f}",
                    *(
                        f"{_percent(share['threshold'])} ({_percent(share['low'])} to "
                        f"{_percent(share['high'])})"
                        for share in entry["found"]
                    ),
                ]
            rows.append([name, KINDS[entry["kind"]], f"{entry['rate']:g}", *cells])
    heads = ["network", "noise", "rate", "threshold", "windows above", "clusters"]
    counts = "; ".join(
        f"{name}: {network['windows']['all']:,} windows, "
        f"{network['windows']['quiet']:,} of them with no glitch within reach"
        for name, network in result["networks"].items()
    )
    return (
        f"{counts}. Efficiencies in per cent of {result['sizes']['windows']:,} windows "
        "each (standard error at 50 %: "
        f"{50 / result['sizes']['windows'] ** 0.5:.1f} %); in brackets at the "
        "thresholds if √n fewer or more of the n clusters were above.\n\n"
        + lay_out([*heads, *pairs], rows)
    )
