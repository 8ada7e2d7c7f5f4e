"""Sensitivity to higher modes and spins: ``python -m benchmarks.waveforms FOLDER``.

The network is trained, and its bank built, with IMRPhenomD, which has only the (2, 2)
mode and aligned spins. This benchmark scores the same mergers with four approximants of
LALSimulation:

- IMRPhenomD (arXiv:1508.07253), with aligned spins;
- IMRPhenomXHM (arXiv:2001.10914), with aligned spins and higher modes;
- IMRPhenomXP (arXiv:2004.06503), with precessing spins;
- IMRPhenomXPHM (arXiv:2004.06503), with both.

Each signal is scaled to the same network SNR, and added to the same noise at the same
time. Approximants differ in their conventions for phase and time; the noise is rotated
and shifted with the signal, so that equal waveforms get equal noise. Differences of
the efficiency then come from the waveform only, and have paired errors. Writes
``FOLDER/waveforms.md`` and ``.json``, in about five minutes of one core.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import lal
import lalsimulation
import numpy as np
import torch
from torch import Tensor

from benchmarks.markdown import lay_out
from chirpwatch.efficiency import wilson_interval
from chirpwatch.train.data.pool import SCALE
from chirpwatch.train.data.signals.injections import (
    WAVEFORM_DISTANCE,
    network_snr,
    project_polarizations,
)
from chirpwatch.train.data.signals.population import (
    draw_components,
    draw_spin_magnitudes,
)
from chirpwatch.train.data.signals.waveforms import (
    MIN_FREQUENCY,
    WAVEFORM_BATCH,
    antenna_responses,
    chirp_mass,
    place_polarizations,
    sky,
)
from chirpwatch.train.data.windows import BANK_MERGER_LENGTH, WindowMaker
from chirpwatch.train.evaluation.effort import effort_of
from chirpwatch.train.evaluation.scoring import score_windows
from chirpwatch.train.evaluation.thresholds import FalsePositives
from chirpwatch.train.evaluation.validation import RUN, Validation
from chirpwatch.train.networks.bank import (
    AFTER_MERGER_LENGTH,
    Bank,
    BankSettings,
    shipped_bank,
)
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_checkpoint,
)
from chirpwatch.train.networks.templates import (
    LAG_LENGTH,
    Grid,
    best_matches,
    unit_spectra,
    whitening,
)

WAVEFORMS = {
    "IMRPhenomD": False,
    "IMRPhenomXHM": False,
    "IMRPhenomXP": True,
    "IMRPhenomXPHM": True,
}
"""LALSimulation's approximants, and whether they get spins in any direction."""

REFERENCE, COMPLETE = "IMRPhenomD", "IMRPhenomXPHM"
"""Approximant of the training, and the one with all effects."""

CLASSES: dict[str, tuple[float, float] | None] = {
    "35, 35": (35.0, 35.0),
    "20, 10": (20.0, 10.0),
    "100, 30": (100.0, 30.0),
    "150, 150": (150.0, 150.0),
    "population": None,
}
"""Component masses, detector frame, solar masses; None draws from the population."""

SNRS = (8.0, 10.0, 12.0)
RATE = 1e-4
NOISE_MARGIN_LENGTH = 0.25
"""Noise on either side of the kernel, s, so that shifted noise still fills it."""

SEED = 2000
"""Random seed; differs from those of training and validation."""

LENGTHS = ((20.0, 8.0), (10.0, 16.0), (0.0, 32.0))
"""Smallest chirp mass, solar masses, and length of the series, s.

Down to a chirp mass of 4.6, the (2, 2) mode takes less than half of the length from
20 Hz on, and the (4, 4) mode less than the length from 32 Hz on.
"""


