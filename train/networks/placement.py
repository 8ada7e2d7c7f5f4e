"""Placement of a bank's templates.

Templates are chosen from a pool of mergers drawn from the population. A
greedy algorithm maximises the population's mean of the best match, raised to a power
(facility location: Nemhauser, Wolsey and Fisher, Math. Program. 14, 265). A stochastic
bank (arXiv:0908.2090) bounds the worst match instead.
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
from chirpwatch.train.networks.templates import MATCH_CHUNK, Grid, rows_by_place

# Independent random streams of a seed: candidates, and signals to evaluate a bank with.
PLACEMENT, JUDGEMENT = range(1, 3)


def draw_mergers(
    count: int, settings: BankSettings, stream: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw mergers from the population.

    Args:
        count: Number of mergers.
        settings: The population and the seed.
        stream: Random stream, ``PLACEMENT`` or ``JUDGEMENT``.

    Returns:
        Masses, heavier first, detector frame, solar masses, rounded to 0.001; and
        dimensionless aligned spins, rounded to 0.0001; [count, 2] each.
    """
    rng = np.random.default_rng([settings.seed, stream])
    masses, spins = draw_components(count, settings, rng)
    return masses.round(3), spins.round(4)


def place(settings: BankSettings, geometry: Geometry) -> Bank:
    """Make a bank: draw candidates and choose the templates among them.

    Args:
        settings: Population and number of templates.
        geometry: Sample rate and highpass.

    Returns:
        The bank; the same arguments always give the same one.

    Raises:
        ConfigurationError: The settings contradict the geometry; see ``Grid``.
        StrainError: An observing run has no noise curve.
    """
    grid = Grid(settings, geometry)
    masses, spins = draw_mergers(settings.candidates, settings, PLACEMENT)
    matches = candidate_matches(grid, masses, spins)
    chosen, shifts = choose(matches, settings.templates, settings.emphasis)
    order = np.argsort(chirp_mass(*masses[chosen].T), kind="stable")
    chosen, shifts = chosen[order], shifts[order]
    chosen_matches = np.stack(
        [
            matches[rows_by_place(shift), template]
            for template, shift in zip(chosen, shifts, strict=True)
        ]
    )
    best = chosen_matches.argmax(0).flatten()
    counts = np.bincount(best, minlength=settings.templates)
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
    """Compute the matches of all pairs of candidates, truncated as templates.

    Args:
        grid: Grid of the templates.
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].

    Returns:
        float32, [OVERSAMPLING, n templates, n signals]; see ``Grid.match``. Exchanging
        template and signal changes the lag's sign.
    """
    templates = grid.templates(masses, spins)
    # A truncated template that serves as a signal is zero beyond its ends.
    padded = torch.nn.functional.pad(templates, (grid.lag_size, grid.lag_size))
    signals, templates = grid.transform(padded), grid.transform(templates)
    n = len(masses)
    matches = torch.zeros(OVERSAMPLING, n, n)
    back = [-lag % OVERSAMPLING for lag in range(OVERSAMPLING)]
    # The other half of the matrix follows by symmetry.
    for start in range(0, n, MATCH_CHUNK):
        rows = slice(start, start + MATCH_CHUNK)
        for column in range(min(start + MATCH_CHUNK, n)):
            block = grid.match(signals[rows], templates[column])
            matches[:, column, rows] = block
            matches[:, rows, column] = block[back]
    return matches.numpy()


def choose(
    matches: NDArray[Any], count: int, emphasis: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Choose templates greedily, each time the one that raises the objective most.

    The objective is the mean of the best match to the power of ``emphasis``, over
    candidates and over the places between two outputs where a merger may fall.

    Args:
        matches: As from ``candidate_matches``, [OVERSAMPLING, n, n].
        count: Number of templates to choose.
        emphasis: Power of the match.

    Returns:
        Indices of the templates in the order of choice, and their shifts in lags,
        [count] each. A smaller bank is the beginning of a larger one.
    """
    worth = torch.from_numpy(matches).clamp(max=1) ** emphasis
    best = torch.zeros(OVERSAMPLING, worth.shape[-1])

    def gain(template: int, shift: int) -> float:
        gains = worth[rows_by_place(shift), template] - best
        return float(gains.clamp(min=0).sum(dtype=torch.float64))

    # A template's gain never grows as others are chosen (submodularity). So a template
    # is the best if its current gain exceeds the old gains of all others (M. Minoux,
    # Optimization Techniques, Springer 1978, 234).
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
        updated = -gain(template, shift), template, shift
        if queue and updated > queue[0]:
            heapq.heappush(queue, updated)
            continue
        chosen[template] = shift
        best = torch.maximum(best, worth[rows_by_place(shift), template])
    return np.array(list(chosen)), np.array(list(chosen.values()))
