"""Placement of a bank's templates.

They are chosen from mergers drawn from the population, so that the mean over the
population of the best match, raised to a power, is as large as a greedy choice makes it
(facility location: Nemhauser, Wolsey and Fisher, Math. Program. 14, 265; a stochastic
bank, arXiv:0908.2090, bounds the worst match instead).
"""

import heapq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chirpwatch.geometry import Geometry
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import (
    chirp_mass,
)
from chirpwatch.train.networks.bank import OVERSAMPLING, SHIFTS, Bank, BankSettings
from chirpwatch.train.networks.templates import MATCH_CHUNK, Grid, lags_between

# What a seed is for: independent draws from the population.
PLACEMENT, JUDGEMENT = range(1, 3)


def draw_mergers(
    count: int, settings: BankSettings, stream: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw mergers from the population.

    Args:
        count: How many.
        settings: The population and the seed.
        stream: ``PLACEMENT`` or ``JUDGEMENT``: independent draws.

    Returns:
        Masses, heavier first, detector frame, solar masses, to 0.001, and aligned
        spins, to 0.0001, each [count, 2].
    """
    rng = np.random.default_rng([settings.seed, stream])
    masses, spins = draw_components(count, settings, rng)
    return masses.round(3), spins.round(4)


def place(settings: BankSettings, geometry: Geometry) -> Bank:
    """Choose the templates of a bank.

    Args:
        settings: Population and number of templates.
        geometry: Sample rate and highpass.

    Returns:
        The bank; the same for the same arguments.

    Raises:
        ConfigurationError: The settings do not go with the geometry.
        StrainError: An observing run has no noise curve.
    """
    grid = Grid(settings, geometry)
    masses, spins = draw_mergers(settings.candidates, settings, PLACEMENT)
    matches = candidate_matches(grid, masses, spins)
    chosen, shifts = choose(matches, settings.templates, settings.emphasis)
    order = np.argsort(chirp_mass(*masses[chosen].T), kind="stable")
    chosen, shifts = chosen[order], shifts[order]
    seen = np.stack(
        [
            matches[lags_between(shift), template]
            for template, shift in zip(chosen, shifts, strict=True)
        ]
    )
    counts = np.bincount(seen.argmax(0).flatten(), minlength=settings.templates)
    return Bank(
        settings,
        masses[chosen],
        spins[chosen],
        shifts / OVERSAMPLING,
        counts / counts.sum(),
    )


def candidate_matches(
    grid: Grid, masses: NDArray[Any], spins: NDArray[Any]
) -> NDArray[Any]:
    """Matches of truncated templates with each other.

    Returns:
        float32, [OVERSAMPLING, templates, signals]: see ``Grid.match``. With the
        order of lags turned around, the same for signals and templates exchanged.
    """
    templates = grid.templates(masses, spins)
    # As a signal, a template has nothing beyond its ends.
    padded = torch.nn.functional.pad(templates, (grid.lag_size, grid.lag_size))
    signals, templates = grid.transform(padded), grid.transform(templates)
    n = len(masses)
    matches = torch.zeros(OVERSAMPLING, n, n)
    back = [-lag % OVERSAMPLING for lag in range(OVERSAMPLING)]
    # Half of it is enough.
    for start in range(0, n, MATCH_CHUNK):
        rows = slice(start, start + MATCH_CHUNK)
        for column in range(min(start + MATCH_CHUNK, n)):
            found = grid.match(signals[rows], templates[column])
            matches[:, column, rows] = found
            matches[:, rows, column] = found[back]
    return matches.numpy()


def choose(
    matches: NDArray[Any], count: int, emphasis: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Choose templates one by one, each time the one that adds most.

    Args:
        matches: As from ``candidate_matches``, [OVERSAMPLING, n, n].
        count: Templates to choose.
        emphasis: What is maximised is the mean over the candidates, and over where
            they fall between two outputs, of their best match to this power.

    Returns:
        Indices in the order in which they were chosen, and the shift of each in lags,
        [count] each: a smaller bank is the beginning of a larger one.
    """
    worth = torch.from_numpy(matches).clamp(max=1) ** emphasis
    best = torch.zeros(OVERSAMPLING, worth.shape[-1])

    def gain(template: int, shift: int) -> float:
        seen = worth[lags_between(shift), template]
        return float((seen - best).clamp(min=0).sum(dtype=torch.float64))

    # What a template adds only becomes less: one that still adds more than the others
    # ever did is the best (M. Minoux, Optimization Techniques, Springer 1978, 234).
    queue = [
        (-gain(template, shift), template, shift)
        for template in range(worth.shape[1])
        for shift in SHIFTS
    ]
    heapq.heapify(queue)
    chosen: dict[int, int] = {}
    while len(chosen) < count:
        _, template, shift = heapq.heappop(queue)
        if template in chosen:
            continue
        found = -gain(template, shift), template, shift
        if queue and found > queue[0]:
            heapq.heappush(queue, found)
            continue
        chosen[template] = shift
        best = torch.maximum(best, worth[lags_between(shift), template])
    return np.array(list(chosen)), np.array(list(chosen.values()))
