"""How far a search sees: sensitive volume and distance, from injections found.

A set of injections was drawn from one population and speaks for others by importance
weights: each found injection counts by how much more often the other population would
have drawn it. Draws that were too faint to be injected count as missed.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from chirpwatch.errors import StatisticsError

MASS_PAIRS = ((35.0, 35.0), (35.0, 20.0), (20.0, 20.0), (20.0, 10.0))
"""Component masses of the populations asked about, solar masses, source frame."""

MASS_WIDTH = 0.1
"""Standard deviation of the logarithm of each mass about that of its pair."""

REDSHIFTS = 2001
"""Points that integrals over redshift are taken on."""


@dataclass(frozen=True)
class Population:
    """What a set of injections was drawn from.

    Redshifts are uniform in comoving volume (Planck18), and masses independent of them,
    the heavier one first.

    Attributes:
        min_mass, max_mass: Component masses, solar masses.
        mass_distribution: ``uniform`` or ``log_uniform`` in each.
        source_frame: Whether these masses are those in the source's frame; the others
            are what the detectors see, times 1 + redshift.
        reference_share: Share of the draws that have ``reference_masses`` exactly; they
            say nothing of other masses.
        reference_masses: Heavier and lighter, solar masses, in the frame of the others.
        max_redshift: Largest redshift.
        time_dilation: Whether draws are weighted by 1 / (1 + redshift).
    """

    min_mass: float
    max_mass: float
    mass_distribution: Literal["uniform", "log_uniform"]
    source_frame: bool
    reference_share: float
    reference_masses: tuple[float, float]
    max_redshift: float
    time_dilation: bool


@dataclass(frozen=True)
class SensitiveVolume:
    """Comoving volume in which a search sees mergers of one population.

    The volume times observing time and a constant rate density in the source's frame is
    the number that is found; it holds the factor 1 / (1 + z) of their clocks.

    Attributes:
        volume: Mpc^3.
        volume_error: Its standard deviation, Mpc^3.
        distance: Radius of a Euclidean ball of this volume, Mpc.
        distance_error: Its standard deviation, Mpc.
        found: Injections found that the population could have drawn.
        effective: How many draws of the population itself would know the volume as
            well: (sum w)^2 / sum w^2.
        covered: Share of the population, up to the largest redshift, whose masses were
            drawn from; below 1, the volume is too small by about as much.
    """

    volume: float
    volume_error: float
    distance: float
    distance_error: float
    found: int
    effective: float
    covered: float


def sensitive_volume(
    population: Population,
    draws: float,
    mass_1: ArrayLike,
    mass_2: ArrayLike,
    redshift: ArrayLike,
    pair: tuple[float, float],
) -> SensitiveVolume:
    """Sensitive volume for mergers about a pair of masses.

    Both masses are log-normal about the pair's, in the source's frame; redshifts
    uniform in comoving volume and source-frame time. The estimate is the mean of the
    weights over all draws, its variance that of the mean (Tiwari 2018,
    arXiv:1712.00482; Farr 2019, arXiv:1904.10879).

    Args:
        population: What was drawn from.
        draws: Number of draws, those that were too faint to be injected included.
        mass_1: Heavier masses of the injections found, solar masses, detector frame,
            [found].
        mass_2: Lighter ones, [found].
        redshift: Of the injections found, [found].
        pair: Component masses, solar masses, source frame.

    Raises:
        StatisticsError: No draws, a redshift that was not drawn, or a population of
            one pair of masses alone.
    """
    if not draws > 0:
        raise StatisticsError(f"sensitive volume: expected draws, found {draws:g}")
    if population.reference_share >= 1 or population.min_mass >= population.max_mass:
        raise StatisticsError(
            "sensitive volume: expected injections of many masses, found one pair of "
            "masses alone; draw them with --reference-share below 1"
        )
    z = np.asarray(redshift, dtype=np.float64)
    masses = np.stack([np.asarray(m, dtype=np.float64) for m in (mass_1, mass_2)])
    if ((z <= 0) | (z > population.max_redshift * (1 + 1e-9))).any():
        raise StatisticsError(
            f"sensitive volume: expected redshifts above 0 and up to "
            f"{population.max_redshift:g}, found {z.min():g} to {z.max():g}"
        )
    grid, density = _density(population.max_redshift)
    weights = draws * volume_of_each(population, draws, z)
    weights = weights * _mass_weights(population, masses, z, pair)
    volume = float(weights.sum()) / draws
    squares = float((weights**2).sum()) / draws
    error = math.sqrt(max(squares - volume**2, 0.0) / draws)
    distance = (3 * volume / (4 * math.pi)) ** (1 / 3)
    return SensitiveVolume(
        volume=volume,
        volume_error=error,
        distance=distance,
        distance_error=distance * error / (3 * volume) if volume else math.inf,
        found=int(np.count_nonzero(weights)),
        effective=volume**2 / squares * draws if squares else 0.0,
        covered=_covered(population, pair, grid, density / (1 + grid)),
    )


def volume_of_each(
    population: Population, draws: float, redshift: ArrayLike
) -> NDArray[np.float64]:
    """Volume that each found injection stands for, of the masses as they were drawn.

    Args:
        population: What was drawn from.
        draws: Number of draws, those that were too faint to be injected included.
        redshift: Of the injections found, [found].

    Returns:
        Comoving volume, less the dilation of the source's time, Mpc^3, [found]; their
        sum is the sensitive volume.
    """
    z = np.asarray(redshift, dtype=np.float64)
    grid, density = _density(population.max_redshift)
    drawn = density / (1 + grid) if population.time_dilation else density
    dilation = np.ones_like(z) if population.time_dilation else 1 / (1 + z)
    volumes: NDArray[np.float64] = _integral(drawn, grid) * dilation / draws
    return volumes


def _mass_weights(
    population: Population,
    masses: NDArray[np.float64],
    redshift: NDArray[np.float64],
    pair: tuple[float, float],
) -> NDArray[np.float64]:
    """How much more often the pair's population has such masses, per mass squared."""
    source = masses / (1 + redshift)
    frame = source if population.source_frame else masses
    low, high = population.min_mass, population.max_mass
    if population.mass_distribution == "uniform":
        drawn = np.full(frame.shape, 1 / (high - low))
    else:
        drawn = 1 / (frame * math.log(high / low))
    # Of two draws the heavier one comes first, so that either order leads here.
    density = (1 - population.reference_share) * 2 * drawn.prod(0)
    if not population.source_frame:
        density = density * (1 + redshift) ** 2
    wanted = sum(
        _log_normal(source[0], first) * _log_normal(source[1], second)
        for first, second in (pair, pair[::-1])
    )
    if population.reference_share:
        heavier, lighter = sorted(population.reference_masses, reverse=True)
        fixed = np.isclose(frame[0], heavier, rtol=1e-6)
        fixed &= np.isclose(frame[1], lighter, rtol=1e-6)
        wanted = np.where(fixed, 0.0, wanted)
    weights: NDArray[np.float64] = wanted / density
    return weights


