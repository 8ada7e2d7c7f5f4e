"""Distance in a mock data challenge: ``python -m benchmarks.challenge FOLDER``.

A stand-in for the first set of the machine-learning mock data challenge (Schaefer et
al. 2023, arXiv:2209.11146, and its code, gwastro/ml-mock-data-challenge-1), made with
the project's own simulation:

- Gaussian noise of the design curve aLIGOZeroDetHighPower in H1 and L1;
- mergers without spins, masses uniform in 10 to 50 solar masses in the detector frame,
  isotropic sky and orientation, without cosmology;
- chirp distances with the density of a volume, ``d_c^2``, from 130 to 350 Mpc; the
  distance is ``d_c (M_c / M_0)^(5/6)``, ``M_0`` the chirp mass of 1.4 and 1.4;
- one merger every 24 to 30 s, found by an event within 0.3 s of it.

The waveform is IMRPhenomD; the challenge's is IMRPhenomXPHM with the (2, 2) mode alone.

What differs in method, not in what is estimated: false alarms are counted in timeslides
(``benchmarks.pairs``) in place of 30 days of zero-lag noise; mergers of a network
SNR below 4 are counted as missed, and not injected; and beside the challenge's estimate
of the sensitive volume is one with a control variate, which has the same expectation
and a smaller error: what a search would find that finds exactly the mergers above some
SNR, and whose volume is an integral (``Ideal``).

Writes ``FOLDER/challenge.json`` and ``.md``.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import lalsimulation
import numpy as np
import torch

from benchmarks.markdown import lay_out
from benchmarks.pairs import (
    Events,
    Repository,
    lost_events,
    score_all,
    score_loud,
)
from chirpwatch.background import Background
from chirpwatch.efficiency import match_injections
from chirpwatch.geometry import Geometry
from chirpwatch.shipped import SHIPPED
from chirpwatch.strain import NANOSECONDS
from chirpwatch.train.data.noise.curves import (
    MAX_FREQUENCY,
    SPACING,
)
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.signals.injections import (
    Columns,
    project,
    rejection_batches,
)
from chirpwatch.train.data.signals.population import (
    InjectionSettings,
    draw_masses,
)
from chirpwatch.train.data.signals.waveforms import (
    MIN_FREQUENCY,
    antenna_amplitudes,
    chirp_mass,
    face_on_amplitudes,
    face_on_waveforms,
    sky,
)
from chirpwatch.units import JULIAN_YEAR

MONTH = 30 * 86_400.0
"""The challenge's noise, s."""

RATES = (1000, 100, 10, 1)
"""False alarms a month."""

FLOOR_RATE = 150
"""Rate from which on only loud pairs of kernels are scored; above the second one."""

MASSES = (10.0, 50.0)
CHIRP_DISTANCES = (130.0, 350.0)
REFERENCE_CHIRP_MASS = 1.4 / 2**0.2
SPACING_LENGTHS = (24.0, 30.0)
WINDOW = 0.3
MIN_SNR = 4.0
"""Network SNR above 20 Hz from which a merger is injected."""

STRETCH_LENGTH = 1024
WHOLE_LIVETIME = MONTH / 2
"""Livetime of the slides in which every kernel is scored, s."""

SIGNAL_LENGTH, MERGER_LENGTH = 8.0, 7.5
"""The lightest merger takes 6 s from 20 Hz on."""

FIRST_LENGTH = 24.0
BATCH = 64
WAVEFORM_DISTANCE = 100.0
LOWEST_NOISE = 9.0
"""The curve goes on flat below this frequency, Hz; the challenge's noise ends here."""

REFERENCES = {
    "first version": {100: 2818, 10: 2678, 1: 2547},
    "best published": {100: 2897, 10: 2772, 1: 2632},
}
"""Distances in the challenge's own data, Mpc."""


@cache
def design_curve() -> np.ndarray:
    """The curve aLIGOZeroDetHighPower, 1/sqrt(Hz), at 0, 0.5, …, 1024 Hz."""
    frequencies = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    return np.sqrt(
        [
            lalsimulation.SimNoisePSDaLIGOZeroDetHighPower(max(one, LOWEST_NOISE))
            for one in frequencies
        ]
    )


