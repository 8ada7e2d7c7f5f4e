"""Training windows follow their settings."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from scipy import signal, stats

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.noise.sources import (
    CurveVariation,
    SimulatedStretches,
)
from chirpwatch.train.data.pool import NoisePool
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import (
    chirp_mass,
    face_on_amplitudes,
    face_on_waveforms,
)
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.fitting.stream import WindowStream

GEOMETRY = Geometry()
SETTINGS = WindowSettings(batch_size=64, bank_size=64, glitch_bank_size=32, stretches=2)


@pytest.fixture(scope="module")
def maker() -> WindowMaker:
    return WindowMaker(GEOMETRY, SETTINGS, seed=1)


def test_noise_is_white_with_the_error_of_its_psd(maker) -> None:
    rows = maker.draw_rows(2000)
    noise = maker.noise(rows).double()
    assert noise.shape == (2000, 2, 2048)
    # The highpass removes 1.6 %; leaking lines add up to 3.5 %.
    assert 0.97 < noise.std() < 1.05
    _, psd = signal.welch(noise.flatten().numpy(), 2048, nperseg=256)
    # Lines are narrower than the filter's resolution.
    assert np.percentile(psd[6:120] / np.median(psd), [2, 90]) == pytest.approx(
        [1, 1], abs=0.1
    )
    assert psd[1] < 0.1 * np.median(psd), "expected no power below the highpass"
    # A PSD of 7 periodograms is noisier than one of 63, and so is the whitened strain's
    # spectrum. Its variance is the same, to 1 %, the scatter of four blocks.
    per_stretch = maker.pools[0].per_stretch
    blocks = np.stack([pool.blocks.numpy() for pool in maker.pools]).astype(float)
    blocks = blocks.reshape(-1, per_stretch, GEOMETRY.psd_refresh_size)
    young, old = blocks[:, 0], blocks[:, -4:]
    assert young.std() == pytest.approx(old.std(), rel=0.03)
    scatters = [
        np.log(signal.welch(part, 2048, nperseg=2048)[1][..., 64:900]).std(-1).mean()
        for part in (young, old)
    ]
    assert scatters[0] > 1.2 * scatters[1]


def test_stretches_take_every_run_and_vary_about_its_curve() -> None:
    rng = np.random.default_rng(8)
    varied = CurveVariation(spread=0.2, lines=5)
    source = SimulatedStretches("H1", ("O3", "O4"), 2048, varied)
    curves = np.log([read_curve(run, "H1") for run in ("O3", "O4")])[:, 80:1600]
    drawn = np.log([source.draw(8, rng)[1] for _ in range(200)])[:, 80:1600]
    apart = np.abs(np.median(drawn[:, None] - curves, axis=2))
    nearest = apart.argmin(1)
    assert 60 < nearest.sum() < 140
    departures = drawn - curves[nearest]
    assert np.median(departures.std(0)) == pytest.approx(0.2, rel=0.3)
    assert (departures.max(1) > 2).mean() > 0.3, "lines stand out"
    plain = SimulatedStretches("H1", ("O3",), 2048).draw(8, rng)[1]
    np.testing.assert_array_equal(plain, read_curve("O3", "H1"))


def test_strain_of_any_source_is_whitened_and_defines_the_snr() -> None:
    class Quiet:
        """O4 noise at a tenth of its amplitude."""

        def draw(self, size, rng):
            strain, asd = SimulatedStretches("H1", ("O4",), 2048).draw(size, rng)
            return strain / 10, asd / 10

    sources = {"H1": Quiet(), "L1": Quiet()}
    maker = WindowMaker(GEOMETRY, SETTINGS, seed=3, sources=sources)
    rows = maker.draw_rows(300)
    assert 0.97 < maker.noise(rows).std() < 1.05
    norms = maker.signals(rows, torch.full((300,), 12.0))[0].square().sum((1, 2)).sqrt()
    assert float(norms.median()) == pytest.approx(12, rel=0.1)


def test_signals_have_the_requested_snr_and_time(maker) -> None:
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
    before_end = GEOMETRY.kernel_length - (mergers - margin) / GEOMETRY.sample_rate
    assert before_end.max() < SETTINGS.earliest_merger + 0.022
    assert before_end.min() > SETTINGS.latest_merger - 0.022
    strongest = series.abs().flatten(1).argmax(-1)
    ifo, sample = strongest // series.shape[-1], strongest % series.shape[-1]
    offsets = sample - mergers[torch.arange(400), ifo]
    assert offsets.abs().median() < 20 and (offsets.abs() < 300).all()


def test_mergers_do_not_wrap_around_in_longer_kernels() -> None:
    geometry = Geometry(kernel_length=2.0)
    settings = dataclasses.replace(SETTINGS, earliest_merger=1.65, latest_merger=0.1)
    maker = WindowMaker(geometry, settings, seed=1)
    maker.set_bank(torch.tensor([[7.0, 7.0]]), torch.zeros(1, 2))
    rows = maker.draw_rows(100)
    series, mergers = maker.signals(rows, torch.full((100,), 20.0))
    after = torch.arange(4096) > mergers[:, 0, None] + 0.6 * 2048
    assert (series[:, 0] * after).norm(dim=-1).max() < 0.01
    assert (series * (torch.arange(4096) < 2048)).norm(dim=-1).max() > 5


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
    """A wrong sign of the index would put the median at 84 instead of 7."""
    torch.manual_seed(4)
    settings = dataclasses.replace(SETTINGS, loud_share=0.0)
    monkeypatch.setattr(maker, "settings", settings)
    snrs = maker.draw_snrs(20_000, min_snr).double()
    assert snrs.min() >= min_snr - 1e-4 and snrs.max() <= SETTINGS.max_snr + 1e-3
    low, high = min_snr**-2.0, SETTINGS.max_snr**-2.0
    cdf = stats.kstest(snrs.numpy(), lambda x: (low - x**-2.0) / (low - high))
    assert cdf.pvalue > 1e-3


def test_half_a_batch_has_signals_and_disturbances_are_in_single_detectors() -> None:
    quiet = dataclasses.replace(
        SETTINGS,
        glitch_share=0.0,
        double_glitch_share=0.0,
        single_share=0.0,
        background_glitch_share=0.0,
    )
    maker = WindowMaker(GEOMETRY, quiet, seed=5)
    windows, labels, *_ = maker.batch(0, 60.0)
    assert windows.shape == (64, 2, 2048) and labels.sum() == 32
    norms = windows.square().sum((1, 2)).sqrt()
    assert norms[labels == 1].min() > norms[labels == 0].max()
    loud = dataclasses.replace(quiet, glitch_share=1.0, min_glitch_snr=90.0)
    maker = WindowMaker(GEOMETRY, loud, seed=5)
    windows, labels, *_ = maker.batch(0, 60.0)
    norms = windows[labels == 0].square().sum(-1).sqrt()
    assert (norms.amax(1) > 80).all() and (norms.amin(1) < 55).all()


def test_batches_label_each_detectors_disturbance() -> None:
    loud = dataclasses.replace(
        SETTINGS,
        glitch_share=0.4,
        single_share=0.3,
        double_glitch_share=0.2,
        background_glitch_share=0.0,
        min_glitch_snr=90.0,
        min_single_snr=90.0,
    )
    maker = WindowMaker(GEOMETRY, loud, seed=5)
    windows, labels, _, _, kinds = maker.batch(0, 5.0)
    negative = labels == 0
    assert not kinds[~negative].any()
    norms = windows[negative].square().sum(-1).sqrt()
    assert torch.equal(norms > 70, kinds[negative] > 0)
    assert set(kinds[negative].flatten().tolist()) == {0, 1, 2}
    # A merger in a single detector leaves the other unchanged.
    lone = (kinds[negative] == 2).any(1)
    assert lone.any() and not (kinds[negative][lone] == 1).any()
    assert ((kinds[negative] == 1).sum(1) == 2).any()


def test_the_snr_is_that_of_the_full_inspiral(maker) -> None:
    """The part that the buffer cuts off counts for the SNR."""
    amplitudes = face_on_amplitudes(
        *torch.tensor([[35.0], [35.0], [0.0], [0.0]]), torch.arange(32.0, 900.0)
    )
    wave = face_on_waveforms(
        *torch.tensor([[35.0], [35.0], [0.0], [0.0]]), 8192, 7168, 2048
    )
    spectrum = torch.fft.rfft(wave, n=2048 * 4)[:, 128:3600:4].abs() / 2048
    torch.testing.assert_close(amplitudes, spectrum, rtol=0.05, atol=1e-25)
    fresh = WindowMaker(GEOMETRY, SETTINGS, seed=4)
    masses = torch.tensor([[60.0, 60.0], [7.0, 7.0], [5.0, 5.0]])
    fresh.set_bank(masses, torch.zeros(3, 2))
    kept = fresh.kept.tolist()
    assert kept[0] == pytest.approx(1, abs=0.01)
    # From 32 Hz on, 7 and 7 solar masses take 3.1 s, 5 and 5 take 5.5.
    assert 0.7 < kept[2] < kept[1] < 0.95
    rows, snrs = fresh.draw_rows(300), torch.full((300,), 20.0)
    for waveform, share in enumerate(kept):
        series, _ = fresh.signals(
            rows, snrs, torch.full((300,), waveform), margin_size=2048
        )
        norms = series.square().sum((1, 2)).sqrt()
        assert float(norms.median()) == pytest.approx(20 * share**0.5, rel=0.06)


def test_mergers_can_be_drawn_flatter_in_mass() -> None:
    """The density of log chirp mass is raised to the power 1 - mass_flattening."""
    densities = {}
    for flattening in (0.0, 0.5, 1.0):
        ranges = dataclasses.replace(
            SETTINGS, min_mass=5.0, max_mass=200.0, mass_flattening=flattening
        )
        masses, _ = draw_components(20_000, ranges, np.random.default_rng(4))
        assert (masses[:, 0] >= masses[:, 1]).all()
        assert masses.min() >= 5 and masses.max() <= 200
        logarithm = np.log(chirp_mass(*masses.T))
        # The ends are excluded: even a choice among twenty leaves too few there.
        densities[flattening] = np.histogram(logarithm, 8, (2.0, 4.6))[0] / 20_000
    steep, half, flat = densities.values()
    assert flat.max() / flat.min() < 1.25 < 2 < steep.max() / steep.min()
    shares = half / half.sum(), steep**0.5 / (steep**0.5).sum()
    np.testing.assert_allclose(*shares, rtol=0.12)


def test_spins_are_isotropic_and_mostly_small() -> None:
    ranges = dataclasses.replace(SETTINGS, max_spin=0.9)
    _, spins = draw_components(40_000, ranges, np.random.default_rng(5))
    assert np.abs(spins).max() < 0.9
    assert spins.mean() == pytest.approx(0, abs=0.01)
    # Magnitude 0.9 u², cosine c: E[u⁴] E[c²] = 1/15.
    assert spins.var() == pytest.approx(0.81 / 15, rel=0.03)


def test_a_batch_does_not_depend_on_earlier_batches() -> None:
    settings = dataclasses.replace(SETTINGS, refresh_batches=2)
    first, second = (WindowMaker(GEOMETRY, settings, seed=7) for _ in range(2))
    inorder = [first.batch(index, 8.0)[0] for index in range(10)]
    for index in (7, 0, 9, 4):
        torch.testing.assert_close(
            second.batch(index, 8.0)[0], inorder[index], rtol=0, atol=0
        )
    assert not torch.equal(inorder[0], inorder[1])
    other = WindowMaker(GEOMETRY, settings, seed=(7, 1))
    assert not torch.equal(other.batch(0, 8.0)[0], inorder[0])


def test_noise_is_replaced_one_detector_at_a_time() -> None:
    settings = dataclasses.replace(SETTINGS, refresh_batches=3, stretches=1)
    maker = WindowMaker(GEOMETRY, settings, seed=7)
    seen = []
    for index in range(13):
        maker.batch(index, 8.0)
        seen.append([float(pool.blocks[0, 0]) for pool in maker.pools])
    changes = (np.diff(seen, axis=0) != 0).sum(0)
    assert changes.tolist() == [2, 2]
    assert (np.diff(seen, axis=0) != 0).sum(1).max() == 1


def test_prefetching_in_a_thread_changes_nothing() -> None:
    here = []

    class Source(SimulatedStretches):
        def draw(self, size, rng):
            here.append(threading.current_thread() is threading.main_thread())
            return super().draw(size, rng)

    source = Source("H1", ("O3",), 2048)
    plain = NoisePool(Geometry(), source, 2, (1, 0))
    ahead = NoisePool(Geometry(), source, 2, (1, 0), ahead=True)
    # In order, the thread has prefetched it; after a jump it has not.
    for refreshes, made in ((0, 0), (1, 0), (2, 0), (5, 2), (1, 2)):
        here.clear()
        ahead.seek(refreshes)
        assert here.count(True) == made
        plain.seek(refreshes)
        for name in ("blocks", "responses", "weights"):
            assert torch.equal(getattr(ahead, name), getattr(plain, name)), name


def test_augmentations_flip_reverse_scale_and_swap_by_their_shares() -> None:
    quiet = dataclasses.replace(
        SETTINGS,
        batch_size=512,
        glitch_share=0.0,
        double_glitch_share=0.0,
        single_share=0.0,
        background_glitch_share=0.0,
        flip_share=0.0,
        reversal_share=0.0,
    )

    def negatives(**changes):
        maker = WindowMaker(GEOMETRY, dataclasses.replace(quiet, **changes), seed=9)
        return maker.batch(0, 8.0)[0][256:]

    plain = negatives()
    for name, change in (
        ("flip_share", lambda x: -x),
        ("reversal_share", lambda x: x.flip(-1)),
    ):
        one = negatives(**{name: 0.5})
        changed = (one == change(plain)).all(-1)
        kept = (one == plain).all(-1)
        assert (changed ^ kept).all(), "expected each detector's window changed or kept"
        assert 0.4 < changed.float().mean() < 0.6
        assert 0.3 < (changed[:, 0] ^ changed[:, 1]).float().mean() < 0.7
    swapped = negatives(swap_share=1.0)
    torch.testing.assert_close(swapped, plain.flip(1), rtol=0, atol=0)
    gains = negatives(gain_share=1.0, gain_spread=0.3).std(-1) / plain.std(-1)
    assert float(gains.log().std()) == pytest.approx(0.3, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_mass": 60.0, "max_mass": 7.0}, "min_mass < max_mass"),
        ({"last_snr": 100.0}, "last_snr < max_snr"),
        ({"glitch_share": 0.99}, "sum to 1 at most"),
        ({"mass_flattening": 1.5}, "mass_flattening between 0 and 1, found 1.5"),
        ({"latest_merger": 0.7}, "0 < latest_merger < earliest_merger"),
        ({"flip_share": -0.1}, "flip_share between 0 and 1"),
        ({"refresh_batches": 0}, "refresh_batches of 1 or more, found 0"),
        ({"bank_size": 1}, "bank_size of 2 or more"),
        ({"glitch_weights": {"hum": 1.0}}, "blip, tomte, .* found {'hum'"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WindowSettings(**changes)


def test_a_merger_outside_the_kernel_is_refused() -> None:
    settings = dataclasses.replace(SETTINGS, earliest_merger=1.2)
    with pytest.raises(ConfigurationError, match="earliest_merger within the kernel"):
        WindowMaker(GEOMETRY, settings, seed=1)


def test_stream_goes_from_loud_to_faint_and_repeats_with_its_seed() -> None:
    settings = dataclasses.replace(
        SETTINGS, glitch_share=0.0, double_glitch_share=0.0, single_share=0.0
    )
    batches = list(WindowStream(GEOMETRY, settings, 6, seed=6))
    again = list(WindowStream(GEOMETRY, settings, 6, seed=6))
    assert len(batches) == 6
    for (one, *_), (two, *_) in zip(batches, again, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    power = [float(x[y == 1].square().sum((1, 2)).median()) for x, y, *_ in batches]
    assert power[0] > power[-1]
