"""One detector's whitened noise, and the filters that whitened it."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from chirpwatch.geometry import Geometry
from chirpwatch.train.data import whitening
from chirpwatch.train.data.noise.sources import StretchSource

# Factor on strain: without it, squared float32 spectra of strain would underflow.
SCALE = 1e21
# Length of the signal buffers beyond the kernel, s. Signals are whitened in them.
MARGIN_LENGTH = 2.0


class _WhitenedStretch(NamedTuple):
    """One stretch's rows of ``NoisePool.blocks``, ``responses`` and ``weights``."""

    blocks: NDArray[Any]
    responses: NDArray[Any]
    weights: NDArray[Any]


class NoisePool:
    """One detector's whitened noise, and the filters that whitened it.

    A stretch is strain of twice ``psd_length``. It is whitened in blocks of
    ``psd_refresh_length``; as in the served system, each block's filter comes from
    the data before it. The pool's content depends only on the seed and the number of
    refreshes.

    Args:
        geometry: Lengths of PSD, filter and kernel.
        source: Strain.
        stretches: Stretches that the pool holds.
        seed: Seed of the pool, several numbers.
        device: Device of the tensors.
        ahead: Whether a thread prepares the next stretch in advance; saves time where
            the network trains on a GPU.

    Attributes:
        blocks: Whitened noise, [stretches * blocks, psd_refresh_size], float32.
        responses: Real transfer functions of the filters divided by ``SCALE``, at the
            frequencies of the signal buffers, [stretches * blocks, bins], float32.
        weights: 1 / PSD of each stretch's strain times ``SCALE``, at the same
            frequencies, Hz, zero below ``highpass``, [stretches, bins], float32.
        turn: Number of stretches drawn so far, those since replaced included.
    """

    def __init__(
        self,
        geometry: Geometry,
        source: StretchSource,
        stretches: int,
        seed: tuple[int, ...],
        device: torch.device | str = "cpu",
        ahead: bool = False,
    ) -> None:
        self.geometry, self.source, self.seed = geometry, source, seed
        self.per_stretch = 2 * geometry.psd_size // geometry.psd_refresh_size - 1
        length = geometry.kernel_length + MARGIN_LENGTH
        self.buffer_size = round(length * geometry.sample_rate)
        size, bins = stretches * self.per_stretch, self.buffer_size // 2 + 1
        self.blocks = torch.empty(size, geometry.psd_refresh_size, device=device)
        self.responses = torch.empty(size, bins, device=device)
        self.weights = torch.empty(stretches, bins, device=device)
        self.stretches, self.turn = stretches, 0
        self._thread = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[_WhitenedStretch]] | None = None
        self.seek(0)

    def seek(self, refreshes: int) -> list[int]:
        """Set the pool to its state after a number of refreshes.

        Args:
            refreshes: Stretches replaced since the pool was first filled.

        Returns:
            Indices of the stretches that this call replaced.
        """
        end = refreshes + self.stretches
        # Backwards, all stretches are drawn again; forwards, only the missing ones.
        first = max(self.turn, refreshes) if self.turn <= end else refreshes
        turns = range(first, end)
        for self.turn in turns:
            self._keep(self.turn, self._take(self.turn))
        self.turn = end
        if self._thread is not None and (self._next is None or self._next[0] != end):
            self._next = end, self._thread.submit(self._make, end)
        return [turn % self.stretches for turn in turns]

    def _take(self, turn: int) -> _WhitenedStretch:
        """The stretch of a turn, from the thread if it has prepared that one."""
        if self._next is not None and self._next[0] == turn:
            return self._next[1].result()
        return self._make(turn)

    def _keep(self, turn: int, made: _WhitenedStretch) -> None:
        stretch = turn % self.stretches
        rows = slice(stretch * self.per_stretch, (stretch + 1) * self.per_stretch)
        self.blocks[rows] = torch.from_numpy(made.blocks)
        self.responses[rows] = torch.from_numpy(made.responses)
        self.weights[stretch] = torch.from_numpy(made.weights)

    def _make(self, turn: int) -> _WhitenedStretch:
        geometry, rng = self.geometry, np.random.default_rng([*self.seed, turn])
        refresh_size, filter_size = geometry.psd_refresh_size, geometry.filter_size
        strain, asd = self.source.draw(2 * geometry.psd_size + filter_size, rng)
        spectra = whitening.periodograms(
            strain, geometry.fft_size, geometry.sample_rate
        )
        per_refresh = 2 * refresh_size // geometry.fft_size
        blocks, responses = [], []
        for block in range(self.per_stretch):
            end = (block + 1) * per_refresh - 1
            seen = spectra[max(0, end - geometry.max_periodograms) : end]
            taps = whitening.design_filter(seen, geometry)
            start = (block + 1) * refresh_size - filter_size // 2
            piece = strain[start : start + refresh_size + filter_size]
            blocks.append(whitening.whiten(piece, taps))
            responses.append(
                whitening.zero_phase_response(taps, self.buffer_size) / SCALE
            )
        frequencies = np.fft.rfftfreq(self.buffer_size, 1 / geometry.sample_rate)
        grid = np.linspace(0, geometry.sample_rate / 2, len(asd))
        psd = np.interp(frequencies, grid, asd * SCALE) ** 2
        psd[frequencies < geometry.highpass] = np.inf
        return _WhitenedStretch(np.stack(blocks), np.stack(responses), 1 / psd)
