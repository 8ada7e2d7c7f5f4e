"""Sizes of a validation: amounts of noise, signals and glitches, by network."""

from dataclasses import dataclass, replace

from chirpwatch.train.evaluation.scoring import (
    has_slides,
)
from chirpwatch.train.networks.baseline import SeedResNet
from chirpwatch.train.networks.models import Scorer

SNRS = (6.0, 8.0, 10.0, 12.0)
"""Network SNRs of the tables."""

CURVE_SNRS = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 20.0)
"""Network SNRs of the efficiency curves."""


@dataclass(frozen=True)
class Effort:
    """Sizes of a validation.

    Attributes:
        noise_length: Noise of each detector, s; rounded up to complete sets of
            stretches.
        slides: Timeslides of the noise.
        signals: Windows with a merger for each pair of masses and SNR.
        glitch_windows: Noise windows with a glitch.
        snrs: Network SNRs of the signals.
        scatter: Mergers of random masses and SNR, for the scatter plot.
        batches: Training-like batches, for the calibration.
        optimum_windows: Noise windows for each pair's matched filter.
        optimum_signals: Mergers for each pair's matched filter.
        bank_windows: Noise windows for the template bank; 0 leaves the bank out.
        bank_signals: Mergers of each pair for the template bank.
        stretches: Noise stretches in memory at a time.
        bank_size: Different waveforms among the mergers of random masses.
        glitch_bank_size: Different analytic glitches.
    """

    noise_length: float = 100_800
    slides: int = 16
    signals: int = 1000
    glitch_windows: int = 60_000
    snrs: tuple[float, ...] = CURVE_SNRS
    scatter: int = 3000
    batches: int = 60
    optimum_windows: int = 200_000
    optimum_signals: int = 2000
    bank_windows: int = 100_000
    bank_signals: int = 400
    stretches: int = 20
    bank_size: int = 512
    glitch_bank_size: int = 5000


FULL = Effort()
QUICK = Effort(
    noise_length=12_000,
    signals=300,
    glitch_windows=10_000,
    scatter=1500,
    batches=20,
    optimum_windows=30_000,
    optimum_signals=500,
    bank_windows=30_000,
    bank_signals=200,
)
DENSE = replace(FULL, noise_length=72_000, slides=1, signals=500, glitch_windows=20_000)
"""For networks without a single-detector frontend, which a slide costs a full pass.

About 50 noise windows exceed a threshold at 1e-4: ten clusters, at five windows each.
"""

WINDOWED = replace(
    FULL, slides=1, signals=500, glitch_windows=20_000, snrs=SNRS, batches=20
)
"""For networks that score one window at a time."""


def max_slides(stretches: int, ifos: int) -> int:
    """Number of slides in which no two blocks are paired twice.

    Each detector's stretches are shifted circularly against those of the one before.
    """
    return 1 if ifos == 1 else (stretches - 1) // (ifos - 1) + 1


def effort_of(network: Scorer, quick: bool = False) -> Effort:
    """Sizes of a network's validation: smaller where scoring a window costs more."""
    effort = _effort_of(network, quick)
    most = max_slides(effort.stretches, len(network.geometry.ifos))
    return replace(effort, slides=min(effort.slides, most))


def _effort_of(network: Scorer, quick: bool) -> Effort:
    if has_slides(network):
        return QUICK if quick else FULL
    windowed = isinstance(network, SeedResNet)
    if not quick:
        return WINDOWED if windowed else DENSE
    return replace(
        QUICK,
        slides=1,
        signals=100,
        # Enough noise for 1e-3: a score per window, or eight overlapping ones a second.
        noise_length=16_800 if windowed else 7_200,
        glitch_windows=2000,
        snrs=SNRS,
        scatter=500,
        batches=4,
    )
