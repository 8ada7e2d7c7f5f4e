"""Whitened training windows, simulated while the network trains.

Noise is whitened with filters from as many periodograms as in the served system (8 to
64 s), so that windows include the PSD's estimation error. Signals and glitches are
whitened in the frequency domain with the filter of the noise to which they are added.
Detectors draw their noise independently, which multiplies the number of combinations.

A batch depends only on seed and index, so that training can resume anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Inexact, Int
from ml4gw.distributions import PowerLaw
from torch import Tensor

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.glitches import draw_glitch
from chirpwatch.train.data.noise.sources import (
    SimulatedStretches,
    StretchSource,
)
from chirpwatch.train.data.pool import (
    SCALE,
    NoisePool,
)
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import (
    antenna_amplitudes,
    arrival_delays,
    face_on_amplitudes,
    face_on_waveforms,
    sky,
)
from chirpwatch.train.data.window_settings import WindowSettings

# Time of the kernel's start in the signal buffer, and of the merger in a waveform that
# is added to the bank, s.
WINDOW_START_LENGTH = 1.0
BANK_MERGER_LENGTH = 1.7
# Waveforms per batch, and frequency bins per group, in ``_kept_power``.
KEPT_BATCH, KEPT_BINS = 250, 4
# Independent random streams of a seed.
POOL, BANK, BATCH = range(1, 4)


class Batch(NamedTuple):
    """Training windows with their labels.

    Attributes:
        windows: Whitened strain, [batch, ifos, kernel_size].
        labels: 1 for a merger in all detectors, else 0, [batch].
        mergers: Sample at which the merger reaches the first detector; 0 without a
            merger, [batch].
        snrs: Network SNR of the merger; 0 without a merger, [batch].
        disturbances: Disturbance in each detector: 0 for none, 1 for a glitch, 2 for a
            merger in this detector only, [batch, ifos].
    """

    windows: Float[Tensor, "batch ifos time"]
    labels: Float[Tensor, " batch"]
    mergers: Float[Tensor, " batch"]
    snrs: Float[Tensor, " batch"]
    disturbances: Int[Tensor, "batch ifos"]


class WindowMaker:
    """Makes batches of whitened windows.

    Random numbers are drawn on the CPU, so that all devices make the same windows.

    Args:
        geometry: Kernel, PSD and filter lengths.
        settings: Distributions of noise, signals and glitches.
        seed: Random seed, one number or several.
        sources: Source of each detector's strain; None simulates it by the settings.
        device: Device on which the windows are made.

    Raises:
        ConfigurationError: ``earliest_merger`` is before the start of the kernel.
    """

    def __init__(
        self,
        geometry: Geometry,
        settings: WindowSettings,
        seed: int | Sequence[int],
        sources: Mapping[str, StretchSource] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if settings.earliest_merger > geometry.kernel_length:
            raise ConfigurationError(
                f"windows: expected earliest_merger within the kernel of "
                f"{geometry.kernel_length:g} s, found {settings.earliest_merger:g}"
            )
        self.geometry, self.settings = geometry, settings
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self.device = torch.device(device)
        if sources is None:
            sources = {
                ifo: SimulatedStretches(
                    ifo, settings.runs, geometry.sample_rate, settings.variation
                )
                for ifo in geometry.ifos
            }
        self.pools = [
            NoisePool(
                geometry,
                sources[ifo],
                settings.stretches,
                (*self.seed, POOL, i),
                self.device,
                ahead=self.device.type == "cuda",
            )
            for i, ifo in enumerate(geometry.ifos)
        ]
        self.size = self.pools[0].buffer_size
        self.length = self.size / geometry.sample_rate
        self.frequencies = torch.fft.rfftfreq(
            self.size, 1 / geometry.sample_rate, device=self.device
        )
        rng = np.random.default_rng([*self.seed, BANK])
        components = (
            torch.from_numpy(values).float()
            for values in draw_components(settings.bank_size, settings, rng)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self.set_bank(*components)
        glitches = [
            draw_glitch(
                self.size,
                self.size / 2,
                geometry.sample_rate,
                rng,
                settings.glitch_weights,
            )
            for _ in range(settings.glitch_bank_size)
        ]
        self.glitches = torch.fft.rfft(torch.tensor(np.array(glitches)).float())
        # Rolled so that the centre of each is at the first sample.
        self.glitches *= torch.exp(1j * torch.pi * self.length * self.frequencies.cpu())
        self.glitches = self.glitches.to(self.device)

    def set_bank(
        self, masses: Float[Tensor, "bank 2"], spins: Float[Tensor, "bank 2"]
    ) -> None:
        """Generate the waveforms from which signals are drawn.

        Args:
            masses: Heavier and lighter, detector frame, solar masses, [bank, 2].
            spins: Dimensionless aligned spins, [bank, 2].
        """
        merger_size = round(BANK_MERGER_LENGTH * self.geometry.sample_rate)
        waveforms = face_on_waveforms(
            masses[:, 0],
            masses[:, 1],
            spins[:, 0],
            spins[:, 1],
            self.size,
            merger_size,
            self.geometry.sample_rate,
        )
        # Rolled so that the merger is at the first sample; ``render`` shifts it.
        waveforms = waveforms.roll(-merger_size, -1) * SCALE
        spectra = torch.fft.rfft(waveforms) / self.geometry.sample_rate
        self.bank = spectra.to(torch.complex64).to(self.device)
        self.kept = self._kept_power(masses, spins)

    def _kept_power(
        self, masses: Float[Tensor, "bank 2"], spins: Float[Tensor, "bank 2"]
    ) -> Float[Tensor, " bank"]:
        """Fraction of each waveform's squared SNR that the buffer holds, [bank]."""
        weights = torch.stack([pool.weights.mean(0) for pool in self.pools]).mean(0)
        weights = weights.cpu()
        band = torch.nonzero(weights > 0).flatten()
        # The full signal's spectrum is smooth: one amplitude per group of bins will do.
        band = band[: len(band) // KEPT_BINS * KEPT_BINS].reshape(-1, KEPT_BINS)
        centers = self.frequencies.cpu()[band].mean(1)
        sums = weights[band].sum(1)
        kept = []
        for spectra, mass, spin in zip(
            *(torch.split(x, KEPT_BATCH) for x in (self.bank.cpu(), masses, spins)),
            strict=True,
        ):
            amplitudes = face_on_amplitudes(
                mass[:, 0],
                mass[:, 1],
                spin[:, 0],
                spin[:, 1],
                centers,
            )
            power = (amplitudes * SCALE).float().square() @ sums
            kept.append(spectra.abs().square() @ weights / power)
        return torch.cat(kept).clamp(max=1).to(self.device)

    def draw_snrs(self, n: int, min_snr: float) -> Float[Tensor, " n"]:
        """Draw network SNRs above ``min_snr``, [n]."""
        settings = self.settings
        faint = PowerLaw(min_snr, settings.max_snr, settings.snr_index).sample((n,))
        loud = PowerLaw(min_snr, settings.max_snr, -1).sample((n,))
        return torch.where(torch.rand(n) < settings.loud_share, loud, faint)

    def signals(
        self,
        rows: Int[Tensor, "n ifos"],
        snrs: Float[Tensor, " n"],
        bank: Int[Tensor, " n"] | None = None,
        margin_size: int = 0,
    ) -> tuple[Float[Tensor, "n ifos time"], Float[Tensor, "n ifos"]]:
        """Draw orientations and times of mergers, project and whiten their signals.

        The merger time at the geocentre is between ``earliest_merger`` and
        ``latest_merger`` of the settings.

        Args:
            rows: Noise block of each detector, [n, ifos].
            snrs: Network SNR above ``highpass``, for the noise curves of the blocks,
                [n].
            bank: Index of each signal's waveform, [n]; drawn if None.
            margin_size: Samples on either side of the kernel.

        Returns:
            Whitened signals, [n, ifos, kernel_size + 2 * margin_size]; and the merger's
            arrival in each detector, samples from the start of these, [n, ifos].
        """
        n = len(snrs)
        if bank is None:
            bank = torch.randint(len(self.bank), (n,))
        spectra = self.bank[bank.to(self.device)]
        angles = sky(n)
        amplitudes = antenna_amplitudes(angles, self.geometry.ifos).to(self.device)
        density = spectra.real**2 + spectra.imag**2
        powers = torch.stack(
            [
                torch.linalg.vecdot(density, pool.weights[row // pool.per_stretch])
                for pool, row in zip(self.pools, rows.to(self.device).T, strict=True)
            ],
            1,
        )
        # Squared optimal SNR: 4 times the integral over frequency of |h|^2 / PSD.
        powers = 4 / self.length * powers * amplitudes.abs() ** 2
        # ``snrs`` are those of full waveforms, of which the buffer holds a part.
        kept = self.kept[bank.to(self.device)]
        factors = snrs.to(self.device) * (kept / powers.sum(1)).sqrt()
        times = self.draw_arrivals(angles)
        series = self.render(
            spectra, amplitudes * factors[:, None], times, rows, margin_size
        )
        return series, times * self.geometry.sample_rate + margin_size

    def draw_arrivals(
        self, angles: Mapping[str, Float[Tensor, " n"]]
    ) -> Float[Tensor, "n ifos"]:
        """Draw merger times between ``earliest_merger`` and ``latest_merger``.

        Args:
            angles: Angles from ``sky``, each [n].

        Returns:
            Arrival times in each detector, s from the kernel's start, [n, ifos].
        """
        settings = self.settings
        span = settings.earliest_merger - settings.latest_merger
        earliest = self.geometry.kernel_length - settings.earliest_merger
        mergers = earliest + span * torch.rand(len(angles["dec"]))
        delays = arrival_delays(dict(angles), self.geometry.ifos).float()
        return mergers[:, None] + delays

    def render(
        self,
        spectra: Complex[Tensor, "n bins"],
        amplitudes: Inexact[Tensor, "n ifos"],
        times: Float[Tensor, "n ifos"],
        rows: Int[Tensor, "n ifos"],
        margin_size: int = 0,
    ) -> Float[Tensor, "n ifos time"]:
        """Shift signals to times within the kernel, and whiten them for each detector.

        Args:
            spectra: Spectra of strain times ``SCALE``, with the merger at the buffer's
                first sample, 1/Hz, [n, bins].
            amplitudes: Factor for each detector, real or complex, [n, ifos].
            times: Merger times, s from the kernel's start, [n, ifos].
            rows: Noise block of each detector, [n, ifos].
            margin_size: Samples on either side of the kernel.

        Returns:
            Whitened strain, [n, ifos, kernel_size + 2 * margin_size].
        """
        times, rows = times.to(self.device), rows.to(self.device)
        start = round(WINDOW_START_LENGTH * self.geometry.sample_rate)
        stop = start + self.geometry.kernel_size
        window = slice(start - margin_size, stop + margin_size)
        result = []
        for i, pool in enumerate(self.pools):
            angle = (times[:, i, None] + WINDOW_START_LENGTH) * self.frequencies
            angle = -2 * torch.pi * (angle % 1)
            phase = torch.polar(torch.ones_like(angle), angle)
            spectrum = spectra * phase * pool.responses[rows[:, i]]
            spectrum = spectrum * amplitudes[:, i, None]
            series = torch.fft.irfft(spectrum, self.size) * self.geometry.sample_rate
            result.append(series[:, window])
        return torch.stack(result, 1)

    def lone_disturbances(
        self,
        rows: Int[Tensor, "n ifos"],
        mergers: Bool[Tensor, " n"],
        shapes: Int[Tensor, "n ifos"] | None = None,
    ) -> Float[Tensor, "n ifos time"]:
        """Draw an independent disturbance, a glitch or a merger, for each detector.

        Args:
            rows: Noise block of each detector, [n, ifos].
            mergers: Rows whose disturbances are mergers, not glitches, [n].
            shapes: Indices of the glitches in ``glitches``, [n, ifos]; drawn if None.

        Returns:
            Whitened disturbances with independent times, waveforms and SNRs, [n, ifos,
            kernel_size].
        """
        (n, ifos), settings = rows.shape, self.settings
        min_snrs = torch.where(
            mergers, settings.min_single_snr, settings.min_glitch_snr
        )[:, None]
        ratios = settings.max_disturbance_snr / min_snrs
        result = []
        for i in range(ifos):
            if shapes is None:
                chosen = torch.randint(len(self.glitches), (n,))
            else:
                chosen = shapes[:, i]
            spectra = self.glitches[chosen]
            waveforms = torch.randint(len(self.bank), (int(mergers.sum()),))
            spectra[mergers.to(self.device)] = self.bank[waveforms] * torch.exp(
                2j * torch.pi * torch.rand(len(waveforms), 1)
            ).to(self.device)
            times = self.geometry.kernel_length * torch.rand(n, 1).expand(n, ifos)
            amplitudes = torch.ones(n, ifos, device=self.device)
            series = self.render(spectra, amplitudes, times, rows)[:, i]
            snrs = (min_snrs * ratios ** torch.rand(n, 1)).to(self.device)
            result.append(series * snrs / series.norm(dim=-1, keepdim=True))
        return torch.stack(result, 1)

    def noise(
        self, rows: Int[Tensor, "n ifos"], margin_size: int = 0
    ) -> Float[Tensor, "n ifos time"]:
        """Cut noise windows at random offsets from the given blocks.

        Args:
            rows: Noise block of each detector, [n, ifos].
            margin_size: Samples on either side of the kernel.

        Returns:
            Whitened noise, [n, ifos, kernel_size + 2 * margin_size].
        """
        result = []
        for i, pool in enumerate(self.pools):
            size = self.geometry.kernel_size + 2 * margin_size
            windows = pool.blocks.unfold(-1, size, 1)
            offsets = torch.randint(windows.shape[1], (len(rows),))
            result.append(windows[rows[:, i].to(self.device), offsets])
        return torch.stack(result, 1)

    def draw_rows(self, n: int) -> Int[Tensor, "n ifos"]:
        """Draw a noise block for each detector, [n, ifos]."""
        return torch.randint(len(self.pools[0].blocks), (n, len(self.pools)))

    def _varied(
        self, noise: Float[Tensor, "n ifos time"]
    ) -> Float[Tensor, "n ifos time"]:
        """Flip, time-reverse and rescale noise windows at random, by the settings."""
        settings, size = self.settings, noise.shape[:2]
        factors = torch.where(torch.rand(size) < settings.flip_share, -1.0, 1.0)
        gains = torch.exp(settings.gain_spread * torch.randn(size))
        factors = torch.where(
            torch.rand(size[0], 1) < settings.gain_share, factors * gains, factors
        )
        backwards = torch.rand(size) < settings.reversal_share
        noise = noise * factors.to(self.device)[..., None]
        return torch.where(backwards.to(self.device)[..., None], noise.flip(-1), noise)

    def batch(self, index: int, min_snr: float) -> Batch:
        """Make a batch.

        Args:
            index: Index of the batch. Consecutive indices are fast. Any other index
                has to make its noise again, since noise is replaced from batch to
                batch.
            min_snr: Smallest network SNR of the positives.

        Returns:
            The batch; its first half are the positives.
        """
        turn = index // self.settings.refresh_batches
        for i, pool in enumerate(self.pools):
            # Detectors replace their stretches in turn.
            pool.seek((turn + len(self.pools) - 1 - i) // len(self.pools))
        with torch.random.fork_rng(devices=[]):
            rng = np.random.default_rng([*self.seed, BATCH, index])
            torch.manual_seed(int(rng.integers(2**63)))
            return self._batch(min_snr)

    def _batch(self, min_snr: float) -> Batch:
        settings, n = self.settings, self.settings.batch_size
        ifos = len(self.pools)
        rows = self.draw_rows(n)
        windows = self._varied(self.noise(rows))
        labels = (torch.arange(n) < n // 2).float()
        positive = labels > 0
        snrs = torch.zeros(n)
        snrs[positive] = self.draw_snrs(n // 2, min_snr)
        signals, arrivals = self.signals(rows[positive], snrs[positive])
        windows[: n // 2] += signals
        mergers = torch.zeros(n)
        mergers[positive] = arrivals.min(1).values
        draw = torch.rand(n)
        single = settings.glitch_share + settings.single_share
        merger = ~positive & (draw < settings.single_share)
        in_one = torch.where(
            positive, draw < settings.background_glitch_share, draw < single
        )
        in_all = ~positive & ~in_one & (draw < single + settings.double_glitch_share)
        kinds = torch.zeros(n, ifos, dtype=torch.long)
        disturbed = in_one | in_all
        if disturbed.any():
            chosen = rows[disturbed]
            series = self.lone_disturbances(chosen, merger[disturbed])
            lone = torch.randint(ifos, (len(chosen),))
            keep = torch.nn.functional.one_hot(lone, ifos).bool()
            keep |= in_all[disturbed, None]
            windows[disturbed.to(self.device)] += (
                series * keep.to(self.device)[..., None]
            )
            kinds[disturbed] = keep * (1 + merger[disturbed, None].long())
        swapped = torch.rand(n) < settings.swap_share
        kinds = torch.where(swapped[:, None], kinds.roll(-1, 1), kinds)
        windows = torch.where(
            swapped.to(self.device)[:, None, None], windows.roll(-1, 1), windows
        )
        return Batch(
            windows,
            labels.to(self.device),
            mergers.to(self.device),
            snrs.to(self.device),
            kinds.to(self.device),
        )