@dataclass(frozen=True)
class Mergers:
    """Parameters of mergers.

    Attributes:
        masses: Heavier and lighter mass, detector frame, solar masses, [n, 2].
        spins: Dimensionless spins at 20 Hz, z along the orbital angular momentum, [n,
            2, 3].
        angles: Angles from ``sky``, the inclination at 20 Hz, each [n].
    """

    masses: np.ndarray
    spins: np.ndarray
    angles: dict[str, Tensor]

    def batches(self) -> Iterator[tuple[np.ndarray, float]]:
        """Group mergers by the length of their series.

        Yields:
            Rows of up to ``WAVEFORM_BATCH`` mergers, and the length of their series, s.
        """
        chirp_masses = chirp_mass(*self.masses.T)
        above = math.inf
        for lowest, length in LENGTHS:
            rows = np.flatnonzero((chirp_masses >= lowest) & (chirp_masses < above))
            for start in range(0, len(rows), WAVEFORM_BATCH):
                yield rows[start : start + WAVEFORM_BATCH], length
            above = lowest


@dataclass(frozen=True)
class Waves:
    """Waveforms of mergers with one approximant.

    Attributes:
        polarizations: Spectra of plus and cross for ``WindowMaker.render``, complex64,
            [2, n, bins].
        snrs: Network SNR of the complete signal at 100 Mpc, float64, [n].
        seen: Signal in the first detector, whitened and cut as by ``Grid.signals``,
            complex64, [n, samples].
        first_snrs: SNR in the first detector at 100 Mpc, [n].
    """

    polarizations: Tensor
    snrs: Tensor
    seen: Tensor
    first_snrs: Tensor


