"""The imitation of a mock data challenge: mergers, noise, and volume estimates."""

import json
import math
from pathlib import Path

import lal
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pycbc.filter import sigma
from pycbc.psd import from_string
from pycbc.waveform import get_fd_waveform
from scipy import signal, stats

from benchmarks import challenge
from benchmarks.challenge import (
    Foreground,
    Ideal,
    add_mergers,
    controlled,
    draw,
    estimate,
    noise,
    radius,
    search,
    weights,
)
from benchmarks.pairs import (
    PairEvents,
    Repository,
    lost_events,
    score_all,
    score_loud,
    slide_shifts,
)
from chirpwatch.geometry import Geometry
from chirpwatch.shipped import SHIPPED
from chirpwatch.train.data.signals.waveforms import chirp_mass

IFOS = ("H1", "L1")


@pytest.fixture(scope="module")
def repository() -> Repository:
    return Repository(SHIPPED)


@pytest.fixture(scope="module")
def mergers() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return draw(1000, Geometry())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenge, "STRETCH_LENGTH", 64)


def test_noise_has_the_design_sensitivity(short: None) -> None:
    strain = noise(Geometry(), np.random.default_rng(1))
    frequencies, power = signal.welch(strain, 2048, nperseg=8192)
    expected = from_string("aLIGOZeroDetHighPower", 4097, 0.25, 9)
    for low, high in ((20, 30), (30, 60), (60, 200), (200, 900)):
        band = (frequencies >= low) & (frequencies < high)
        ratio = power[:, band] / expected.numpy()[band]
        assert ratio.mean(1) == pytest.approx(1, abs=0.08)


def test_distances_are_uniform_in_volume(
    mergers: dict[str, torch.Tensor],
) -> None:
    masses = chirp_mass(mergers["mass_1"], mergers["mass_2"])
    scale = (masses / (1.4 / 2**0.2)) ** (5 / 6)
    cubes = (mergers["distance"] / scale).numpy() ** 3
    low, high = 130**3, 350**3
    assert stats.kstest((cubes - low) / (high - low), "uniform").pvalue > 1e-3
    assert (mergers["mass_1"] >= mergers["mass_2"]).all()
    assert mergers["mass_2"].min() >= 10 and mergers["mass_1"].max() <= 50


@pytest.mark.parametrize("row", range(3))
def test_snr_agrees_with_the_challenges_waveform(
    mergers: dict[str, torch.Tensor], row: int
) -> None:
    one = {name: float(column[row]) for name, column in mergers.items()}
    plus, cross = get_fd_waveform(
        approximant="IMRPhenomXPHM",
        mode_array=[(2, 2)],
        mass1=one["mass_1"],
        mass2=one["mass_2"],
        distance=one["distance"],
        inclination=one["inclination"],
        f_lower=20,
        f_ref=20,
        f_final=1024,
        delta_f=0.125,
    )
    psd = from_string("aLIGOZeroDetHighPower", len(plus), 0.125, 9)
    squares = 0.0
    for ifo in IFOS:
        response = lal.cached_detector_by_prefix[ifo].response
        # At sidereal time zero, the longitude equals the right ascension.
        factors = lal.ComputeDetAMResponse(
            response, one["phi"], one["dec"], one["psi"], 0.0
        )
        strain = factors[0] * plus + factors[1] * cross
        squares += float(sigma(strain, psd, 20, 1023)) ** 2
    assert one["snr"] == pytest.approx(math.sqrt(squares), rel=0.02)


def test_ideal_volume_is_the_mean_of_the_challenges_estimate(
    mergers: dict[str, torch.Tensor],
) -> None:
    ideal = Ideal(IFOS, 20.0, factors=500)
    columns = {name: column.numpy() for name, column in mergers.items()}
    for threshold in (6.0, 8.0):
        found = weights(columns) * (columns["snr"] >= threshold)
        error = found.std() / math.sqrt(len(found))
        assert abs(found.mean() - ideal.volume(threshold)) < 3.5 * error