def face_on_snrs(
    mass_1: torch.Tensor, mass_2: torch.Tensor, lowest: Sequence[float]
) -> np.ndarray:
    """Optimal SNR of face-on mergers overhead of one detector at 1 Mpc.

    Args:
        mass_1: Heavier mass, solar masses, [n].
        mass_2: Lighter mass, solar masses, [n].
        lowest: Frequencies from which the SNR is counted, whole Hz, [k].

    Returns:
        SNR, [k, n].
    """
    # The middles of cells of 1 Hz.
    frequencies = np.arange(min(lowest), MAX_FREQUENCY) + 0.5
    grid = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    asd = np.interp(frequencies, grid, design_curve())
    zeros = torch.zeros(len(mass_1), dtype=torch.float64)
    amplitudes = face_on_amplitudes(
        mass_1, mass_2, zeros, zeros, torch.from_numpy(frequencies)
    )
    power = (2 * WAVEFORM_DISTANCE * amplitudes.numpy() / asd) ** 2
    return np.sqrt([power[:, frequencies > one].sum(1) for one in lowest])


def antenna_factors(angles: Columns, ifos: tuple[str, ...]) -> np.ndarray:
    """Network SNR over that of the merger face-on overhead of one detector, [n]."""
    power = antenna_amplitudes(angles, ifos).abs().square().sum(1)
    factors: np.ndarray = power.double().sqrt().numpy()
    return factors


