"""Sensitive volume and distance of a search, by importance sampling of injections.

Injections are drawn from one population. The sensitive volume for another population
follows by weighting each found injection with the ratio of the two populations'
densities at its parameters. Draws rejected for a low SNR count as missed.
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
"""Central component masses of the target populations, solar masses, source frame."""

MASS_WIDTH = 0.1
"""Standard deviation of a component mass's logarithm in a target population."""

REDSHIFTS = 2001
"""Number of grid points for integrals over redshift."""


@dataclass(frozen=True)
class Population:
    """Population that a set of injections was drawn from.

    Redshifts are uniform in comoving volume (astropy's Planck18). Component masses are
    independent of redshift, and the heavier one comes first.

    Attributes:
        min_mass, max_mass: Range of component masses, solar masses.
        mass_distribution: Distribution of each component mass, ``uniform`` or
            ``log_uniform``.
        source_frame: Whether the population's masses are in the source frame; if not,
            they are in the detector frame, larger by 1 + redshift.
        reference_share: Fraction of the draws that have exactly ``reference_masses``;
            they carry no information on other masses.
        reference_masses: Heavier and lighter mass, solar masses, in the same frame.
        max_redshift: Largest redshift.
        time_dilation: Whether redshifts are also weighted by 1 / (1 + redshift), so
            that they are uniform in source-frame time.
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
    """Sensitive comoving volume of a search for one target population.

    The expected number of mergers found is the volume times the livetime and the
    source-frame rate density. The time-dilation factor 1 / (1 + z) is part of the
    volume.

    Attributes:
        volume: Sensitive volume, Mpc^3.
        volume_error: Standard deviation of the volume, Mpc^3.
        distance: Sensitive distance, the radius of a Euclidean ball with this volume,
            Mpc.
        distance_error: Standard deviation of the distance, Mpc; infinite without found
            injections.
        found: Number of found injections with a weight above 0.
        effective: Effective number of found injections, (Σw)² / Σw² (Kish).
        covered: Fraction of the target population, up to the largest redshift, whose
            masses lie within the injected range. Below 1, the volume is too small by
            about this factor.
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
    """Estimate the sensitive volume for mergers with masses around a given pair.

    In the target population, each component mass is log-normal around the pair's, in
    the source frame, and redshifts are uniform in comoving volume and source-frame
    time. The estimate is the mean weight over all draws, where missed and rejected
    draws have weight 0; its variance is that of the mean (Tiwari 2018,
    arXiv:1712.00482; Farr 2019, arXiv:1904.10879).

    Args:
        population: Population that the injections were drawn from.
        draws: Number of draws, including those rejected for a low SNR.
        mass_1: Heavier mass of each found injection, solar masses, detector frame,
            [found].
        mass_2: Lighter mass of each found injection, likewise, [found].
        redshift: Redshift of each found injection, [found].
        pair: Central component masses, solar masses, source frame.

    Raises:
        StatisticsError: There are no draws, a redshift lies outside the population, or
            all injections have the same masses.
    """
    if not draws > 0:
        raise StatisticsError(
            f"sensitive volume: expected more than 0 draws, found {draws:g}"
        )
    if population.reference_share >= 1 or population.min_mass >= population.max_mass:
        raise StatisticsError(
            "sensitive volume: expected injections with different masses, found a "
            "single pair of masses; draw them with --reference-share below 1"
        )
    z = np.asarray(redshift, dtype=np.float64)
    masses = np.stack([np.asarray(m, dtype=np.float64) for m in (mass_1, mass_2)])
    if ((z <= 0) | (z > population.max_redshift * (1 + 1e-9))).any():
        raise StatisticsError(
            f"sensitive volume: expected redshifts above 0 and up to "
            f"{population.max_redshift:g}, found {z.min():g} to {z.max():g}"
        )
    grid, density = _density(population.max_redshift)
    weights = draws * volume_per_injection(population, draws, z)
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


def volume_per_injection(
    population: Population, draws: float, redshift: ArrayLike
) -> NDArray[np.float64]:
    """Volume that each found injection represents, for the injected population.

    Args:
        population: Population that the injections were drawn from.
        draws: Number of draws, including those rejected for a low SNR.
        redshift: Redshift of each found injection, [found].

    Returns:
        Comoving volume times the time-dilation factor 1 / (1 + z), Mpc^3, [found]. The
        sum is the sensitive volume for the injected population.
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
    """Ratio of the target's to the injected population's density of the masses."""
    source = masses / (1 + redshift)
    frame = source if population.source_frame else masses
    low, high = population.min_mass, population.max_mass
    if population.mass_distribution == "uniform":
        drawn = np.full(frame.shape, 1 / (high - low))
    else:
        drawn = 1 / (frame * math.log(high / low))
    # The factor 2, as two masses drawn in either order are sorted.
    density = (1 - population.reference_share) * 2 * drawn.prod(0)
    if not population.source_frame:
        # Jacobian from detector-frame to source-frame masses.
        density = density * (1 + redshift) ** 2
    target = sum(
        _log_normal(source[0], first) * _log_normal(source[1], second)
        for first, second in (pair, pair[::-1])
    )
    if population.reference_share:
        heavier, lighter = sorted(population.reference_masses, reverse=True)
        is_reference = np.isclose(frame[0], heavier, rtol=1e-6)
        is_reference &= np.isclose(frame[1], lighter, rtol=1e-6)
        target = np.where(is_reference, 0.0, target)
    weights: NDArray[np.float64] = target / density
    return weights


def _log_normal(mass: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    deviation = np.log(mass / centre) / MASS_WIDTH
    norm = mass * MASS_WIDTH * math.sqrt(2 * math.pi)
    density: NDArray[np.float64] = np.exp(-(deviation**2) / 2) / norm
    return density


@cache
def _density(max_redshift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Redshift grid, and the comoving volume per unit redshift on it, Mpc^3."""
    # Imported here, as it takes half a second and few callers need it.
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
    """Fraction of the target population whose masses lie in the injected range.

    Args:
        population: Population that the injections were drawn from.
        pair: Central component masses of the target, solar masses, source frame.
        grid: Redshifts, [n].
        density: The target's redshift density on the grid, unnormalized, [n].
    """
    to_source = np.ones_like(grid) if population.source_frame else 1 + grid
    fraction = np.ones_like(grid)
    for centre in pair:
        low, high = (
            ndtr(np.log(limit / to_source / centre) / MASS_WIDTH)
            for limit in (population.min_mass, population.max_mass)
        )
        fraction *= high - low
    return _integral(fraction * density, grid) / _integral(density, grid)


def _integral(values: NDArray[np.float64], grid: NDArray[np.float64]) -> float:
    # Imported here: it takes 0.1 s, and every client of the API imports this module.
    from scipy.integrate import simpson

    return float(simpson(values, x=grid))
