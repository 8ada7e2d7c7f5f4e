"""Speed of making training windows, compared with one sample at a time with gwpy.

The reference works like a ``make_dataset`` script. For each sample it takes seconds of
noise, computes gwpy's median PSD, whitens with gwpy and cuts out a second. To half of
the samples it first adds a merger from a bank in memory, projected onto both detectors
at the same merger time and scaled to its network SNR. ``WindowMaker`` makes all that a
training needs: whitened noise, mergers, glitches, labels and merger times. Not timed
are its bank and initial noise, and the noise that the reference cuts from; the noise
that ``WindowMaker`` replaces later is timed.

Both run alternately on one core; CPU time is measured.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from gwpy.timeseries import TimeSeries
from torch.utils.data import DataLoader

from benchmarks.seed import RATE
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.signals.injections import project
from chirpwatch.train.data.signals.waveforms import (
    face_on_waveforms,
    sky,
)
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.fitting.stream import WindowStream
from chirpwatch.train.networks.models import MODELS

RUN = "O3"
CONTEXT_LENGTH = 8
KERNEL_LENGTH = 1.0
NOISE_LENGTH = 512
BANK_SIZE = 64
WAVEFORM_LENGTH, MERGER_LENGTH = 4, 3.5
ROUNDS = 5
SAMPLES = 40
BATCHES = 40
STEPS, WARMUP_STEPS = 100, 10
PREFETCH = 16
SEED = 1


class TraditionalMaker:
    """Makes training samples one at a time, as a script with gwpy does.

    Args:
        geometry: Detectors, kernel, whitening.
        settings: Masses, SNRs and merger times.
    """

    def __init__(self, geometry: Geometry, settings: WindowSettings) -> None:
        self.geometry, self.settings = geometry, settings
        self.rng = np.random.default_rng(SEED)
        torch.manual_seed(SEED)
        strain, _ = simulate_background(
            NOISE_LENGTH, RUN, geometry.ifos, RATE, seed=SEED
        )
        self.noise = [strain[ifo] for ifo in geometry.ifos]
        self.asds = [read_curve(RUN, ifo) for ifo in geometry.ifos]
        masses = settings.min_mass + (
            settings.max_mass - settings.min_mass
        ) * torch.rand(BANK_SIZE, 2)
        heavier, lighter = masses.sort(1, descending=True).values.T
        zeros = torch.zeros(BANK_SIZE)
        sizes = WAVEFORM_LENGTH * RATE, round(MERGER_LENGTH * RATE)
        self.bank = face_on_waveforms(heavier, lighter, zeros, zeros, *sizes, RATE)
        self.size = (CONTEXT_LENGTH + 2) * RATE

    def sample(self, signal: bool) -> np.ndarray:
        """Make a whitened window, [ifos, kernel_size].

        Args:
            signal: Whether to add a merger.
        """
        geometry = self.geometry
        added = self._signal() if signal else None
        windows = []
        for i, noise in enumerate(self.noise):
            # Detectors' noise is from independent times.
            start = self.rng.integers(len(noise) - self.size)
            strain = noise[start : start + self.size].copy()
            if added is not None:
                strain += added[i]
            series = TimeSeries(strain, sample_rate=RATE)
            before = series[: CONTEXT_LENGTH * RATE]
            asd = before.psd(geometry.fftlength, method="median") ** 0.5
            white = series.whiten(
                fduration=geometry.fduration, highpass=geometry.highpass, asd=asd
            )
            first = round((CONTEXT_LENGTH + 0.5) * RATE)
            windows.append(white.value[first : first + geometry.kernel_size])
        return np.stack(windows)

    def _signal(self) -> np.ndarray:
        """Strain of a merger at the same time in all detectors, [ifos, size]."""
        settings, geometry = self.settings, self.geometry
        wave = self.bank[self.rng.integers(BANK_SIZE)][None]
        strain = project(wave, sky(1), geometry.ifos, RATE)[0][0].numpy()
        frequencies = np.fft.rfftfreq(strain.shape[1], 1 / RATE)
        band, power = frequencies >= geometry.highpass, 0.0
        for series, curve in zip(strain, self.asds, strict=True):
            asd = np.interp(frequencies, np.linspace(0, RATE / 2, len(curve)), curve)
            density = np.abs(np.fft.rfft(series))[band] / asd[band] / RATE
            power += 4 * np.sum(density**2) / WAVEFORM_LENGTH
        draw = self.rng.random()
        snr = settings.last_snr / np.sqrt(1 - draw)
        early, late = settings.earliest_merger, settings.latest_merger
        merger = CONTEXT_LENGTH + 0.5 + KERNEL_LENGTH - self.rng.uniform(late, early)
        start = round((merger - MERGER_LENGTH) * RATE)
        added = np.zeros((len(strain), self.size))
        stop = min(self.size, start + strain.shape[1])
        added[:, start:stop] = strain[:, : stop - start] * snr / np.sqrt(power)
        return added


def time_traditional(maker: TraditionalMaker) -> float:
    """Measure samples per core-second of the reference, half with a merger."""
    begin = time.process_time()
    for number in range(SAMPLES):
        maker.sample(signal=number % 2 == 0)
    return SAMPLES / (time.process_time() - begin)


def time_ours(maker: WindowMaker, first: int) -> float:
    """Measure samples per core-second of ``WindowMaker``, from batch ``first`` on."""
    begin = time.process_time()
    for index in range(first, first + BATCHES):
        maker.batch(index, maker.settings.last_snr)
    size = BATCHES * maker.settings.batch_size
    return size / (time.process_time() - begin)


def loading_share(model: str) -> dict[str, float]:
    """Measure the share of the training time spent waiting for windows.

    Args:
        model: Key of ``MODELS``.

    Returns:
        ``loading_share``, over steps of forward, backward and AdamW in bf16, with
        windows from one worker; and ``steps_per_second``.
    """
    torch.manual_seed(SEED)
    network = MODELS[model](Geometry()).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    settings = WindowSettings()
    stream = WindowStream(Geometry(), settings, WARMUP_STEPS + STEPS, SEED)
    batches = iter(
        DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=PREFETCH)
    )
    waiting = working = 0.0
    for step in range(WARMUP_STEPS + STEPS):
        begin = time.perf_counter()
        windows, labels, *_ = next(batches)
        loaded = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(windows)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores.float(), labels
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # The first steps wait for the worker's bank of waveforms.
        if step >= WARMUP_STEPS:
            waiting += loaded - begin
            working += time.perf_counter() - loaded
    return {
        "loading_share": waiting / (waiting + working),
        "steps_per_second": STEPS / (waiting + working),
    }


def measure() -> dict[str, Any]:
    """Run both alternately, then the training steps; JSON-ready figures."""
    torch.set_num_threads(1)
    geometry, settings = Geometry(), WindowSettings()
    traditional = TraditionalMaker(geometry, settings)
    ours = WindowMaker(geometry, settings, SEED)
    traditional.sample(signal=True)
    ours.batch(0, settings.last_snr)
    theirs, mine = [], []
    for number in range(ROUNDS):
        theirs.append(time_traditional(traditional))
        mine.append(time_ours(ours, 1 + number * BATCHES))
    ratios = [new / old for new, old in zip(mine, theirs, strict=True)]
    share = loading_share("split")
    return {
        "windows_over_traditional": statistics.median(ratios),
        "windows_over_traditional_rounds": ratios,
        "traditional_samples_per_core_second": statistics.median(theirs),
        "windows_samples_per_core_second": statistics.median(mine),
        "training_loading_share": share["loading_share"],
        "training_steps_per_second": share["steps_per_second"],
    }
