"""The bank of templates that the network's matched filters are made from.

Templates are whitened mergers with aligned spins, cut to a second about the merger.
They are chosen from mergers drawn from the population, so that the mean over the
population of the best match, raised to a power, is as large as a greedy choice makes it
(facility location: Nemhauser, Wolsey and Fisher, Math. Program. 14, 265; a stochastic
bank, arXiv:0908.2090, bounds the worst match instead).

Matches are maximised over phase, and over the times of a filter's outputs. A merger may
fall between two of these: matches are computed for several places there, and half of
the templates may have outputs midway between those of the others. Mergers are compared
as complex analytic series: their modulus does not depend on the phase.
"""

import hashlib
import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import (
    chirp_mass,
    face_on_waveforms,
)

SERIES_LENGTH, MERGER_LENGTH = 4.0, 3.0
"""Length of a template's series before it is cut, and where its merger lies, s."""

SIGNAL_LENGTH = 8.0
"""Length of a whole signal, s: 5 and 5 solar masses take 5.4 s from 32 Hz on."""

AFTER_MERGER_LENGTH = SERIES_LENGTH - MERGER_LENGTH
"""What a series of any length has after the merger, s."""

IFOS = ("H1", "L1")
"""Detectors whose noise curves whiten the templates."""

MASS_LIMITS = (5.0, 200.0)
"""Lighter mergers last longer than a signal; heavier ones end below 32 Hz."""

MOST_CANDIDATES = 8000
"""Their matches with one another take 1 GB."""

LAG_LENGTH = 0.05
"""Largest time shift between a template and a signal, s."""

OVERSAMPLING = 4
"""Lags for each sample: places between two outputs at which a merger may fall."""

SHIFTS = (0, OVERSAMPLING // 2)
"""Lags by which a template's outputs may be later than those of an unshifted one."""

WAVEFORM_CHUNK, MATCH_CHUNK = 128, 64
# What a seed is for: independent draws from the population.
PLACEMENT, JUDGEMENT = range(1, 3)


@dataclass(frozen=True)
class BankSettings:
    """The population, and how templates are chosen and cut.

    Attributes:
        templates: Templates in the bank.
        candidates: Mergers drawn from the population that templates are chosen from.
        min_mass, max_mass: Range of the component masses, detector frame, solar
            masses.
        max_spin: Largest dimensionless spin, see
            ``draw_components``; templates have the components along the orbit's axis
            alone.
        logarithmic_share: Share of the mergers whose masses are uniform in the
            logarithm; the others' are uniform.
        mass_flattening: How far the logarithm of the chirp mass is made uniform, see
            ``draw_components``.
        before_length, after_length: What a template keeps before and after its merger,
            s.
        max_frequency: Frequency above which a template has nothing, Hz.
        runs: Observing runs. The inverse PSDs of their noise curves are averaged over
            runs and over H1 and L1.
        emphasis: Power of the match in the mean that the placement maximises; with 3
            it is the mean sensitive volume, which grows as the recovered SNR cubed.
        seed: Seed of the mergers.

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
                    f"bank: expected a number as {field.name}, found {value!r}"
                )
            if field.type is int and value != int(value):
                raise ConfigurationError(
                    f"bank: expected a whole number as {field.name}, found {value!r}"
                )
            # Equal settings have equal JSON: 5 solar masses are 5.0 solar masses.
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
            "runs, none of them twice": 0 < len(self.runs) == len(set(self.runs)),
            "emphasis between 1 and 100": 1 <= self.emphasis <= 100,
            "seed of 0 or more": self.seed >= 0,
        }
        for rule, kept in checks.items():
            if not kept:
                raise ConfigurationError(f"bank: expected {rule}; found {self}")


@dataclass(frozen=True, eq=False)
class Bank:
    """Templates, sorted by chirp mass.

    Attributes:
        settings: How they were chosen, and how they are cut.
        masses: Heavier and lighter, detector frame, solar masses, [templates, 2].
        spins: Dimensionless aligned spins, [templates, 2].
        shift: Part of the time between two outputs by which each template's outputs
            are later than those of an unshifted one, 0 or 1/2, [templates].
        share: Share of the population that matches each template best, [templates].

    Raises:
        ConfigurationError: The arrays contradict one another or the settings.
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
            "shares of 0 or more, 1 together": (
                (self.share >= 0).all() and math.isclose(self.share.sum(), 1)
            ),
        }
        for rule, kept in checks.items():
            if not kept:
                raise ConfigurationError(f"bank: expected {rule}, found otherwise")

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
            ConfigurationError: Not JSON, or not exactly the fields of a bank.
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
                f"bank: expected settings and arrays of numbers: {error}"
            ) from None
        return cls(settings, *arrays)

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of ``to_json``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


