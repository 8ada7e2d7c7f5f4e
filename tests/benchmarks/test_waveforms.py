"""The benchmark of higher modes and precession: signals, scaling and errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.waveforms import (
    CLASSES,
    COMPLETE,
    REFERENCE,
    SNRS,
    WAVEFORMS,
    Mergers,
    Waves,
    draw,
    fitting_of,
    found_at,
    make_waves,
    recovered_fraction,
    score,
    share,
    turn_noise,
    whitened,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import sky
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.networks.bank import Bank, BankSettings
from chirpwatch.train.networks.templates import SIGNAL_LENGTH, Grid, best_matches

GEOMETRY = Geometry(kernel_length=2.0)
MASSES = np.array([[100.0, 30.0], [35.0, 35.0], [30.0, 12.0]])
SPINS = np.array([[0.3, 0.1], [0.0, -0.5], [0.2, 0.6]])
SETTINGS = BankSettings(templates=3, candidates=3)
GRID = Grid(SETTINGS, GEOMETRY)


@pytest.fixture(scope="module")
def maker() -> WindowMaker:
    settings = WindowSettings(
        runs=("O3",), bank_size=2, stretches=1, glitch_bank_size=1
    )
    return WindowMaker(GEOMETRY, settings, 1)


@pytest.fixture(scope="module")
def mergers() -> Mergers:
    """Mergers with in-plane spins too, at many inclinations."""
    spins = np.full((len(MASSES), 2, 3), 0.5)
    spins[..., 2] = SPINS
    torch.manual_seed(5)
    return Mergers(MASSES, spins, sky(len(MASSES)))


@pytest.fixture(scope="module")
def waves(maker: WindowMaker, mergers: Mergers) -> dict[str, Waves]:
    return {name: make_waves(mergers, name, maker, GRID) for name in WAVEFORMS}


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Normalised overlap of two series, maximised over phase."""
    first, second = (torch.fft.rfft(x.double()) for x in (one, other))
    product = (first * second.conj()).sum(-1).abs()
    return product / first.norm(dim=-1) / second.norm(dim=-1)


def test_the_reference_waveforms_are_those_of_the_validation(
    maker, mergers, waves
) -> None:
    maker.set_bank(*(torch.from_numpy(x).float() for x in (MASSES, SPINS)))
    rows, snrs = torch.zeros(3, 2, dtype=torch.long), torch.full((3,), 8.0)
    torch.manual_seed(5)
    expected, _ = maker.signals(rows, snrs, torch.arange(3))
    torch.manual_seed(5)
    times = maker.draw_arrivals(sky(3))
    found = 8 * whitened(maker, mergers, waves[REFERENCE], times, rows)
    assert overlaps(found, expected).min() > 0.995
    torch.testing.assert_close(
        found.norm(dim=-1), expected.norm(dim=-1), rtol=0.01, atol=0
    )


def test_only_precessing_waveforms_use_in_plane_spins(maker, mergers, waves) -> None:
    aligned = Mergers(MASSES, mergers.spins * [0, 0, 1], mergers.angles)
    for name, precesses in WAVEFORMS.items():
        other = make_waves(aligned, name, maker, GRID)
        assert torch.equal(other.snrs, waves[name].snrs) != precesses
    straight = make_waves(aligned, "IMRPhenomXP", maker, GRID)
    fair = overlaps_of(straight, waves[REFERENCE])
    assert fair.min() > 0.98


def overlaps_of(one: Waves, other: Waves) -> Tensor:
    """Overlaps in the first detector, maximised over time."""
    size = 2 * one.seen.shape[1]
    first, second = (torch.fft.fft(x.seen, size) for x in (one, other))
    # Also at times between samples.
    products = torch.fft.ifft(first * second.conj(), 32 * size).abs().amax(-1)
    return 32 * products / one.seen.norm(dim=-1) / other.seen.norm(dim=-1)


def test_higher_modes_matter_for_unequal_masses_and_inclined_orbits(
    maker,
) -> None:
    masses = np.array([[100.0, 30.0], [100.0, 30.0], [50.0, 50.0]])
    angles = sky(1)
    angles = {name: column.expand(3) for name, column in angles.items()}
    angles |= {"inclination": torch.tensor([1.4, 0.0, 1.4])}
    tilted = Mergers(masses, np.zeros((3, 2, 3)), angles)
    one, other = (
        make_waves(tilted, name, maker, GRID) for name in (REFERENCE, "IMRPhenomXHM")
    )
    inclined, face_on, equal = overlaps_of(one, other).tolist()
    assert inclined < 0.95
    assert min(face_on, equal) > 0.98


