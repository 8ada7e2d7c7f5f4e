"""Whitened noise of one detector, with the filters that whitened it."""

import numpy as np
import torch

from chirpwatch.geometry import Geometry
from train.data import whitening
from train.data.curves import read_curve
from train.data.noise import coloured_noise

# Scaled strain: float32 spectra of strain would underflow when squared.
SCALE = 1e21
# Length of the series in which signals are whitened in frequency, s.
BUFFER_LENGTH = 3.0


class NoisePool:
    """Whitened noise of one detector, with the filters that whitened it.

    A stretch is twice ``psd_length`` long; each ``psd_refresh_length`` of it is a block
    with a filter of its own, made from the data before it as the served system does.

    Args:
        geometry: Lengths of PSD, filter and kernel.
        ifo: Detector.
        runs: Observing runs whose curves the stretches take in turn.
        stretches: Stretches kept.
        rng: Source of randomness.

    Attributes:
        blocks: Whitened noise, [stretches * blocks, psd_refresh_size], float32.
        responses: Real transfer functions of the filters over :data:`SCALE`, on the
            frequencies of the signal buffers, [stretches * blocks, bins], float32.
        runs: Index of each block's observing run, [stretches * blocks].
    """

    def __init__(
        self,
        geometry: Geometry,
        ifo: str,
        runs: tuple[str, ...],
        stretches: int,
        rng: np.random.Generator,
    ) -> None:
        self.geometry, self.rng = geometry, rng
        self.asds = [read_curve(run, ifo) for run in runs]
        self.per_stretch = 2 * geometry.psd_size // geometry.psd_refresh_size - 1
        self.buffer_size = round(BUFFER_LENGTH * geometry.sample_rate)
        size = stretches * self.per_stretch
        self.blocks = torch.empty(size, geometry.psd_refresh_size)
        self.responses = torch.empty(size, self.buffer_size // 2 + 1)
        self.runs = torch.empty(size, dtype=torch.long)
        self.stretches, self.turn = stretches, 0
        for _ in range(stretches):
            self.replace()

    def replace(self) -> None:
        """Replace the oldest stretch."""
        geometry, run = self.geometry, self.turn % len(self.asds)
        refresh_size, filter_size = geometry.psd_refresh_size, geometry.filter_size
        strain = coloured_noise(
            self.asds[run],
            2 * geometry.psd_size + filter_size,
            geometry.sample_rate,
            self.rng,
        )
        spectra = whitening.periodograms(
            strain, geometry.fft_size, geometry.sample_rate
        )
        per_refresh = 2 * refresh_size // geometry.fft_size
        first = self.turn % self.stretches * self.per_stretch
        for block in range(self.per_stretch):
            end = (block + 1) * per_refresh - 1
            seen = spectra[max(0, end - geometry.max_segments) : end]
            taps = whitening.whitening_taps(
                whitening.median_psd(seen),
                filter_size,
                geometry.sample_rate,
                geometry.highpass,
            )
            start = (block + 1) * refresh_size - filter_size // 2
            piece = strain[start : start + refresh_size + filter_size]
            row = first + block
            self.blocks[row] = torch.from_numpy(whitening.whiten(piece, taps))
            self.responses[row] = torch.from_numpy(
                whitening.zero_phase_response(taps, self.buffer_size) / SCALE
            )
            self.runs[row] = run
        self.turn += 1
