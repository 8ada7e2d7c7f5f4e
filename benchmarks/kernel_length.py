"""Where a kernel ends what can be seen: ``python -m benchmarks.kernel_length FOLDER``.

A light merger stays in band for longer than the filters hold. For pairs of masses: the
share of the SNR within the last part of a second to 4 s before the merger, measured on
whole whitened IMRPhenomD waveforms without spins; and what is recovered by a truncated
template of the same masses, and by the bank. Writes ``FOLDER/kernel_length.md`` and
``.json``, in ten seconds of one core.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.markdown import lay_out
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.signals.waveforms import chirp_mass
from chirpwatch.train.evaluation.thresholds import MASSES
from chirpwatch.train.evaluation.validation import RUN
from chirpwatch.train.networks.bank import AFTER_MERGER_LENGTH, Bank, shipped_bank
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_checkpoint,
)
from chirpwatch.train.networks.templates import Grid, best_matches, whitened_spectra

PAIRS = (*sorted(MASSES, reverse=True), (10.0, 10.0), (7.0, 7.0), (5.0, 5.0))
"""Heavier and lighter, detector frame, solar masses."""

LENGTHS = (0.25, 0.5, 1.0, 1.145, 1.5, 2.0, 4.0)
"""Before the merger, s."""

SERIES_LENGTH = 32.0
"""Of a whole waveform, s: 5 and 5 solar masses take 19 s from 20 Hz on, where it
begins, and 5.4 s from the highpass of 32 Hz on."""

POWER_SHARE = 0.99
"""Share of the SNR that the time in band is counted for."""


def power_before(
    masses: np.ndarray, bank: Bank, geometry: Geometry, length: float = SERIES_LENGTH
) -> np.ndarray:
    """Power of whole whitened mergers from a time before the merger on.

    Args:
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        bank: Whose noise curves whiten them.
        geometry: Sample rate and highpass.
        length: Of the series, s.

    Returns:
        Share of the SNR² from ``i`` samples before the merger on, the ringdown with
        it, [n, merger_size + 1].
    """
    spins = np.zeros(masses.shape)
    spectra = whitened_spectra(masses, spins, bank.settings, geometry, length)
    series = np.fft.irfft(spectra)
    merger_size = round((length - AFTER_MERGER_LENGTH) * geometry.sample_rate)
    after = np.cumsum((series**2)[:, ::-1], 1)[:, ::-1]
    shares: np.ndarray = after[:, merger_size::-1]
    return shares


def measure(
    geometry: Geometry, bank: Bank, pairs: tuple[tuple[float, float], ...] = PAIRS
) -> dict[str, Any]:
    """Measure shares of the SNR, JSON-ready.

    Args:
        geometry: Sample rate and highpass.
        bank: Its templates, at the noise curves that its settings name.
        pairs: Heavier and lighter mass, detector frame, solar masses.

    Returns:
        ``settings``, and ``mergers``: of each pair ``within``, the share of the SNR in
        each of ``LENGTHS``; ``in_band``, the time before the merger, s, from which
        on ``POWER_SHARE`` of the SNR lies; ``own`` and ``bank``, the shares that
        its own truncated template and the bank recover.
    """
    masses = np.array(pairs)
    power = power_before(masses, bank, geometry)
    places = [round(length * geometry.sample_rate) for length in LENGTHS]
    within = np.sqrt(power[:, places])
    in_band = (power < POWER_SHARE**2).sum(1) / geometry.sample_rate
    grid, spins = Grid(bank.settings, geometry), np.zeros(masses.shape)
    signals = grid.transform(grid.signals(masses, spins, SERIES_LENGTH))
    own = grid.match(signals, grid.transform(grid.templates(masses, spins))).amax(0)
    factors = best_matches(grid, signals, bank).mean(0)
    settings = bank.settings
    return {
        "runs": list(settings.runs),
        "highpass": geometry.highpass,
        "kernel_length": geometry.kernel_length,
        "before_length": settings.before_length,
        "after_length": settings.after_length,
        "max_frequency": settings.max_frequency,
        "bank": bank.digest,
        "lightest_template": float(chirp_mass(*bank.masses[:1].T)[0]),
        "mergers": [
            {
                "mass_1": mass_1,
                "mass_2": mass_2,
                "chirp_mass": float(chirp_mass(*masses.T)[i]),
                "in_band": float(in_band[i]),
                "within": dict(zip(map(str, LENGTHS), within[i].tolist(), strict=True)),
                "own": float(own[i]),
                "bank": float(factors[i]),
            }
            for i, (mass_1, mass_2) in enumerate(pairs)
        ],
    }


def report(result: dict[str, Any]) -> str:
    """Lay out ``measure``'s figures as Markdown."""
    text = (
        f"Share of the SNR above {result['highpass']:g} Hz, per cent, from a time "
        "before the merger to the end of the ringdown: whole IMRPhenomD waveforms "
        f"without spins, whitened by the mean inverse PSD of H1 and L1 in "
        f"{' and '.join(result['runs'])}. *In band*: how long before the merger the "
        f"last {100 * POWER_SHARE:g} % of the SNR begin. *Own template*: what a "
        f"template of the same masses recovers that holds {result['before_length']:g} "
        f"s before the merger and {result['after_length']:g} s after it, up to "
        f"{result['max_frequency']:g} Hz. *Bank*: what the best of the bank's "
        "templates does, the mean over where the merger falls between two outputs; the "
        f"lightest has a chirp mass of {result['lightest_template']:.2f} solar masses. "
        "*Volume*: the cube of it. Figures are rounded down.\n\n"
    )
    heads = [
        "Masses",
        "chirp mass",
        "in band, s",
        *(f"{length:g} s" for length in LENGTHS),
    ]
    heads += ["own template", "bank", "volume"]
    rows = []
    for one in result["mergers"]:
        cells = [f"{one['mass_1']:g}, {one['mass_2']:g}"]
        cells += [f"{one['chirp_mass']:.2f}", f"{one['in_band']:.2f}"]
        shares = [*one["within"].values(), one["own"], one["bank"], one["bank"] ** 3]
        cells += [_percent(share) for share in shares]
        rows.append(cells)
    return text + lay_out(heads, rows)


def _percent(share: float) -> str:
    """Per cent, rounded down: 100.0 is all of it."""
    return f"{math.floor(1000 * share + 1e-3) / 10:.1f}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--checkpoint", default="matched", show_default=True)
def main(folder: Path, checkpoint: str) -> None:
    """Measure how much of a merger's SNR a kernel holds, and write it to FOLDER."""
    torch.set_num_threads(1)
    network, _ = load_checkpoint(find_checkpoint(checkpoint))
    bank = shipped_bank()
    bank = replace(bank, settings=replace(bank.settings, runs=(RUN,)))
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(network.geometry, bank)
    (folder / "kernel_length.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "kernel_length.md").write_text(report(result))
    print(report(result))


if __name__ == "__main__":
    main()