def distance_limits(chirp_masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest distance of mergers of each chirp mass, Mpc."""
    scale = (chirp_masses / REFERENCE_CHIRP_MASS) ** (5 / 6)
    low, high = CHIRP_DISTANCES
    return low * scale, high * scale


def draw(n: int, geometry: Geometry) -> Columns:
    """Draw mergers.

    Returns:
        Columns [n]: masses, angles, ``distance`` (Mpc), ``snr`` and ``seen_snr``, the
        network SNRs above 20 Hz and above the analysis's lowest frequency.
    """
    settings = InjectionSettings(
        min_mass=MASSES[0], max_mass=MASSES[1], reference_share=0
    )
    mass_1, mass_2 = (one.double() for one in draw_masses(n, settings))
    angles = sky(n)
    # Density d^2: the cube is uniform.
    low, high = (one**3 for one in CHIRP_DISTANCES)
    cubes = low + (high - low) * torch.rand(n, dtype=torch.float64)
    scale = (chirp_mass(mass_1, mass_2) / REFERENCE_CHIRP_MASS) ** (5 / 6)
    distance = cubes ** (1 / 3) * scale
    factors = antenna_factors(angles, geometry.ifos) / distance.numpy()
    lowest = (MIN_FREQUENCY, geometry.highpass)
    snr, seen_snr = torch.from_numpy(face_on_snrs(mass_1, mass_2, lowest) * factors)
    return angles | {
        "mass_1": mass_1,
        "mass_2": mass_2,
        "distance": distance,
        "snr": snr,
        "seen_snr": seen_snr,
    }


def weights(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Volume that each draw stands for if it is found, Mpc^3, before the mean.

    The challenge's: the largest distance grows as the chirp mass to the power 5/6.
    """
    masses = chirp_mass(columns["mass_1"], columns["mass_2"])
    volumes: np.ndarray = 4 / 3 * math.pi * distance_limits(masses)[1] ** 3
    return volumes


def radius(volume: float) -> float:
    """Radius of a ball, Mpc."""
    return float(np.cbrt(3 * volume / (4 * math.pi)))


class Ideal:
    """A search that finds the mergers above a threshold of the SNR, and no other.

    The expectation of the challenge's estimate is an integral over masses, antenna
    factors and distances; the last one is in closed form.

    Args:
        ifos: Detectors.
        lowest: Frequency from which the SNR is counted, Hz.
        masses: Points in each component mass.
        factors: Points in the antenna factor, quantiles of 256 draws each.
    """

    def __init__(
        self,
        ifos: tuple[str, ...],
        lowest: float,
        masses: int = 12,
        factors: int = 2000,
    ) -> None:
        low, high = MASSES
        points = low + (high - low) * (np.arange(masses) + 0.5) / masses
        mass_1, mass_2 = (one.ravel() for one in np.meshgrid(points, points))
        ordered = mass_1 >= mass_2
        self.mass_1, self.mass_2 = mass_1[ordered], mass_2[ordered]
        # The other half of the square is folded onto this one.
        share = np.where(self.mass_1 == self.mass_2, 1.0, 2.0)
        self.share = share / share.sum()
        self.snrs = face_on_snrs(
            torch.from_numpy(self.mass_1), torch.from_numpy(self.mass_2), [lowest]
        )[0]
        drawn = np.sort(antenna_factors(sky(256 * factors), ifos))
        self.factors = drawn.reshape(factors, -1).mean(1)
        masses_c = chirp_mass(self.mass_1, self.mass_2)
        self.nearest, self.farthest = distance_limits(masses_c)

    def volume(self, threshold: float) -> float:
        """Expectation of the challenge's estimate of the volume, Mpc^3."""
        horizons = self.snrs[:, None] * self.factors / threshold
        near, far = self.nearest[:, None] ** 3, self.farthest[:, None] ** 3
        found = (np.clip(horizons**3, near, far) - near) / (far - near)
        balls = 4 / 3 * math.pi * self.farthest**3
        return float((self.share * balls * found.mean(1)).sum())


@dataclass(frozen=True, eq=False)
class Foreground:
    """What the search makes of the mergers.

    Attributes:
        columns: Parameters of all draws, [n] each.
        statistics: Statistic of each draw's event; -inf without one, and for those
            that were not injected, [n].
        injected: How many were.
        livetime: Strain with mergers, s.
    """

    columns: dict[str, np.ndarray]
    statistics: np.ndarray
    injected: int
    livetime: float


def inject(
    repository: Repository, mergers: Columns, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Add mergers to noise, and search it.

    Returns:
        Statistic of each merger's event, -inf without one, [n]; and the strain
        searched, s.
    """
    statistics = []
    length = 0
    for columns in _stretches(mergers, rng):
        strain = noise(repository.geometry, rng)
        times = columns.pop("time").numpy()
        for begin in range(0, len(times), BATCH):
            batch = slice(begin, begin + BATCH)
            one = {name: column[batch] for name, column in columns.items()}
            add_mergers(strain, one, times[batch], repository.geometry)
        statistics.append(search(repository, strain, times))
        length += STRETCH_LENGTH
    return np.concatenate(statistics), float(length)


def _stretches(mergers: Columns, rng: np.random.Generator) -> Iterator[Columns]:
    """Columns of the mergers of each stretch, with their ``time``, s from its start."""
    count, begin = len(mergers["distance"]), 0
    while begin < count:
        spacings = rng.uniform(*SPACING_LENGTHS, STRETCH_LENGTH)
        times = FIRST_LENGTH + np.cumsum(spacings) - spacings[0]
        # No further score is as late as a merger's, and none of its events is cut.
        times = times[times < STRETCH_LENGTH - FIRST_LENGTH][: count - begin]
        batch = slice(begin, begin + len(times))
        columns = {name: column[batch] for name, column in mergers.items()}
        yield columns | {"time": torch.from_numpy(times)}
        begin += len(times)


def noise(geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Draw a stretch of noise, float64, [ifos, size]."""
    rate = geometry.sample_rate
    asd = design_curve()[: rate + 1]
    size = STRETCH_LENGTH * rate
    return np.stack([coloured_noise(asd, size, rate, rng) for _ in geometry.ifos])


def add_mergers(
    strain: np.ndarray, mergers: Columns, times: np.ndarray, geometry: Geometry
) -> None:
    """Add mergers to strain, in place.

    Args:
        strain: [ifos, size].
        mergers: Columns [n].
        times: When they reach the first detector, s from the start, rounded here to
            whole samples, [n].
        geometry: The analysis.
    """
    rate = geometry.sample_rate
    size, merger_size = round(SIGNAL_LENGTH * rate), round(MERGER_LENGTH * rate)
    zeros = torch.zeros(len(times), dtype=torch.float64)
    waveforms = face_on_waveforms(
        mergers["mass_1"], mergers["mass_2"], zeros, zeros, size, merger_size, rate
    )
    waveforms = waveforms * (WAVEFORM_DISTANCE / mergers["distance"])[:, None]
    signals = project(waveforms, mergers, geometry.ifos, rate)[0].numpy()
    starts = np.rint(times * rate).astype(int) - merger_size
    for start, signal in zip(starts, signals, strict=True):
        strain[:, start : start + size] += signal


def search(repository: Repository, strain: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Statistics of the events that belong to mergers; -inf for those missed, [n]."""
    frames = repository.frames(strain)
    outputs = ["peak", "peak_stride", "peak_delay", "peak_is_event"]
    peak, stride, delay, event = (
        one[0] for one in repository.score_slides(frames, [0], outputs)
    )
    found = (stride + 1) * repository.geometry.stride_length - delay
    matched = match_injections(
        (times * NANOSECONDS).astype(np.int64),
        (found[event] * NANOSECONDS).astype(np.int64),
        peak[event],
        WINDOW,
    )
    statistics: np.ndarray = np.append(peak[event], -np.inf)[matched]
    return statistics


def simulate_foreground(repository: Repository, wanted: int, seed: int) -> Foreground:
    """Draw mergers until enough are loud enough, inject these and search them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = list(
            rejection_batches(
                lambda n: draw(n, repository.geometry), wanted, MIN_SNR, 256
            )
        )
    loud, faint = (
        {
            name: torch.cat([one[part][name] for one in batches])
            for name in batches[0][0]
        }
        for part in (0, 1)
    )
    rng = np.random.default_rng([seed, 1])
    statistics, livetime = inject(repository, loud, rng)
    missed = np.full(len(faint["snr"]), -np.inf)
    return Foreground(
        {name: torch.cat([loud[name], faint[name]]).numpy() for name in loud},
        np.concatenate([statistics, missed]),
        wanted,
        livetime,
    )


@dataclass(frozen=True)
class Estimate:
    """A sensitive distance.

    Attributes:
        distance: Mpc.
        error: Its standard deviation from the number of draws, Mpc.
    """

    distance: float
    error: float


def estimate(values: np.ndarray, known: float = 0.0) -> Estimate:
    """Distance from the mean of volumes.

    Args:
        values: Volume of each draw, or its difference to the control variate's, Mpc^3,
            [n].
        known: Expectation of the control variate, Mpc^3.
    """
    volume = known + float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    distance = radius(volume)
    return Estimate(distance, distance * error / (3 * volume))


def controlled(
    foreground: Foreground, threshold: float, ideal: Ideal
) -> tuple[Estimate, float]:
    """Distance with the control variate that leaves the smallest variance.

    Args:
        foreground: Mergers, and what the search makes of them.
        threshold: Statistic from which a merger is found.
        ideal: Search whose SNR is ``seen_snr``.

    Returns:
        The estimate, and the threshold of the ideal search, an SNR.
    """
    balls, snrs = weights(foreground.columns), foreground.columns["seen_snr"]
    found = foreground.statistics >= threshold
    thresholds = np.arange(5, 12, 0.1)
    differences = [balls * (found * 1.0 - (snrs >= snr)) for snr in thresholds]
    best = int(np.argmin([one.var() for one in differences]))
    snr = float(thresholds[best])
    return estimate(differences[best], ideal.volume(snr)), snr


def measure_rate(
    rate: int,
    events: Events,
    stretches: int,
    foreground: Foreground,
    ideal: Ideal,
    geometry: Geometry,
) -> dict[str, Any]:
    """Distance at a false-alarm rate, JSON-ready.

    The background's interval has the distances at the thresholds that a standard error
    of the false-alarm rate more and less would have given.
    """
    background = Background.of(events.statistics, events.livetime)
    threshold = background.threshold_at_far(rate / MONTH * JULIAN_YEAR)
    count = background.count(threshold)
    error = events.rate_error(threshold, stretches) if count else math.inf
    ranks = [count * math.exp(sign * error) for sign in (-1, 1)]
    limits = [
        background.at_rank(round(min(max(rank, 1), background.size))) for rank in ranks
    ]
    plain = weights(foreground.columns) * (foreground.statistics >= threshold)
    challenge = estimate(plain)
    best, snr = controlled(foreground, threshold, ideal)
    ends = [controlled(foreground, one, ideal)[0].distance for one in limits]
    return {
        "false_alarms_a_month": rate,
        "threshold": threshold,
        "events": count,
        "causes": events.slides(geometry).causes(threshold),
        "rate_error": error,
        "livetime": events.livetime,
        "found": int((foreground.statistics >= threshold).sum()),
        "distance": best.distance,
        "injections_error": best.error,
        "background_interval": sorted(ends),
        "control_snr": snr,
        "challenge_distance": challenge.distance,
        "challenge_error": challenge.error,
    }


def measure(path: Path, injections: int, stretches: int, seed: int) -> dict[str, Any]:
    """Simulate, search and judge, JSON-ready.

    Args:
        path: Model repository.
        injections: Mergers to inject.
        stretches: Stretches of background.
        seed: Seed of everything that is drawn.
    """
    begin = time.process_time()
    repository = Repository(path)
    geometry = repository.geometry
    rng = np.random.default_rng([seed, 0])
    frames = [repository.frames(noise(geometry, rng)) for _ in range(stretches)]
    whole = score_all(repository, frames, WHOLE_LIVETIME)
    quiet = Background.of(whole.statistics, whole.livetime)
    floor = quiet.threshold_at_far(FLOOR_RATE / MONTH * JULIAN_YEAR)
    loud = score_loud(repository, frames, floor)
    del frames
    foreground = simulate_foreground(repository, injections, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen, entire = (
            Ideal(geometry.ifos, lowest)
            for lowest in (geometry.highpass, MIN_FREQUENCY)
        )
    expected, lost = lost_events(whole, loud, floor)
    return {
        "model": repository.digest,
        "seed": seed,
        "geometry": json.loads(geometry.to_json()),
        "draws": len(foreground.statistics),
        "injections": injections,
        "min_snr": MIN_SNR,
        "injections_livetime": foreground.livetime,
        "noise_length": stretches * STRETCH_LENGTH,
        "floor": floor,
        "events_above_floor": expected,
        "events_lost": lost,
        "ideal_at_snr_8": {
            "20": radius(entire.volume(8.0)),
            f"{geometry.highpass:g}": radius(seen.volume(8.0)),
        },
        "rates": [
            measure_rate(
                rate,
                whole if rate > FLOOR_RATE else loud,
                stretches,
                foreground,
                seen,
                geometry,
            )
            for rate in RATES
        ],
        "references": REFERENCES,
        "processor_seconds": time.process_time() - begin,
    }


def table(result: dict[str, Any]) -> str:
    """Lay the figures out as Markdown."""
    names = list(REFERENCES)
    heads = ["False alarms a month", "distance, Mpc", "challenge's estimate, Mpc"]
    heads += ["events (causes)", "found", *names]
    rows = []
    for one in result["rates"]:
        rate = one["false_alarms_a_month"]
        low, high = one["background_interval"]
        others = [str(REFERENCES[name].get(rate, "n/a")) for name in names]
        rows.append(
            [
                f"{rate}",
                f"{one['distance']:.0f} ± {one['injections_error']:.0f} "
                f"({low:.0f} to {high:.0f})",
                f"{one['challenge_distance']:.0f} ± {one['challenge_error']:.0f}",
                f"{one['events']} ({one['causes']})",
                f"{one['found']}",
                *others,
            ]
        )
    ideal = ", ".join(
        f"{distance:.0f} Mpc above {lowest} Hz"
        for lowest, distance in result["ideal_at_snr_8"].items()
    )
    months = result["rates"][-1]["livetime"] / MONTH
    return "\n".join(
        [
            lay_out(heads, rows),
            f"{result['draws']} mergers were drawn, and {result['injections']} of a "
            f"network SNR of at least {result['min_snr']:g} injected. Background: "
            f"{result['noise_length']} s of noise of each detector, in timeslides of "
            f"{months:.1f} months. Errors are standard errors from the number of "
            "mergers; in brackets, the distances if the rate of false alarms were one "
            "standard error higher or lower, from its scatter between stretches. "
            f"{result['events_lost']} of {result['events_above_floor']} events "
            "were lost to the preselection. A search that finds exactly the mergers "
            f"above SNR 8: {ideal}.",
            "",
        ]
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=SHIPPED,
    show_default=True,
    help="Exported models.",
)
@click.option("--injections", default=1500, show_default=True, help="Mergers.")
@click.option(
    "--stretches", default=20, show_default=True, help="Of 1024 s, for the background."
)
@click.option("--seed", default=1, show_default=True, help="Of all that is drawn.")
def main(
    folder: Path, repository: Path, injections: int, stretches: int, seed: int
) -> None:
    """Measure the sensitive distance of an exported model."""
    torch.set_num_threads(1)
    result = measure(repository, injections, stretches, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "challenge.json").write_text(json.dumps(result, indent=2) + "\n")
    text = table(result)
    (folder / "challenge.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
