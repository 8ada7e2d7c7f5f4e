"""Simulated background: Gaussian noise of published curves, with glitches if wanted."""

from collections.abc import Sequence

import numpy as np

from train.data.curves import read_curve
from train.data.glitches import draw_glitch, scale_to_snr
from train.data.noise import coloured_noise

GLITCH_LENGTH = 4.0
GLITCH_HIGHPASS = 32.0
GLITCH_SNRS = (5.0, 100.0)


def simulate_background(
    duration: int,
    run: str,
    ifos: Sequence[str],
    sample_rate: int,
    seed: int | Sequence[int],
    glitch_rate: float = 0.0,
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Draw strain of several detectors, independent of one another.

    Args:
        duration: s.
        run: Observing run whose noise curves are used.
        ifos: Detectors.
        sample_rate: Hz.
        seed: One number or several; each detector draws from a stream of its own,
            named by seed and detector. Segments that shall be independent need seeds
            of their own.
        glitch_rate: Glitches of each detector, Hz; SNR 5 to 100, uniform in the
            logarithm.

    Returns:
        For each detector the strain, float64, [duration * sample_rate], and the times
        of its glitches, s from the start.
    """
    strain, times = {}, {}
    seeds = [seed] if isinstance(seed, int) else list(seed)
    for ifo in ifos:
        rng = np.random.default_rng([*seeds, *ifo.encode()])
        asd = read_curve(run, ifo)
        strain[ifo] = coloured_noise(asd, duration * sample_rate, sample_rate, rng)
        size = round(GLITCH_LENGTH * sample_rate)
        count = rng.poisson(glitch_rate * duration) if duration > GLITCH_LENGTH else 0
        starts = np.sort(rng.integers(0, len(strain[ifo]) - size + 1, count))
        for start in starts:
            shape = draw_glitch(size, size / 2, sample_rate, rng)
            low, high = np.log(GLITCH_SNRS)
            snr = np.exp(rng.uniform(low, high))
            glitch = scale_to_snr(shape, asd, snr, sample_rate, GLITCH_HIGHPASS)
            strain[ifo][start : start + size] += glitch
        times[ifo] = [float((start + size / 2) / sample_rate) for start in starts]
    return strain, times