ARRAYS = ("masses", "spins", "shift", "share")


def shipped_bank_path() -> Path:
    """File of the bank that comes with the project, ``train/banks/shipped.json``."""
    return Path(str(resources.files("chirpwatch.train") / "banks" / "shipped.json"))


def shipped_bank() -> Bank:
    """Bank of the network that ships."""
    return read_bank(shipped_bank_path())


def read_bank(path: str | Path) -> Bank:
    """Read a bank that ``chirpwatch train bank`` wrote.

    Raises:
        ConfigurationError: There is no such file, or it holds no bank.
    """
    try:
        return Bank.from_json(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: expected a bank: {error}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


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


def whitened_spectra(
    masses: NDArray[Any],
    spins: NDArray[Any],
    settings: BankSettings,
    geometry: Geometry,
    length: float = SERIES_LENGTH,
) -> NDArray[Any]:
    """Whiten mergers with the average noise curve.

    Args:
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].
        settings: Observing runs whose noise curves are averaged.
        geometry: Sample rate, and the frequency below which spectra are zero.
        length: Length of the series, s; at least 2.

    Returns:
        Spectra, complex64, [n, bins], of series of ``length`` at the sample rate
        (``numpy.fft.irfft``). Their sum of squares is 1. The merger lies 1 s
        (``AFTER_MERGER_LENGTH``) before the end: at ``MERGER_LENGTH`` of a series of
        ``SERIES_LENGTH``.

    Raises:
        StrainError: An observing run has no noise curve.
        ConfigurationError: The noise curves do not reach half the sample rate.
    """
    rate = geometry.sample_rate
    size = round(length * rate)
    weight = whitening(settings, geometry, size)
    result = np.empty((len(masses), size // 2 + 1), np.complex64)
    for rows in _chunks(masses):
        (mass_1, mass_2), (spin_1, spin_2) = (
            torch.from_numpy(columns[rows]).double().T for columns in (masses, spins)
        )
        waves = face_on_waveforms(
            mass_1,
            mass_2,
            spin_1,
            spin_2,
            size,
            round((length - AFTER_MERGER_LENGTH) * rate),
            rate,
        )
        result[rows] = unit_spectra(waves.numpy(), weight)
    return result


def unit_spectra(waves: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Spectra of whitened series, so scaled that these have a sum of squares of 1.

    Args:
        waves: Strain, [n, size].
        weight: From ``whitening``, [size // 2 + 1].

    Returns:
        complex128, [n, size // 2 + 1].
    """
    spectra = np.fft.rfft(waves) * weight
    # Parseval: no power at 0 Hz, and none at half the sample rate.
    power = 2 / waves.shape[-1] * (np.abs(spectra) ** 2).sum(1)
    scaled: NDArray[Any] = spectra / np.sqrt(power)[:, None]
    return scaled


def whitening(settings: BankSettings, geometry: Geometry, size: int) -> NDArray[Any]:
    """Root of the inverse PSD, averaged over runs and over H1 and L1.

    Args:
        settings: Observing runs.
        geometry: Sample rate, and the frequency below which nothing passes.
        size: Samples of the series.

    Returns:
        Weight of each bin of its spectrum, float64, [size // 2 + 1].
    """
    rate = geometry.sample_rate
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    inverse = []
    for run in settings.runs:
        for ifo in IFOS:
            asd = read_curve(run, ifo, sample_rate=rate)
            grid = np.linspace(0, rate / 2, len(asd))
            inverse.append(np.interp(frequencies, grid, asd) ** -2)
    weight: NDArray[Any] = np.sqrt(np.mean(inverse, 0))
    weight[frequencies < geometry.highpass] = 0
    weight[-1] = 0
    return weight


def analytic(spectra: NDArray[Any]) -> NDArray[Any]:
    """Complex series whose real part a spectrum is that of.

    Args:
        spectra: As from ``whitened_spectra``, [n, bins].

    Returns:
        Analytic series, complex64, [n, 2 * (bins - 1)]: the imaginary part is the
        wave a quarter of a cycle later.
    """
    size = 2 * (spectra.shape[-1] - 1)
    padded = np.zeros((len(spectra), size), np.complex64)
    padded[:, : spectra.shape[-1]] = 2 * spectra
    series: NDArray[Any] = np.fft.ifft(padded).astype(np.complex64)
    return series


@dataclass(frozen=True)
class Grid:
    """Samples on which matches are computed.

    A complex series without negative frequencies needs no more samples a second than
    its largest frequency.

    Args:
        settings: Cut and largest frequency of the templates.
        geometry: Sample rate and highpass.

    Raises:
        ConfigurationError: The settings do not go with the geometry.
    """

    settings: BankSettings
    geometry: Geometry

    def __post_init__(self) -> None:
        top, geometry = self.settings.max_frequency, self.geometry
        if not geometry.highpass < top < geometry.sample_rate / 2:
            raise ConfigurationError(
                f"bank: expected max_frequency between the highpass of "
                f"{geometry.highpass:g} Hz and half the sample rate, "
                f"{geometry.sample_rate / 2:g} Hz; found {top:g} Hz"
            )
        if self.before_size < 1 or self.after_size < 1:
            raise ConfigurationError(
                f"bank: expected before_length and after_length of "
                f"{1 / self.rate:.2g} s or more; found {self.settings}"
            )

    @property
    def step(self) -> int:
        """Samples of the strain for each sample of this grid."""
        return math.ceil(self.geometry.sample_rate / self.settings.max_frequency) - 1

    @property
    def rate(self) -> float:
        """Samples a second, above ``max_frequency``."""
        return self.geometry.sample_rate / self.step

    @property
    def before_size(self) -> int:
        """Samples of a template before its merger."""
        return round(self.settings.before_length * self.rate)

    @property
    def after_size(self) -> int:
        """Samples of a template from its merger on."""
        return round(self.settings.after_length * self.rate)

    @property
    def lag_size(self) -> int:
        """Samples by which a signal is longer than a template, at each end."""
        return round(LAG_LENGTH * self.rate)

    @property
    def fft_size(self) -> int:
        """Samples of a transform that holds such a signal."""
        return int(
            next_fast_len(self.before_size + self.after_size + 2 * self.lag_size)
        )

    def signals(
        self,
        masses: Float[NDArray[Any], "n 2"],
        spins: Float[NDArray[Any], "n 2"],
        length: float,
    ) -> Complex[Tensor, "n time"]:
        """Whitened mergers about their merger, of unit power as a whole.

        Args:
            masses: [n, 2].
            spins: [n, 2].
            length: Of the series that counts as whole, s.

        Returns:
            Analytic series up to ``max_frequency``, complex64, [n, before_size +
            after_size + 2 * lag_size]; the sum of ``|x|²`` is the share of the whole
            signal's SNR² that they hold.
        """
        size = self.before_size + self.after_size + 2 * self.lag_size
        result = torch.empty(len(masses), size, dtype=torch.complex64)
        for rows in _chunks(masses):
            spectra = whitened_spectra(
                masses[rows], spins[rows], self.settings, self.geometry, length
            )
            result[rows] = self.cut(spectra, length)
        return result

    def cut(
        self, spectra: Complex[NDArray[Any], "n bins"], length: float
    ) -> Complex[Tensor, "n time"]:
        """Cut whitened mergers about their merger, and sample them on this grid.

        Args:
            spectra: As from ``whitened_spectra``, complex64, [n, bins].
            length: Of their series, s.

        Returns:
            As from ``signals``.
        """
        merger = round((length - AFTER_MERGER_LENGTH) * self.geometry.sample_rate)
        before, after = (
            self.before_size + self.lag_size,
            self.after_size + self.lag_size,
        )
        samples = merger + self.step * np.arange(-before, after)
        low = spectra.copy()
        low[:, math.floor(self.settings.max_frequency * length) + 1 :] = 0
        return torch.from_numpy(analytic(low)[:, samples] * math.sqrt(self.step / 2))

    def templates(
        self, masses: Float[NDArray[Any], "n 2"], spins: Float[NDArray[Any], "n 2"]
    ) -> Complex[Tensor, "n time"]:
        """Truncated templates of unit power.

        Returns:
            complex64, [n, before_size + after_size].
        """
        signals = self.signals(masses, spins, SERIES_LENGTH)
        cut = signals[:, self.lag_size : -self.lag_size]
        result: Tensor = cut / cut.norm(dim=1, keepdim=True)
        return result

    def transform(self, series: Complex[Tensor, "n time"]) -> Complex[Tensor, "n bins"]:
        """Spectra of signals or templates, [n, fft_size]."""
        result: Tensor = torch.fft.fft(series, self.fft_size)
        return result

    def match(
        self,
        signals: Complex[Tensor, "*n bins"],
        templates: Complex[Tensor, "*#n bins"],
    ) -> Float[Tensor, " oversampling *n"]:
        """Match of signals with templates, from their spectra, over time and phase.

        Args:
            signals: [..., fft_size].
            templates: Broadcast with the signals.

        Returns:
            [OVERSAMPLING, ...]: the best of every ``OVERSAMPLING``-th lag, from the
            first, the second … on. Their maximum is that over all lags.
        """
        size = OVERSAMPLING * self.fft_size
        series = torch.fft.ifft(signals * templates.conj(), size)
        # Within these lags nothing wraps around.
        lags = series[..., : 2 * OVERSAMPLING * self.lag_size].abs()
        result: Tensor = OVERSAMPLING * lags.unflatten(-1, (-1, OVERSAMPLING)).amax(
            -2
        ).movedim(-1, 0)
        return result


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
            matches[_between(shift), template]
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


def _between(shift: int) -> list[int]:
    """Which match is that of a merger 0, 1 … lags after an output."""
    return [(shift - place) % OVERSAMPLING for place in range(OVERSAMPLING)]


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
        seen = worth[_between(shift), template]
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
        best = torch.maximum(best, worth[_between(shift), template])
    return np.array(list(chosen)), np.array(list(chosen.values()))


def best_matches(
    grid: Grid, signals: Complex[Tensor, "n bins"], bank: Bank
) -> Float[NDArray[Any], "oversampling n"]:
    """Best match of each signal, a spectrum on the grid, over a bank's templates.

    Returns:
        [OVERSAMPLING, n]: for mergers 0, 1 … lags after an output. The mean of a whole
        signal over the lags is its fitting factor (Apostolatos, Phys. Rev. D 52, 605).
    """
    templates = grid.transform(grid.templates(bank.masses, bank.spins))
    shifts = (bank.shift * OVERSAMPLING).astype(int)
    best = torch.zeros(OVERSAMPLING, len(signals))
    # Few signals at once: their series stay in the processor's cache.
    for rows, part in zip(
        best.split(MATCH_CHUNK, 1), signals.split(MATCH_CHUNK), strict=True
    ):
        for template, shift in zip(templates, shifts, strict=True):
            found = grid.match(part, template)[_between(shift)]
            torch.maximum(rows, found, out=rows)
    return best.numpy()


def _chunks(masses: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows of a few mergers at a time, similar ones together.

    The longest waveform of a batch sets the length of all.
    """
    order = np.argsort(chirp_mass(*masses.T), kind="stable")
    for start in range(0, len(order), WAVEFORM_CHUNK):
        yield order[start : start + WAVEFORM_CHUNK]
