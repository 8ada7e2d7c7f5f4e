"""Which mergers there are: masses, spins, distances."""

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

CHOICE = 20
"""Mergers drawn for each that is kept, so that there are enough of the rare ones."""

MASS_BINS = 24
"""Bins in the logarithm of the chirp mass, for its density."""

MAX_REDSHIFT = 2.0
AFTER_MERGER_LENGTH = 0.5
VOLUME_POINTS = 1001


class ComponentRanges(Protocol):
    """Settings that say from which masses and spins mergers are drawn."""

    @property
    def min_mass(self) -> float:
        """Smallest component mass, solar masses."""

    @property
    def max_mass(self) -> float:
        """Largest component mass, solar masses."""

    @property
    def logarithmic_share(self) -> float:
        """Share of the mergers whose masses are uniform in the logarithm."""

    @property
    def max_spin(self) -> float:
        """Largest dimensionless spin."""

    @property
    def mass_flattening(self) -> float:
        """How far the logarithm of the chirp mass is made uniform, 0 to 1."""


def draw_components(
    n: int, ranges: ComponentRanges, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw what templates, training windows and their validation have in common.

    Args:
        n: Number of mergers.
        ranges: Of masses and spins. Masses that are not uniform in the logarithm are
            uniform. Of these mergers, more than are wanted, some are kept: with the
            density of the logarithm of their chirp mass to the power of minus
            ``mass_flattening``. Spins have isotropic directions, and magnitudes half of
            which are below a quarter of the largest, as those of GWTC-3's mergers are
            (arXiv:2111.03634, section VI).
        rng: Where the numbers are from.

    Returns:
        Component masses, heavier first, in the unit of the ranges, and the spins'
        components along the orbit's axis, each [n, 2].
    """
    low, high, drawn = ranges.min_mass, ranges.max_mass, CHOICE * n
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
    """Draw the dimensionless spin magnitudes of ``draw_components``, [n, 2]."""
    magnitudes: NDArray[Any] = ranges.max_spin * rng.random((n, 2)) ** 2
    return magnitudes


@dataclass(frozen=True)
class InjectionSettings:
    """Which mergers are injected, and when.

    Attributes:
        run: Observing run whose noise curves define the SNR: the first of
            ``curves.curve_names`` of each detector.
        min_mass, max_mass: Component masses, solar masses.
        mass_distribution: ``uniform`` or ``log_uniform`` in each component mass.
        source_frame: Whether masses are those in the source's frame; the detectors see
            them times 1 + redshift. Only with distances drawn in volume.
        reference_share: Share of the mergers that have ``reference_masses``.
        reference_masses: Heavier and lighter mass, in the frame of the others.
        approximant: ``IMRPhenomD``, or ``IMRPhenomPv2`` with spins that precess.
        max_spin: Largest dimensionless spin; magnitudes are uniform from zero and
            directions isotropic. IMRPhenomD takes their component along the orbit's
            axis.
        snr_range: Network SNR, drawn uniformly, to which distances are adapted; None
            draws distances uniform in comoving volume instead.
        min_snr: Network SNR below which such draws are rejected.
        max_redshift: Limit of such draws.
        time_dilation: Whether such draws are weighted by 1 / (1 + redshift), as mergers
            at a constant rate in their own time are.
        first_length: First merger after the start of the segment, s.
        spacing_length: Time between mergers, s.
        jitter_length: Each merger is moved by up to this, to both sides, s.
        signal_length: Length of a signal, s; its merger is 1/2 s before its end.
        highpass: Frequency from which the SNR is counted, Hz.
        sample_rate: Hz.
        ifos: Detectors.

    Raises:
        ConfigurationError: A range is empty, or values contradict each other.
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
            "masses in the source frame only with distances drawn in volume": (
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
        """Time from the start of a signal to its merger, s."""
        return self.signal_length - AFTER_MERGER_LENGTH


def draw_masses(n: int, settings: InjectionSettings) -> tuple[Tensor, Tensor]:
    """Draw component masses, in the frame that the settings say.

    Returns:
        The heavier and the lighter, solar masses, each [n].
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
        Columns [n]: ``spin_1z`` and ``spin_2z`` along the orbit's axis, and ``spin_1x``
        … across it where the approximant has them; none where spins are zero.
    """
    if not settings.max_spin:
        # Nothing is drawn: the other columns stay what they were without spins.
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
    """Draw distances uniform in the comoving volume of Planck18.

    Returns:
        Redshift, and the luminosity distance that belongs to it, Mpc; float64, each
        [n].
    """
    roots, grid = _volume(settings.max_redshift, settings.time_dilation)
    # Without zero, at which a merger would be infinitely loud.
    share = 1 - torch.rand(n, dtype=torch.float64)
    redshift = np.interp(np.cbrt(share.numpy()), roots, grid)
    distance = Planck18.luminosity_distance(redshift).to_value("Mpc")
    return torch.from_numpy(redshift), torch.from_numpy(distance)


@cache
def _volume(
    max_redshift: float, time_dilation: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cube root of the share of mergers below a redshift, and the redshift.

    The root is nearly a straight line: near zero a volume grows with the cube.
    """
    grid = np.linspace(0, max_redshift, VOLUME_POINTS)
    density = Planck18.differential_comoving_volume(grid).value
    if time_dilation:
        density = density / (1 + grid)
    below = cumulative_simpson(density, x=grid, initial=0)
    return np.cbrt(below / below[-1]), grid


def redshift_at(distance: NDArray[Any]) -> NDArray[Any]:
    """Invert the luminosity distance of Planck18.

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
            f"an SNR this low puts a merger at {distance.max():.0f} Mpc, beyond "
            f"redshift {MAX_REDSHIFT:g}; ask for a higher SNR or lower masses"
        )
    redshift: NDArray[Any] = CubicSpline(distances, grid)(distance)
    return redshift