def test_control_variate_is_exact_for_a_search_by_snr(
    mergers: dict[str, torch.Tensor],
) -> None:
    columns = {name: column.numpy() for name, column in mergers.items()}
    snrs = columns["seen_snr"]
    ideal = Ideal(IFOS, 32.0, masses=6, factors=100)
    foreground = Foreground(columns, snrs, len(snrs), 0.0)
    best, snr = controlled(foreground, 8.0, ideal)
    assert snr == pytest.approx(8.0)
    assert best.distance == pytest.approx(radius(ideal.volume(8.0)))
    assert best.error == 0
    # With mergers lost at random, both estimates agree; this has the smaller error.
    lost = np.random.default_rng(1).random(len(snrs)) < 0.2
    worse = Foreground(columns, np.where(lost, -np.inf, snrs), len(snrs), 0.0)
    plain = estimate(weights(columns) * (worse.statistics >= 8))
    sharp, _ = controlled(worse, 8.0, ideal)
    assert sharp.error < 0.7 * plain.error
    assert abs(sharp.distance - plain.distance) < 3 * plain.error


def test_a_loud_merger_is_found_at_its_time_only(
    repository: Repository, short: None
) -> None:
    strain = noise(repository.geometry, np.random.default_rng(2))
    angles = {"dec": 0.6, "psi": 0.3, "phi": -1.2, "inclination": 0.1, "phase": 1.0}
    columns = angles | {"mass_1": 30.0, "mass_2": 25.0, "distance": 800.0}
    tensors = {
        name: torch.tensor([value], dtype=torch.float64)
        for name, value in columns.items()
    }
    add_mergers(strain, tensors, np.array([40.0]), repository.geometry)
    found = search(repository, strain, np.array([40.0, 41.0]))
    assert found[0] > 10
    assert found[1] == -np.inf


def test_pairs_above_the_floor_give_the_same_loud_events(
    repository: Repository, short: None
) -> None:
    rng = np.random.default_rng(4)
    frames = [repository.frames(noise(repository.geometry, rng)) for _ in range(2)]
    whole = score_all(repository, frames, 1e6)
    # Without a floor, every pair is scored.
    every = score_loud(repository, frames, -100.0)
    same = every.stretches[0] == every.stretches[1]
    order, other = np.lexsort(whole.strides), np.lexsort(every.strides[:, same])
    np.testing.assert_array_equal(
        whole.strides[:, order], every.strides[:, same][:, other]
    )
    np.testing.assert_allclose(
        whole.statistics[order], every.statistics[same][other], atol=1e-4
    )
    slides = len(slide_shifts(repository.geometry, frames[0].strides))
    assert every.livetime / whole.livetime == pytest.approx(
        (4 * slides + 2) / (2 * slides), rel=0.01
    )
    floor = float(np.quantile(whole.statistics, 0.9))
    loud = score_loud(repository, frames, floor)
    expected, lost = lost_events(whole, loud, floor)
    assert expected > 10 and lost == 0
    assert (loud.statistics >= floor).all()
    assert lost_events(whole, loud, floor - 1)[1] > 0


def test_a_single_glitch_in_many_slides_makes_the_rate_uncertain() -> None:
    rng = np.random.default_rng(5)
    spread = PairEvents(
        np.ones(400), rng.integers(20, size=(2, 400)), np.zeros((2, 400)), 1
    )
    # The counts of each detector's stretches have a Poisson distribution.
    expected = math.sqrt(2 / 400)
    assert spread.rate_error(1.0, 20) == pytest.approx(expected, rel=0.5)
    crowded = spread.stretches.copy()
    crowded[1, :200] = 7
    worse = PairEvents(spread.statistics, crowded, spread.strides, 1)
    assert worse.rate_error(1.0, 20) > 0.4


def test_command_writes_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "STRETCH_LENGTH": 96,
        "MONTH": 1000.0,
        "COMPLETE_LIVETIME": 1000.0,
        "RATES": (40, 20, 10, 1),
        "FLOOR_RATE": 30,
    }.items():
        monkeypatch.setattr(challenge, name, value)
    options = ["--injections", "4", "--stretches", "2"]
    result = CliRunner().invoke(
        challenge.main, [str(tmp_path), *options], catch_exceptions=False
    )
    assert result.exit_code == 0
    written = json.loads((tmp_path / "challenge.json").read_text())
    rates = [one["false_alarms_a_month"] for one in written["rates"]]
    assert rates == [40, 20, 10, 1]
    assert written["events_lost"] == 0
    assert (tmp_path / "challenge.md").read_text() in result.output