def test_fitting_factors_of_the_reference_equal_the_banks(waves) -> None:
    ones = np.ones(3) / 3
    masses = np.array([[20.0, 15.0], [40.0, 30.0], [90.0, 40.0]])
    bank = Bank(SETTINGS, masses, np.zeros((3, 2)), np.array([0, 0.5, 0]), ones)
    (entry,) = fitting_of(GRID, bank, [waves])
    signals = GRID.transform(GRID.signals(MASSES, SPINS, SIGNAL_LENGTH))
    expected = best_matches(GRID, signals, bank)
    assert entry["fitting"][REFERENCE]["value"] == pytest.approx(
        expected.mean(), abs=0.003
    )
    assert entry["difference"]["value"] == pytest.approx(
        entry["fitting"][COMPLETE]["value"] - entry["fitting"][REFERENCE]["value"]
    )


class Power(nn.Module):
    """Network whose score is the window's sum of squares."""

    def forward(self, windows: Tensor) -> Tensor:
        return windows.square().sum((1, 2))[:, None]


def test_all_waveforms_have_the_same_snr_and_noise(maker, mergers, waves) -> None:
    validation = SimpleNamespace(maker=maker, network=Power())
    torch.manual_seed(1)
    scores = score(validation, mergers, waves)
    for one in scores.values():
        # The curvature of |noise + ρ s|² over ρ of 8, 10 and 12 is that of |s|².
        power = (one[0] - 2 * one[1] + one[2]) / 8
        # A PSD of 8 s has an error of some per cent; the window holds almost all of s.
        assert (power > 0.8).all() and (power < 1.2).all()
    twice = score(validation, mergers, {"a": waves[COMPLETE], "b": waves[COMPLETE]})
    assert torch.equal(twice["a"], twice["b"])


def test_noise_is_flipped_and_shifted_together_with_the_signal() -> None:
    torch.manual_seed(2)
    rate, size, margin = 2048, 4096, 512
    noise = torch.randn(20, 2, size + 2 * margin)
    times = torch.arange(size) / rate

    def wave(begin: float, phase: float) -> Tensor:
        envelope = torch.exp(-(((times - begin) / 0.05) ** 2))
        series = envelope * torch.cos(2 * torch.pi * 90 * (times - begin) + phase)
        return series.expand(20, 2, size)

    reference = wave(1.2, 0.3)
    same = turn_noise(noise, reference, reference, rate)
    inside = noise[..., margin:-margin]
    torch.testing.assert_close(same, inside, rtol=0, atol=1e-4)
    other = wave(1.2 + 9 / rate, 2.0)
    turned = turn_noise(noise, reference, other, rate)
    expected, found = (inside * reference).sum(-1), (turned * other).sum(-1)
    torch.testing.assert_close(
        found, expected, rtol=0, atol=0.02 * float(expected.std())
    )
    unturned = (inside * other).sum(-1)
    assert (unturned - expected).std() > 0.5 * expected.std()
    assert turned.std() == pytest.approx(1, abs=0.02)


def test_efficiencies_and_the_errors_of_paired_differences() -> None:
    reference = torch.tensor([1.0, 2.0, 3.0, 4.0])
    whole = torch.tensor([0.0, 1.0, 3.0, 4.0])
    scores = {REFERENCE: reference.expand(3, 4), COMPLETE: whole.expand(3, 4)}
    entries = found_at(scores, (1.5, 2.5, 0.5))
    assert [one["snr"] for one in entries] == list(SNRS)
    for one in entries:
        assert one["found"][REFERENCE]["value"] == 0.75
        assert one["found"][COMPLETE]["value"] == 0.5
        assert one["found_low"][REFERENCE] == 0.5
        assert one["found_high"][COMPLETE] == 0.75
        assert one["difference"]["value"] == -0.25
        # One of four pairs differs: a smaller error than of two independent shares.
        assert one["difference"]["error"] == pytest.approx(0.25)
    assert share(np.ones(100, bool))["error"] > 0


def test_mergers_are_weighted_by_volume() -> None:
    even = recovered_fraction(np.full(5, 0.9), np.arange(1.0, 6.0))
    assert even["value"] == pytest.approx(0.729) and even["error"] < 1e-9
    loud = recovered_fraction(np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    assert loud["value"] == pytest.approx(8 / 9)


def test_spins_are_isotropic_and_follow_the_population() -> None:
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    for pair in CLASSES.values():
        mergers = draw(pair, 10_000, SETTINGS, rng)
        sizes = np.linalg.norm(mergers.spins, axis=-1)
        assert sizes.max() <= SETTINGS.max_spin
        assert np.median(sizes) == pytest.approx(SETTINGS.max_spin / 4, abs=0.02)
        assert np.abs(mergers.spins.mean((0, 1))).max() < 0.02
        if pair is not None:
            assert (mergers.masses == pair).all()
    _, aligned = draw_components(10_000, SETTINGS, rng)
    assert mergers.spins[..., 2].std() == pytest.approx(aligned.std(), rel=0.05)


def test_every_merger_is_generated_once() -> None:
    masses = np.geomspace(5, 200, 300)[:, None].repeat(2, 1)
    rows = [row for row, _ in Mergers(masses, masses, {}).batches()]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(300))
