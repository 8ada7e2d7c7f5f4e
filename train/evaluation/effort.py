"""How much a validation draws, by what a window costs in the network."""

from dataclasses import dataclass, replace

from chirpwatch.train.evaluation.scoring import (
    has_slides,
)
from chirpwatch.train.networks.baseline import SeedResNet
from chirpwatch.train.networks.models import Scorer

SNRS = (6.0, 8.0, 10.0, 12.0)
"""Network SNRs of the table; a full validation has further ones for its curves."""

CURVE_SNRS = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 20.0)


@dataclass(frozen=True)
class Effort:
    """How much is drawn.

    Attributes:
        noise_length: Noise of each detector, s; rounded up to whole sets of stretches.
        slides: Blocks of one detector that each block of another meets.
        signals: Windows for each pair of masses and SNR.
        glitch_windows: Noise windows with a glitch.
        snrs: Network SNRs of the signals.
        scatter: Signals of any mass and SNR.
        batches: Batches as in training, for the calibration.
        optimum_windows: Noise windows of each pair's matched filter.
        optimum_signals: Its mergers.
        bank_windows, bank_signals: The same of a whole bank; it is left out if 0.
        stretches: Noise stretches at a time, at least as many as slides.
        bank_size: Waveforms of the signals of any mass.
        glitch_bank_size: Analytic glitches; each comes again and again.
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
# Networks whose slides are as dear as their windows, and at one score a window. At
# 1e-4 the first has 51 windows of noise left: ten clusters, even if each is of five.
DENSE = replace(FULL, noise_length=72_000, slides=1, signals=500, glitch_windows=20_000)
WINDOWED = replace(
    FULL, slides=1, signals=500, glitch_windows=20_000, snrs=SNRS, batches=20
)


def most_slides(stretches: int, ifos: int) -> int:
    """How many slides no two blocks meet twice in, all stretches moving in a circle."""
    return 1 if ifos == 1 else (stretches - 1) // (ifos - 1) + 1


def effort_of(network: Scorer, quick: bool = False) -> Effort:
    """How much to draw for a network; less where a window costs more."""
    effort = _effort_of(network, quick)
    most = most_slides(effort.stretches, len(network.geometry.ifos))
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
        # Enough for 1e-3: one window a second, or eight that overlap.
        noise_length=16_800 if windowed else 7_200,
        glitch_windows=2000,
        snrs=SNRS,
        scatter=500,
        batches=4,
    )
