"""Training windows hold what their settings say."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import signal, stats

from chirpwatch.geometry import Geometry
from train.stream import WindowStream
from train.windows import WindowMaker, WindowSettings

GEOMETRY = Geometry()
SETTINGS = WindowSettings(batch_size=64, bank_size=64, stretches=2)


@pytest.fixture(scope="module")
def maker() -> WindowMaker:
    return WindowMaker(GEOMETRY, SETTINGS, seed=1)


def test_noise_is_white_with_the_error_of_its_psd(maker) -> None:
    rows = maker.draw_rows(2000)
    noise = maker.noise(rows).double()
    assert noise.shape == (2000, 2, 2048)
    assert 1.0 < noise.std() < 1.1
    _, psd = signal.welch(noise.flatten().numpy(), 2048, nperseg=256)
    # Lines are narrower than the filter resolves.
    assert np.percentile(psd[6:120] / np.median(psd), [2, 90]) == pytest.approx(
        [1, 1], abs=0.1
    )
    assert psd[1] < 0.1 * np.median(psd), "the highpass is gone"
    # A PSD of 7 periodograms is noisier than one of 63: its noise comes out louder.
    blocks = maker.pools[0].blocks.reshape(-1, maker.pools[0].per_stretch, 16384)
    assert blocks[:, 0].std() > 1.03 * blocks[:, -4:].std()


def test_detectors_have_both_runs(maker) -> None:
    for pool in maker.pools:
        assert set(pool.runs.tolist()) == {0, 1}


def test_signals_have_the_snr_and_the_place_asked_for(maker) -> None:
    torch.manual_seed(2)
    snrs = torch.full((400,), 12.0)
    margin = GEOMETRY.kernel_size // 2
    rows = maker.draw_rows(400)
    series, mergers = maker.signals(rows, snrs, margin_size=margin)
    assert series.shape == (400, 2, 2 * GEOMETRY.kernel_size)
    # A signal's norm in whitened noise is its SNR, up to the PSD's error.
    norms = series.square().sum((1, 2)).sqrt()
    assert float(norms.median()) == pytest.approx(12, rel=0.05)
    assert (mergers[:, 0] - mergers[:, 1]).abs().max() <= 21
    within = (mergers - margin) / GEOMETRY.sample_rate
    assert within.min() > SETTINGS.earliest_merger - 0.022
    assert within.max() < SETTINGS.latest_merger + 0.022
    strongest = series.abs().flatten(1).argmax(-1)
    ifo, sample = strongest // series.shape[-1], strongest % series.shape[-1]
    offsets = sample - mergers[torch.arange(400), ifo]
    assert offsets.abs().median() < 20 and (offsets.abs() < 300).all()


def test_a_window_cut_from_a_longer_one_is_the_same(maker) -> None:
    rows, snrs = maker.draw_rows(8), torch.full((8,), 10.0)
    torch.manual_seed(3)
    short, times = maker.signals(rows, snrs, torch.arange(8))
    torch.manual_seed(3)
    long, later = maker.signals(rows, snrs, torch.arange(8), margin_size=512)
    torch.testing.assert_close(long[..., 512:-512], short)
    torch.testing.assert_close(later - 512, times)


@pytest.mark.parametrize("min_snr", [5.0, 15.0])
def test_snrs_fall_with_their_third_power(maker, min_snr, monkeypatch) -> None:
    """An index of +3 by mistake would put the median at 84 instead of 7."""
    torch.manual_seed(4)
    settings = dataclasses.replace(SETTINGS, loud_share=0.0)
    monkeypatch.setattr(maker, "settings", settings)
    snrs = maker.draw_snrs(20_000, min_snr).double()
    assert snrs.min() >= min_snr - 1e-4 and snrs.max() <= SETTINGS.max_snr + 1e-3
    low, high = min_snr**-2.0, SETTINGS.max_snr**-2.0
    cdf = stats.kstest(snrs.numpy(), lambda x: (low - x**-2.0) / (low - high))
    assert cdf.pvalue > 1e-3


def test_half_of_a_batch_has_signals_and_disturbances_spoil_single_detectors() -> None:
    quiet = dataclasses.replace(
        SETTINGS,
        glitch_share=0.0,
        double_glitch_share=0.0,
        single_share=0.0,
        background_glitch_share=0.0,
    )
    maker = WindowMaker(GEOMETRY, quiet, seed=5)
    windows, labels, _ = maker.batch(60.0)
    assert windows.shape == (64, 2, 2048) and labels.sum() == 32
    norms = windows.square().sum((1, 2)).sqrt()
    assert norms[labels == 1].min() > norms[labels == 0].max()
    loud = dataclasses.replace(quiet, glitch_share=1.0, min_glitch_snr=90.0)
    maker = WindowMaker(GEOMETRY, loud, seed=5)
    windows, labels, _ = maker.batch(60.0)
    norms = windows[labels == 0].square().sum(-1).sqrt()
    assert (norms.amax(1) > 80).all() and (norms.amin(1) < 55).all()


def test_stream_falls_from_loud_to_faint_and_repeats_with_its_seed() -> None:
    settings = dataclasses.replace(
        SETTINGS, glitch_share=0.0, double_glitch_share=0.0, single_share=0.0
    )
    batches = list(WindowStream(GEOMETRY, settings, 6, seed=6))
    again = list(WindowStream(GEOMETRY, settings, 6, seed=6))
    assert len(batches) == 6
    for (one, *_), (two, *_) in zip(batches, again, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    power = [float(x[y == 1].square().sum((1, 2)).median()) for x, y, _ in batches]
    assert power[0] > power[-1]