def draw(
    pair: tuple[float, float] | None,
    n: int,
    settings: BankSettings,
    rng: np.random.Generator,
) -> Mergers:
    """Draw mergers with isotropic spins, positions and orientations.

    Args:
        pair: Component masses, heavier first; None draws from the population.
        n: Number of mergers.
        settings: Masses of the population, and the distribution of spins.
        rng: Random generator of masses and spins; angles are drawn from PyTorch's.
    """
    masses = np.tile(pair or (0.0, 0.0), (n, 1))
    if pair is None:
        masses, _ = draw_components(n, settings, rng)
    directions = rng.standard_normal((n, 2, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    magnitudes = draw_spin_magnitudes(n, settings, rng)
    return Mergers(masses, magnitudes[..., None] * directions, sky(n))


def generate(
    mergers: Mergers, rows: np.ndarray, name: str, length: float, rate: int
) -> tuple[Tensor, Tensor]:
    """Spectra of both polarizations at 100 Mpc, conditioned by LALSimulation.

    Args:
        mergers: Mergers.
        rows: Rows of the mergers to generate, [k].
        name: Key of ``WAVEFORMS``.
        length: Length of the series, s.
        rate: Sample rate of the series, Hz.

    Returns:
        Plus and cross polarization, strain per Hz, complex128, each [k, bins].
    """
    approximant = lalsimulation.GetApproximantFromString(name)
    axes = np.ones(3) if WAVEFORMS[name] else np.array([0.0, 0.0, 1.0])
    pairs = []
    for row in rows.tolist():
        series = lalsimulation.SimInspiralFD(
            *(mergers.masses[row] * lal.MSUN_SI),
            *(mergers.spins[row] * axes).flatten(),
            WAVEFORM_DISTANCE * 1e6 * lal.PC_SI,
            float(mergers.angles["inclination"][row]),
            float(mergers.angles["phase"][row]),
            *(0.0, 0.0, 0.0),
            1 / length,
            MIN_FREQUENCY,
            rate / 2,
            MIN_FREQUENCY,
            None,
            approximant,
        )
        pairs.append([polarization.data.data for polarization in series])
    plus, cross = torch.from_numpy(np.array(pairs)).transpose(0, 1)
    return plus, cross


def make_waves(mergers: Mergers, name: str, maker: WindowMaker, grid: Grid) -> Waves:
    """Generate mergers, measure their SNR, and cut them for network and bank.

    Args:
        mergers: Mergers.
        name: Key of ``WAVEFORMS``.
        maker: Maker of the network's windows.
        grid: Grid of the bank.
    """
    geometry, rate = maker.geometry, maker.geometry.sample_rate
    n, merger_size = len(mergers.masses), round(BANK_MERGER_LENGTH * rate)
    polarizations = torch.empty(2, n, maker.size // 2 + 1, dtype=torch.complex64)
    snrs, first_snrs = torch.empty(2, n, dtype=torch.float64)
    samples = grid.before_size + grid.after_size + 2 * grid.lag_size
    seen = torch.empty(n, samples, dtype=torch.complex64)
    for rows, length in mergers.batches():
        pair = generate(mergers, rows, name, length, rate)
        angles = {key: column[rows] for key, column in mergers.angles.items()}
        size = round(length * rate)
        complete = place_polarizations(
            *pair, size, size - round(AFTER_MERGER_LENGTH * rate), rate
        )
        strain, _ = project_polarizations(
            complete[0], complete[1], angles, geometry.ifos, rate
        )
        for ifos, target in ((geometry.ifos, snrs), (geometry.ifos[:1], first_snrs)):
            target[rows] = network_snr(
                strain[:, : len(ifos)], RUN, ifos, rate, geometry.highpass
            ).double()
        # Without the light-travel delay, so that the merger's sample does not change.
        first = torch.einsum(
            "pnt,np->nt", complete, _responses(angles, geometry.ifos)[0]
        )
        weight = whitening(grid.settings, geometry, size)
        spectra = unit_spectra(first.numpy(), weight).astype(np.complex64)
        seen[rows] = grid.cut(spectra, length)
        cut = place_polarizations(*pair, maker.size, merger_size, rate)
        # Rolled so that the merger is at the first sample; a phase moves it on.
        spectrum = torch.fft.rfft(cut.roll(-merger_size, -1) * SCALE) / rate
        polarizations[:, rows] = spectrum.to(torch.complex64)
    return Waves(polarizations, snrs, seen, first_snrs)


def _responses(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """Antenna responses, float64, [ifos, n, 2]."""
    return antenna_responses(angles, ifos).double().permute(2, 0, 1)


def whitened(
    maker: WindowMaker, mergers: Mergers, waves: Waves, times: Tensor, rows: Tensor
) -> Tensor:
    """Project mergers of network SNR 1 onto the detectors, and whiten them.

    Args:
        maker: Maker with the noise blocks' filters.
        mergers: Mergers.
        waves: Their waveforms.
        times: Merger times within the kernel, s, [n, ifos].
        rows: Noise block of each detector, [n, ifos].

    Returns:
        Whitened signals, [n, ifos, kernel_size].
    """
    responses = antenna_responses(mergers.angles, maker.geometry.ifos).float()
    plus, cross = (
        maker.render(spectra, response, times, rows)
        for spectra, response in zip(
            waves.polarizations, responses.unbind(1), strict=True
        )
    )
    return (plus + cross) / waves.snrs.float()[:, None, None]


def turn_noise(
    noise: Tensor, reference: Tensor, other: Tensor, sample_rate: int
) -> Tensor:
    """Apply to noise the phase and time shift between two signals.

    A common phase or a time shift leaves the statistics of Gaussian noise unchanged.

    Args:
        noise: Whitened noise with equal margins, [..., size + margins].
        reference: Whitened signal to which the noise belongs, [..., size].
        other: Whitened signal at about the same time, [..., size].
        sample_rate: Hz.

    Returns:
        Noise for ``other``, without margins, [..., size]; unchanged if the two signals
        are equal.
    """
    size, reach = reference.shape[-1], round(LAG_LENGTH * sample_rate)
    first, second = (torch.fft.fft(x, 2 * size) for x in (reference, other))
    product = second * first.conj()
    # Without negative frequencies, the argument at the peak is the phase shift.
    product[..., size:] = 0
    lags = torch.fft.ifft(product).roll(reach, -1)[..., : 2 * reach + 1]
    best = lags.abs().argmax(-1, keepdim=True)
    turns = lags.gather(-1, best).angle()
    bins = torch.arange(noise.shape[-1] // 2 + 1)
    angles = turns - 2 * torch.pi * bins * (best - reach) / noise.shape[-1]
    spectrum = torch.fft.rfft(noise) * torch.polar(torch.ones_like(angles), angles)
    margin = (noise.shape[-1] - size) // 2
    moved: Tensor = torch.fft.irfft(spectrum, noise.shape[-1])
    return moved[..., margin : margin + size]


@torch.inference_mode()
def score(
    validation: Validation, mergers: Mergers, waves: dict[str, Waves]
) -> dict[str, Tensor]:
    """Score mergers at ``SNRS``, with the same noise for all waveforms.

    Args:
        validation: Network and noise.
        mergers: Mergers.
        waves: Their waveforms by approximant. The noise belongs to the first; for the
            others, see ``turn_noise``.

    Returns:
        Scores by approximant, [SNRs, n].
    """
    maker, rate = validation.maker, validation.maker.geometry.sample_rate
    rows = maker.draw_rows(len(mergers.masses))
    noise = maker.noise(rows, round(NOISE_MARGIN_LENGTH * rate))
    times = maker.draw_arrivals(mergers.angles)
    signals = {
        name: whitened(maker, mergers, each, times, rows)
        for name, each in waves.items()
    }
    first = next(iter(signals.values()))
    result = {}
    for name, series in signals.items():
        turned = turn_noise(noise, first, series, rate)
        result[name] = torch.stack(
            [score_windows(validation.network, turned + snr * series) for snr in SNRS]
        )
    return result


def share(hits: np.ndarray) -> dict[str, float]:
    """Share of true values, [n], with its standard error."""
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return {"value": float(hits.mean()), "error": (high - low) / 2}


def mean(values: np.ndarray) -> dict[str, float]:
    """Mean of values, [n], with its standard error."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    return {"value": float(values.mean()), "error": float(error)}


def recovered_fraction(fitting: np.ndarray, snrs: np.ndarray) -> dict[str, float]:
    """Signal recovery fraction: share of the sensitive volume that a bank retains.

    The mean of the cubed fitting factor, each merger weighted by its volume, the cube
    of its SNR at a given distance (Harry, Calderón Bustillo and Nitz,
    arXiv:1709.09181).

    Args:
        fitting: Fitting factors, [n].
        snrs: SNR at a given distance, [n].
    """
    weights = snrs**3 / (snrs**3).sum()
    value = (weights * fitting**3).sum()
    error = math.sqrt((weights**2 * (fitting**3 - value) ** 2).sum())
    return {"value": float(value), "error": error}


def found_at(
    scores: dict[str, Tensor], limits: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """Efficiency of each waveform at each SNR.

    Args:
        scores: Scores by approximant, [SNRs, n].
        limits: Threshold, and the thresholds if √n fewer or more of the n clusters of
            noise were above it.
    """
    result = []
    for index, snr in enumerate(SNRS):
        rows = {name: series[index].numpy() for name, series in scores.items()}
        found = {name: row > limits[0] for name, row in rows.items()}
        result.append(
            {
                "snr": snr,
                "found": {name: share(row) for name, row in found.items()},
                "found_low": {
                    name: float((row > limits[1]).mean()) for name, row in rows.items()
                },
                "found_high": {
                    name: float((row > limits[2]).mean()) for name, row in rows.items()
                },
                "difference": mean(
                    found[COMPLETE].astype(float) - found[REFERENCE].astype(float)
                ),
            }
        )
    return result


def fitting_of(grid: Grid, bank: Bank, waves: list[dict[str, Waves]]) -> list[Any]:
    """Fitting factors of the bank in the first detector, for each class of mergers.

    Args:
        grid: Grid of the bank.
        bank: Template bank.
        waves: Waveforms by approximant, for each class.
    """
    ordered = [each for by_name in waves for each in by_name.values()]
    signals = grid.transform(torch.cat([each.seen for each in ordered]))
    all_factors = best_matches(grid, signals, bank).mean(0)
    ends = np.cumsum([len(each.seen) for each in ordered])[:-1]
    pieces = iter(np.split(all_factors, ends))
    result = []
    for by_name in waves:
        fitting = {name: next(pieces) for name in by_name}
        result.append(
            {
                "fitting": {name: mean(factors) for name, factors in fitting.items()},
                "difference": mean(fitting[COMPLETE] - fitting[REFERENCE]),
                "recovered": {
                    name: recovered_fraction(factors, by_name[name].first_snrs.numpy())
                    for name, factors in fitting.items()
                },
            }
        )
    return result


def measure(checkpoint: str, signals: int, noise_length: float) -> dict[str, Any]:
    """Measure efficiency and fitting factors for each waveform, JSON-ready.

    Args:
        checkpoint: Checkpoint, or name of a shipped one.
        signals: Number of mergers of each class.
        noise_length: Length of each detector's noise, s.
    """
    torch.set_num_threads(1)
    network, _ = load_checkpoint(find_checkpoint(checkpoint))
    effort = replace(effort_of(network, quick=True), bank_size=2, glitch_bank_size=1)
    validation = Validation(network, SEED, effort)
    noise = validation.noise_scores(noise_length, effort.slides)
    geometry, bank = network.geometry, shipped_bank()
    strides = geometry.kernel_size // geometry.stride_size
    false = FalsePositives(noise, torch.empty(0), 0, strides)
    limits = (
        false.threshold(RATE).value,
        false.moved(RATE, -1),
        false.moved(RATE, 1),
    )
    rng, grid = np.random.default_rng(SEED), Grid(bank.settings, geometry)
    found, waves = {}, []
    for label, pair in CLASSES.items():
        mergers = draw(pair, signals, bank.settings, rng)
        waves.append(
            {
                name: make_waves(mergers, name, validation.maker, grid)
                for name in WAVEFORMS
            }
        )
        found[label] = found_at(score(validation, mergers, waves[-1]), limits)
    fitting = dict(zip(CLASSES, fitting_of(grid, bank, waves), strict=True))
    return {
        "checkpoint": checkpoint,
        "bank": bank.digest,
        "seed": SEED,
        "signals": signals,
        "rate": RATE,
        "noise_length": noise_length,
        "noise_windows": noise.numel(),
        "clusters": false.threshold(RATE).above,
        "threshold": limits[0],
        "threshold_low": limits[2],
        "threshold_high": limits[1],
        "found": found,
        "fitting": fitting,
    }


def report(result: dict[str, Any]) -> str:
    """Format ``measure``'s figures as Markdown."""
    names = list(WAVEFORMS)
    text = (
        f"Efficiency at a false-positive rate of {result['rate']:g} per window, per "
        f"cent: {result['signals']} mergers of each class, the same for every waveform "
        "and SNR, one window each. The threshold comes from "
        f"{result['noise_windows']:,} windows of noise with {RUN}'s curves, "
        f"{result['clusters']:.0f} clusters of which exceed it. *Difference* is "
        f"{COMPLETE} minus {REFERENCE}, with the paired error.\n\n"
    )
    heads = ["Masses", "SNR", *names, "difference"]
    rows = []
    for label, entries in result["found"].items():
        for entry in entries:
            cells = [label, f"{entry['snr']:g}"]
            cells += [_percent(entry["found"][name]) for name in names]
            cells.append(_percent(entry["difference"], "+"))
            rows.append(cells)
    text += lay_out(heads, rows) + "\n"
    text += (
        "Fitting factor of the bank for the signal in the first detector, per cent, "
        "the mean over the mergers; and the share of the sensitive volume that the "
        "bank retains (mean cubed fitting factor, weighted by the cube of the SNR at "
        "a given distance).\n\n"
    )
    heads = ["Masses", *names, "difference"]
    heads += [f"volume, {name}" for name in (REFERENCE, COMPLETE)]
    rows = []
    for label, entry in result["fitting"].items():
        cells = [label, *(_percent(entry["fitting"][name]) for name in names)]
        cells.append(_percent(entry["difference"], "+"))
        cells += [_percent(entry["recovered"][name]) for name in (REFERENCE, COMPLETE)]
        rows.append(cells)
    return text + lay_out(heads, rows)


def _percent(figure: dict[str, float], sign: str = "") -> str:
    return f"{100 * figure['value']:{sign}.1f} ± {100 * figure['error']:.1f}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--checkpoint",
    default="matched",
    show_default=True,
    help="Checkpoint, or name of a shipped one.",
)
@click.option(
    "--signals", default=300, show_default=True, help="Mergers of each class."
)
@click.option(
    "--noise-length",
    default=12_000.0,
    show_default=True,
    help="Length of each detector's noise, which sets the threshold, s.",
)
def main(folder: Path, checkpoint: str, signals: int, noise_length: float) -> None:
    """Measure the sensitivity to higher modes and precession; write it to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(checkpoint, signals, noise_length)
    (folder / "waveforms.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "waveforms.md").write_text(report(result))
    print(report(result))


if __name__ == "__main__":
    main()
