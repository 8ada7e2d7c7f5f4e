"""Population of mergers: distributions of masses, spins and distances."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from astropy.cosmology import Planck18
from numpy.typing import NDArray
from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicSpline
from torch import Tensor

from chirpwatch.errors import (
    ConfigurationError,
    SignalError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import (
    MAX_FREQUENCY,
    RATE_RULE,
)
from chirpwatch.train.data.signals.waveforms import chirp_mass

OVERDRAW = 20
"""Mergers drawn for each one kept, so that rare chirp masses occur."""

MASS_BINS = 24
"""Bins in the logarithm of the chirp mass that estimate its density."""

MAX_REDSHIFT = 2.0
"""Largest redshift."""

AFTER_MERGER_LENGTH = 0.5
"""Time from a merger to the end of its signal, s."""

VOLUME_POINTS = 1001
"""Grid points of the comoving volume's integral."""


class ComponentRanges(Protocol):
    """Settings of the distribution of component masses and spins."""

    @property
    def min_mass(self) -> float:
        """Smallest component mass, solar masses."""

    @property
    def max_mass(self) -> float:
        """Largest component mass, solar masses."""

    @property
    def logarithmic_share(self) -> float:
        """Share of the mergers with log-uniform masses; the others' are uniform."""

    @property
    def max_spin(self) -> float:
        """Largest dimensionless spin."""

    @property
    def mass_flattening(self) -> float:
        """Exponent, 0 to 1, of the weights that flatten the log chirp mass."""


