"""Settings of training windows: noise, signals, glitches, and their shares."""

from dataclasses import dataclass, field

from chirpwatch.errors import ConfigurationError
from chirpwatch.train.data.noise.families import FAMILIES
from chirpwatch.train.data.noise.sources import (
    CurveVariation,
)

GLITCHES = {"blip": 0.5, "tomte": 0.2, "scattered_light": 0.15, "koi_fish": 0.15}


@dataclass(frozen=True)
class WindowSettings:
    """Distributions of noise, signals and glitches in training windows.

    Attributes:
        batch_size: Windows in a batch, half of them with a signal.
        runs: Observing runs whose noise curves are used.
        variation: Random variation of those curves.
        gain_spread: Standard deviation of the random log-gain of a detector's noise in
            a window. It imitates noise that is less stationary than its PSD.
        gain_share: Share of the windows with such a gain.
        flip_share: Share of the detectors' noise windows whose sign is flipped.
        reversal_share: Share of the detectors' noise windows reversed in time.
        swap_share: Share of the windows whose detectors are rotated by one place.
        bank_size: Number of waveforms, generated once; each use draws orientation and
            SNR.
        min_mass, max_mass: Range of the component masses, detector frame, solar
            masses.
        max_spin: Largest dimensionless spin, see ``draw_components``; signals have
            only the aligned components.
        first_snr, last_snr: Smallest network SNR at the start, and from halfway on.
        max_snr: Largest network SNR.
        snr_index: Exponent of the SNR's power law above the smallest.
        loud_share: Share of the positives with a log-uniform SNR instead. With a power
            law only, loud signals would be rarer than loud glitches, and scores would
            fall with SNR above 20.
        logarithmic_share: Share of the mergers with log-uniform masses; the others' are
            uniform.
        mass_flattening: Flattening of the log chirp mass, see ``draw_components``.
        earliest_merger, latest_merger: Range of the merger time, s before the kernel's
            end.
        stretches: Number of noise stretches held for a detector, each of twice
            ``psd_length``.
        refresh_batches: Number of batches after which one stretch is replaced.
        glitch_share: Share of the negatives with a glitch in one detector.
        double_glitch_share: Share of the negatives with a glitch in each detector.
        single_share: Share of the negatives with a merger in a single detector.
        background_glitch_share: Share of the positives that also have a glitch in one
            detector.
        glitch_weights: Relative rate of each glitch family in ``FAMILIES``; the
            default holds out whistles.
        glitch_bank_size: Number of glitches, generated once; each use draws time and
            SNR.
        min_glitch_snr, min_single_snr: Smallest SNR of glitches, and of mergers in a
            single detector. Fainter single-detector mergers are not evidence of noise:
            a tenth of all real mergers are faint in either H1 or L1.
        max_disturbance_snr: Largest SNR of glitches and single-detector mergers, whose
            SNRs are log-uniform.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    batch_size: int = 256
    runs: tuple[str, ...] = ("O3", "O4")
    variation: CurveVariation = field(default_factory=CurveVariation)
    gain_spread: float = 0.1
    gain_share: float = 0.0
    flip_share: float = 0.5
    reversal_share: float = 0.5
    swap_share: float = 0.0
    bank_size: int = 6000
    min_mass: float = 7.0
    max_mass: float = 60.0
    max_spin: float = 0.4
    first_snr: float = 15.0
    last_snr: float = 5.0
    max_snr: float = 100.0
    snr_index: float = -3.0
    loud_share: float = 0.15
    logarithmic_share: float = 0.7
    mass_flattening: float = 0.0
    earliest_merger: float = 0.65
    latest_merger: float = 0.08
    stretches: int = 30
    refresh_batches: int = 4
    glitch_share: float = 0.16
    double_glitch_share: float = 0.04
    single_share: float = 0.03
    background_glitch_share: float = 0.08
    glitch_weights: dict[str, float] = field(default_factory=lambda: dict(GLITCHES))
    glitch_bank_size: int = 3000
    min_glitch_snr: float = 4.0
    min_single_snr: float = 20.0
    max_disturbance_snr: float = 100.0

    def __post_init__(self) -> None:
        for low, high in (
            ("min_mass", "max_mass"),
            ("first_snr", "max_snr"),
            ("last_snr", "max_snr"),
            ("latest_merger", "earliest_merger"),
            ("min_glitch_snr", "max_disturbance_snr"),
            ("min_single_snr", "max_disturbance_snr"),
        ):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ConfigurationError(
                    f"windows: expected 0 < {low} < {high}, found "
                    f"{getattr(self, low):g} and {getattr(self, high):g}"
                )
        unknown = set(self.glitch_weights) - set(FAMILIES)
        weights = list(self.glitch_weights.values())
        if unknown or not min(weights, default=-1) >= 0 or not max(weights) > 0:
            raise ConfigurationError(
                f"windows: expected glitch_weights of {', '.join(FAMILIES)}, all 0 or "
                f"more and at least one above 0, found {self.glitch_weights}"
            )
        for name in ("batch_size", "bank_size"):
            if getattr(self, name) < 2:
                raise ConfigurationError(
                    f"windows: expected {name} of 2 or more, found "
                    f"{getattr(self, name)}"
                )
        if not 0 <= self.mass_flattening <= 1:
            raise ConfigurationError(
                f"windows: expected mass_flattening between 0 and 1, found "
                f"{self.mass_flattening:g}"
            )
        for name in ("stretches", "refresh_batches", "glitch_bank_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"windows: expected {name} of 1 or more, found "
                    f"{getattr(self, name)}"
                )
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value <= 1:
                raise ConfigurationError(
                    f"windows: expected {name} between 0 and 1, found {value:g}"
                )
        negatives = self.glitch_share + self.single_share + self.double_glitch_share
        if negatives > 1:
            raise ConfigurationError(
                "windows: expected glitch_share, single_share and double_glitch_share "
                f"that sum to 1 at most, found a sum of {negatives:g}"
            )