def _log_normal(mass: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    deviation = np.log(mass / centre) / MASS_WIDTH
    norm = mass * MASS_WIDTH * math.sqrt(2 * math.pi)
    density: NDArray[np.float64] = np.exp(-(deviation**2) / 2) / norm
    return density


@cache
def _density(max_redshift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Redshifts, and the comoving volume for each unit of them, Mpc^3."""
    # It takes half a second to import, and not everybody asks.
    from astropy.cosmology import Planck18

    grid = np.linspace(0, max_redshift, REDSHIFTS)
    sphere = 4 * math.pi * Planck18.differential_comoving_volume(grid)
    return grid, sphere.to_value("Mpc3 / sr")


def _covered(
    population: Population,
    pair: tuple[float, float],
    grid: NDArray[np.float64],
    density: NDArray[np.float64],
) -> float:
    stretch = np.ones_like(grid) if population.source_frame else 1 + grid
    share = np.ones_like(grid)
    for centre in pair:
        low, high = (
            ndtr(np.log(limit / stretch / centre) / MASS_WIDTH)
            for limit in (population.min_mass, population.max_mass)
        )
        share *= high - low
    return _integral(share * density, grid) / _integral(density, grid)


def _integral(values: NDArray[np.float64], grid: NDArray[np.float64]) -> float:
    # Imported here: it takes 0.1 s, and every client of the API imports this module.
    from scipy.integrate import simpson

    return float(simpson(values, x=grid))
