"""The template bank of the network's matched filters, and its JSON file.

Templates are whitened mergers with aligned spins, truncated to about a second around
the merger. ``placement`` chooses their masses and spins; ``templates`` computes them.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import ConfigurationError
from chirpwatch.train.data.signals.waveforms import (
    chirp_mass,
)

SERIES_LENGTH, MERGER_LENGTH = 4.0, 3.0
"""Length of a template's series before truncation, and its merger time, s."""

AFTER_MERGER_LENGTH = SERIES_LENGTH - MERGER_LENGTH
"""Length of any series after its merger, s."""

OVERSAMPLING = 4
"""Lags per filter output. A merger may fall between two outputs, so matches are
computed at this many places in between."""

SHIFTS = (0, OVERSAMPLING // 2)
"""Allowed delays of a template's outputs against those of an unshifted one, lags."""

MASS_LIMITS = (5.0, 200.0)
"""Allowed component masses, solar masses. Lighter mergers last longer than a signal's
series; heavier ones end below 32 Hz."""

MOST_CANDIDATES = 8000
"""Largest number of candidates, whose matrix of matches takes 1 GB."""


@dataclass(frozen=True)
class BankSettings:
    """Settings of a bank: population, placement, and truncation of the templates.

    Attributes:
        templates: Number of templates in the bank.
        candidates: Number of mergers drawn from the population, among which the
            templates are chosen.
        min_mass, max_mass: Range of the component masses, detector frame, solar
            masses.
        max_spin: Largest dimensionless spin, see ``draw_components``; templates have
            only the aligned components.
        logarithmic_share: Share of the mergers with log-uniform masses; the others' are
            uniform.
        mass_flattening: Flattening of the log chirp mass, see ``draw_components``.
        before_length, after_length: Length of a truncated template before and after its
            merger, s.
        max_frequency: Highest frequency of a template, Hz.
        runs: Observing runs. The inverse PSDs of their noise curves are averaged over
            runs and over H1 and L1.
        emphasis: The placement maximises the mean of the match to this power. With 3,
            this is the mean sensitive volume, which grows as the recovered SNR cubed.
        seed: Seed from which candidates are drawn.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    templates: int = 256
    candidates: int = 4000
    min_mass: float = 5.0
    max_mass: float = 200.0
    max_spin: float = 0.9
    logarithmic_share: float = 0.7
    mass_flattening: float = 0.2
    before_length: float = 1.145
    after_length: float = 0.055
    max_frequency: float = 450.0
    runs: tuple[str, ...] = ("O3", "O4")
    emphasis: float = 3.0
    seed: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type not in (int, float):
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigurationError(
                    f"bank: expected a finite number as {field.name}, found {value!r}"
                )
            if field.type is int and value != int(value):
                raise ConfigurationError(
                    f"bank: expected a whole number as {field.name}, found {value!r}"
                )
            # Equal settings need equal JSON, whether a mass is given as 5 or 5.0.
            object.__setattr__(self, field.name, field.type(value))
        lightest, heaviest = MASS_LIMITS
        checks = {
            "templates of 1 or more": self.templates >= 1,
            f"candidates between the number of templates and {MOST_CANDIDATES}": (
                self.templates <= self.candidates <= MOST_CANDIDATES
            ),
            f"{lightest:g} <= min_mass < max_mass <= {heaviest:g}": (
                lightest <= self.min_mass < self.max_mass <= heaviest
            ),
            "max_spin between 0 and 0.99": 0 <= self.max_spin <= 0.99,
            "logarithmic_share between 0 and 1": 0 <= self.logarithmic_share <= 1,
            "mass_flattening between 0 and 1": 0 <= self.mass_flattening <= 1,
            "before_length above 0 and at most 2.5": 0 < self.before_length <= 2.5,
            "after_length above 0 and at most 0.5": 0 < self.after_length <= 0.5,
            "max_frequency above 0": self.max_frequency > 0,
            "one or more runs, none of them twice": (
                0 < len(self.runs) == len(set(self.runs))
            ),
            "emphasis between 1 and 100": 1 <= self.emphasis <= 100,
            "seed of 0 or more": self.seed >= 0,
        }
        for rule, kept in checks.items():
            if not kept:
                raise ConfigurationError(f"bank: expected {rule}; found {self}")


@dataclass(frozen=True, eq=False)
class Bank:
    """Template bank, sorted by chirp mass.

    Attributes:
        settings: Population, placement and truncation.
        masses: Heavier and lighter, detector frame, solar masses, [templates, 2].
        spins: Dimensionless aligned spins, [templates, 2].
        shift: Delay of each template's outputs against those of an unshifted one, as a
            fraction of the time between two outputs: 0 or 1/2, [templates].
        share: Share of the population that matches each template best, [templates].

    Raises:
        ConfigurationError: A shape differs from the settings, or a value is out of
            its range.
    """

    settings: BankSettings
    masses: NDArray[Any]
    spins: NDArray[Any]
    shift: NDArray[Any]
    share: NDArray[Any]

    def __post_init__(self) -> None:
        n = self.settings.templates
        shapes = {"masses": (n, 2), "spins": (n, 2), "shift": (n,), "share": (n,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ConfigurationError(
                    f"bank: expected {name} of shape {shape}, all finite, found shape "
                    f"{array.shape}"
                )
        checks = {
            "the heavier mass first": (self.masses[:, 0] >= self.masses[:, 1]).all(),
            "masses above 0": (self.masses > 0).all(),
            "spins between -1 and 1": (np.abs(self.spins) < 1).all(),
            "templates sorted by chirp mass": (
                (np.diff(chirp_mass(*np.abs(self.masses).T)) >= 0).all()
            ),
            "shifts of 0 or 1/2": (np.isin(self.shift * OVERSAMPLING, SHIFTS).all()),
            "shares of 0 or more that sum to 1": (
                (self.share >= 0).all() and math.isclose(self.share.sum(), 1)
            ),
        }
        for rule, kept in checks.items():
            if not kept:
                raise ConfigurationError(
                    f"bank: expected {rule}, found arrays that break this rule. Make "
                    "the bank again with 'chirpwatch train bank'"
                )

    def to_json(self) -> str:
        """Canonical JSON: equal banks give equal text."""
        content = {"settings": asdict(self.settings)} | {
            name: getattr(self, name).tolist() for name in ARRAYS
        }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what ``to_json`` wrote.

        Raises:
            ConfigurationError: The text is not JSON, or does not hold exactly the
                fields of a valid bank.
        """
        try:
            content: dict[str, Any] = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"bank: expected JSON: {error}") from None
        expected = {"settings", *ARRAYS}
        if not isinstance(content, dict) or set(content) != expected:
            raise ConfigurationError(
                f"bank: expected the fields {sorted(expected)}, found {text[:80]!r}"
            )
        try:
            settings = content["settings"]
            settings = BankSettings(**settings | {"runs": tuple(settings["runs"])})
            arrays = [np.array(content[name], dtype=np.float64) for name in ARRAYS]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"bank: expected valid settings and arrays of numbers: {error}"
            ) from None
        return cls(settings, *arrays)

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of ``to_json``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


ARRAYS = ("masses", "spins", "shift", "share")


def shipped_bank_path() -> Path:
    """Path of the bank that comes with the project, ``train/banks/shipped.json``."""
    return Path(str(resources.files("chirpwatch.train") / "banks" / "shipped.json"))


def shipped_bank() -> Bank:
    """Bank of the network that comes with the project."""
    return read_bank(shipped_bank_path())


def read_bank(path: str | Path) -> Bank:
    """Read a bank that ``chirpwatch train bank`` wrote.

    Raises:
        ConfigurationError: The file cannot be read, or does not hold a valid bank.
    """
    try:
        return Bank.from_json(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: expected a bank from 'chirpwatch train bank': {error}"
        ) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
