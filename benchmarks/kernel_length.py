"""SNR lost to the kernel's length: ``python -m benchmarks.kernel_length FOLDER``.

A light merger is in band for longer than the templates. For pairs of masses, measures
the share of the SNR within 0.25 to 4 s before the merger, with complete whitened
IMRPhenomD waveforms without spins; and the share that a truncated template of the same
masses and the bank recover. Writes ``FOLDER/kernel_length.md`` and ``.json``, in ten
seconds of one core.
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
"""Heavier and lighter mass, detector frame, solar masses."""

LENGTHS = (0.25, 0.5, 1.0, 1.145, 1.5, 2.0, 4.0)
"""Times before the merger, s."""

SERIES_LENGTH = 32.0
"""Length of the complete waveforms, s: 5 and 5 solar masses take 19 s from 20 Hz,
where they start, and 5.4 s from the highpass at 32 Hz."""

POWER_SHARE = 0.99
"""Share of the SNR that defines the time in band."""


def power_before(
    masses: np.ndarray, bank: Bank, geometry: Geometry, length: float = SERIES_LENGTH
) -> np.ndarray:
    """Cumulative SNR² of complete whitened mergers, backwards from the ringdown's end.

    Args:
        masses: Heavier and lighter mass, detector frame, solar masses, [n, 2].
        bank: Bank whose noise curves whiten the mergers.
        geometry: Sample rate and highpass.
        length: Length of the series, s.

    Returns:
        Share of the SNR² after sample ``i`` before the merger, ringdown included, [n,
        merger_size + 1].
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
    """Measure shares of the SNR.

    Args:
        geometry: Sample rate and highpass.
        bank: Template bank, and the noise curves of its settings.
        pairs: Heavier and lighter mass, detector frame, solar masses.

    Returns:
        JSON-ready settings, and ``mergers``, for each pair: ``within``, the share of
        the SNR in each of ``LENGTHS``; ``in_band``, the time before the merger after
        which ``POWER_SHARE`` of the SNR accumulates, s; ``own`` and ``bank``, the
        shares that a truncated template of the same masses and the bank recover.
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
    """Format ``measure``'s figures as Markdown."""
    text = (
        f"Share of the SNR above {result['highpass']:g} Hz, per cent, from a time "
        "before the merger to the end of the ringdown: complete IMRPhenomD waveforms "
        f"without spins, whitened by the mean inverse PSD of H1 and L1 in "
        f"{' and '.join(result['runs'])}. *In band*: the time before the merger in "
        f"which the last {100 * POWER_SHARE:g} % of the SNR accumulate. *Own "
        "template*: the share that a template of the same masses recovers, from "
        f"{result['before_length']:g} s before the merger to "
        f"{result['after_length']:g} s after it and up to "
        f"{result['max_frequency']:g} Hz. *Bank*: the share that the bank's best "
        "template recovers, averaged over the merger's time between two outputs; the "
        f"lightest has a chirp mass of {result['lightest_template']:.2f} solar masses. "
        "*Volume*: the cube of *bank*. Figures are rounded down.\n\n"
    )
    heads = [
        "Masses",
        "chirp mass",
        "in band, s",
        *(f"{length:g} s" for length in LENGTHS),
    ]
    heads += ["own template", "bank", "volume"]
    rows = []
    for merger in result["mergers"]:
        cells = [f"{merger['mass_1']:g}, {merger['mass_2']:g}"]
        cells += [f"{merger['chirp_mass']:.2f}", f"{merger['in_band']:.2f}"]
        shares = [*merger["within"].values(), merger["own"], merger["bank"]]
        cells += [_percent(share) for share in (*shares, merger["bank"] ** 3)]
        rows.append(cells)
    return text + lay_out(heads, rows)


def _percent(share: float) -> str:
    """Per cent, rounded down, so that 100.0 means all of it."""
    return f"{math.floor(1000 * share + 1e-3) / 10:.1f}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--checkpoint",
    default="matched",
    show_default=True,
    help="Checkpoint, or name of a shipped one, whose geometry is used.",
)
def main(folder: Path, checkpoint: str) -> None:
    """Measure the share of mergers' SNR that a kernel contains; write it to FOLDER."""
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