def draw_components(
    n: int, ranges: ComponentRanges, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw the masses and aligned spins of templates, training and validation signals.

    A share of the masses is log-uniform, the others are uniform. From a larger draw,
    mergers are kept with weights p^-``mass_flattening``, where p is the density of
    their log chirp mass; the exponent 1 makes it uniform, 0 leaves it. Spins have
    isotropic directions; half of their magnitudes are below a quarter of the largest,
    as for the mergers of GWTC-3 (arXiv:2111.03634, section VI).

    Args:
        n: Number of mergers.
        ranges: Ranges of masses and spins.
        rng: Random generator.

    Returns:
        Component masses, heavier first, solar masses, and spin components along the
        orbital angular momentum, each [n, 2].
    """
    low, high, drawn = ranges.min_mass, ranges.max_mass, OVERDRAW * n
    uniform = rng.uniform(low, high, (drawn, 2))
    logarithmic = np.exp(rng.uniform(math.log(low), math.log(high), (drawn, 2)))
    chosen = rng.random((drawn, 1)) < ranges.logarithmic_share
    masses = -np.sort(-np.where(chosen, logarithmic, uniform), 1)
    logarithm = np.log(chirp_mass(*masses.T))
    counts, edges = np.histogram(logarithm, MASS_BINS)
    place = np.searchsorted(edges[1:-1], logarithm, side="right")
    weights = counts[place] ** -ranges.mass_flattening
    kept = rng.choice(drawn, n, replace=False, p=weights / weights.sum())
    masses = masses[kept]
    # The cosine of the angle between an isotropic direction and an axis is uniform.
    spins = draw_spin_magnitudes(n, ranges, rng) * rng.uniform(-1, 1, (n, 2))
    return masses, spins


def draw_spin_magnitudes(
    n: int, ranges: ComponentRanges, rng: np.random.Generator
) -> NDArray[Any]:
    """Draw dimensionless spin magnitudes, see ``draw_components``, [n, 2]."""
    magnitudes: NDArray[Any] = ranges.max_spin * rng.random((n, 2)) ** 2
    return magnitudes


@dataclass(frozen=True)
class InjectionSettings:
    """Population and times of injections.

    Attributes:
        run: Observing run whose default noise curves define the SNR, see
            ``curves.curve_names``.
        min_mass, max_mass: Range of the component masses, solar masses.
        mass_distribution: ``uniform`` or ``log_uniform`` in each component mass.
        source_frame: Whether masses are in the source frame instead of the detector
            frame; only with ``snr_range`` None.
        reference_share: Share of the mergers with ``reference_masses``.
        reference_masses: Heavier and lighter mass, in the same frame, solar masses.
        approximant: ``IMRPhenomD``, or ``IMRPhenomPv2`` with precessing spins.
        max_spin: Largest dimensionless spin; magnitudes are uniform and directions
            isotropic. IMRPhenomD uses the components along the orbital angular
            momentum.
        snr_range: Range of the uniform network SNR, from which distances follow; None
            for distances uniform in comoving volume.
        min_snr: With ``snr_range`` None: smallest network SNR that is not rejected.
        max_redshift: With ``snr_range`` None: largest redshift.
        time_dilation: With ``snr_range`` None: whether the volume is weighted by
            1 / (1 + redshift), for a constant merger rate in the source frame.
        first_length: Time from the segment's start to the first merger, s.
        spacing_length: Time between mergers, s.
        jitter_length: Largest random displacement of a merger in time, either way, s.
        signal_length: Length of a signal, s; the merger is 1/2 s before its end.
        highpass: Low-frequency cutoff of the SNR, Hz.
        sample_rate: Hz.
        ifos: Detectors.

    Raises:
        ConfigurationError: A value is out of range, or two contradict each other.
    """

    run: str = "O3"
    min_mass: float = 15.0
    max_mass: float = 50.0
    mass_distribution: Literal["uniform", "log_uniform"] = "uniform"
    source_frame: bool = False
    reference_share: float = 0.3
    reference_masses: tuple[float, float] = (35.0, 35.0)
    approximant: Literal["IMRPhenomD", "IMRPhenomPv2"] = "IMRPhenomD"
    max_spin: float = 0.0
    snr_range: tuple[float, float] | None = (5.0, 20.0)
    min_snr: float = 4.0
    max_redshift: float = 1.0
    time_dilation: bool = False
    first_length: float = 44.0
    spacing_length: float = 24.0
    jitter_length: float = 4.0
    signal_length: float = 4.0
    highpass: float = 32.0
    sample_rate: int = 2048
    ifos: tuple[str, ...] = Geometry().ifos

    def __post_init__(self) -> None:
        low, high = self.snr_range or (1.0, 1.0)
        size = self.signal_length * self.sample_rate
        rules = {
            f"a sample rate of {RATE_RULE}": (
                0 < self.sample_rate <= 2 * MAX_FREQUENCY,
                ("sample_rate",),
            ),
            "masses above zero, the smaller first": (
                0 < self.min_mass <= self.max_mass,
                ("min_mass", "max_mass"),
            ),
            "reference masses above zero": (
                min(self.reference_masses) > 0,
                ("reference_masses",),
            ),
            "a reference share from 0 to 1": (
                0 <= self.reference_share <= 1,
                ("reference_share",),
            ),
            "a largest spin from 0 to 0.99": (
                0 <= self.max_spin <= 0.99,
                ("max_spin",),
            ),
            "an SNR range above zero, the smaller first": (
                0 < low <= high,
                ("snr_range",),
            ),
            f"a redshift above 0 and up to {MAX_REDSHIFT:g}": (
                0 < self.max_redshift <= MAX_REDSHIFT,
                ("max_redshift",),
            ),
            "masses in the source frame only with distances uniform in volume": (
                not self.source_frame or self.snr_range is None,
                ("source_frame", "snr_range"),
            ),
            "a spacing above zero and a jitter of zero or more": (
                self.spacing_length > 0 <= self.jitter_length,
                ("spacing_length", "jitter_length"),
            ),
            "signals of a whole number of samples, longer than 0.5 s": (
                self.signal_length > AFTER_MERGER_LENGTH and size == round(size),
                ("signal_length", "sample_rate"),
            ),
        }
        for rule, (kept, names) in rules.items():
            if not kept:
                found = ", ".join(f"{name} {getattr(self, name)}" for name in names)
                raise ConfigurationError(f"mergers: expected {rule}; found {found}")

    @property
    def merger_length(self) -> float:
        """Time from a signal's start to its merger, s."""
        return self.signal_length - AFTER_MERGER_LENGTH


def draw_masses(n: int, settings: InjectionSettings) -> tuple[Tensor, Tensor]:
    """Draw component masses, in the source frame if the settings ask for it.

    Returns:
        Heavier and lighter mass, solar masses, each [n].
    """
    share = torch.rand(n, 2)
    if settings.mass_distribution == "uniform":
        span = settings.max_mass - settings.min_mass
        masses = settings.min_mass + span * share
    else:
        ratio = settings.max_mass / settings.min_mass
        masses = settings.min_mass * ratio**share
    chosen = torch.rand(n) < settings.reference_share
    masses[chosen] = torch.tensor(settings.reference_masses, dtype=masses.dtype)
    heavier, lighter = masses.sort(1, descending=True).values.T
    return heavier, lighter


def draw_spins(n: int, settings: InjectionSettings) -> dict[str, Tensor]:
    """Draw isotropic spins.

    Returns:
        Columns [n]: ``spin_1z`` and ``spin_2z``, along the orbital angular momentum;
        for a precessing approximant also ``spin_1x`` to ``spin_2y``. Empty if
        ``max_spin`` is zero.
    """
    if not settings.max_spin:
        # Nothing is drawn, so that a seed gives the same mergers as before there were
        # spins.
        return {}
    directions = torch.randn(n, 2, 3)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    spins = settings.max_spin * torch.rand(n, 2, 1) * directions
    axes = "xyz" if settings.approximant == "IMRPhenomPv2" else "z"
    return {
        f"spin_{i + 1}{axis}": spins[:, i, "xyz".index(axis)]
        for i in range(2)
        for axis in axes
    }


def draw_redshifts(n: int, settings: InjectionSettings) -> tuple[Tensor, Tensor]:
    """Draw distances uniform in comoving volume (Planck18).

    Returns:
        Redshift, and luminosity distance, Mpc; float64, each [n].
    """
    roots, grid = _volume(settings.max_redshift, settings.time_dilation)
    # In (0, 1]: at distance zero a merger would be infinitely loud.
    share = 1 - torch.rand(n, dtype=torch.float64)
    redshift = np.interp(np.cbrt(share.numpy()), roots, grid)
    distance = Planck18.luminosity_distance(redshift).to_value("Mpc")
    return torch.from_numpy(redshift), torch.from_numpy(distance)


@cache
def _volume(
    max_redshift: float, time_dilation: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cube root of the cumulative distribution of redshift, and the redshift.

    The root is nearly linear, since the volume grows with the cube near zero; so it
    interpolates well.
    """
    grid = np.linspace(0, max_redshift, VOLUME_POINTS)
    density = Planck18.differential_comoving_volume(grid).value
    if time_dilation:
        density = density / (1 + grid)
    below = cumulative_simpson(density, x=grid, initial=0)
    return np.cbrt(below / below[-1]), grid


def redshift_at(distance: NDArray[Any]) -> NDArray[Any]:
    """Redshift at a luminosity distance (Planck18).

    Args:
        distance: Luminosity distance, Mpc, [n].

    Returns:
        Redshift, [n].

    Raises:
        SignalError: A distance is beyond redshift 2.
    """
    grid = np.linspace(0, MAX_REDSHIFT, 2001)
    distances = Planck18.luminosity_distance(grid).to_value("Mpc")
    if distance.max(initial=0) > distances[-1]:
        raise SignalError(
            f"mergers: expected a redshift of at most {MAX_REDSHIFT:g}, found a merger "
            f"at {distance.max():.0f} Mpc, put there by its low SNR; ask for a higher "
            "SNR or lower masses"
        )
    redshift: NDArray[Any] = CubicSpline(distances, grid)(distance)
    return redshift
