"""Whitened noise of the same level in all bands, and the benchmark that measures it."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from benchmarks.bands import (
    RATES,
    NoiseScores,
    band_variances,
    filtered_power,
    found_figures,
    gained_filter,
    near,
    rate_figures,
    window_starts,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.whitening import (
    design_filter,
    periodograms,
)
from chirpwatch.train.evaluation.deployment import whiten_stretch
from chirpwatch.train.fitting.fit import find_config

CONFIG = find_config("matched")
GEOMETRY = Geometry(**yaml.safe_load(CONFIG.read_text())["data"]["geometry"])
RATE = GEOMETRY.sample_rate
SECONDS = 96
LEVEL = 1e-21
# Calibration and mains lines, as loud in the PSD of 2 s as recorded ones.
LINES = (36.7, 37.3, 60.0)


@pytest.fixture(scope="module")
def white() -> np.ndarray:
    return LEVEL * np.random.default_rng(5).standard_normal(SECONDS * RATE)


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    times = np.arange(SECONDS * RATE) / RATE
    return LEVEL * sum(np.sin(2 * np.pi * x * times + x) for x in LINES)


def variances(strain: np.ndarray, geometry: Geometry, design=design_filter):
    """Mean variance of each band after the first 64 s."""
    whitened = whiten_stretch(strain, geometry, design=design)
    return band_variances(whitened[60 * RATE :], geometry).mean(1)


def test_lines_do_not_leak_through_the_configured_filter(white, lines) -> None:
    """A filter shorter than the periodograms cannot resolve their lines."""
    assert variances(white, GEOMETRY) == pytest.approx(1, abs=0.1)
    # A line of three bins may take a tenth of a band of 64 bins at most.
    assert variances(white + lines, GEOMETRY)[0] == pytest.approx(0.95, abs=0.1)
    longer = replace(GEOMETRY, fftlength=2 * GEOMETRY.fduration)
    assert variances(white + lines, longer)[0] > 1.5


def test_band_gains_scale_a_loud_band_to_unit_variance(white, lines) -> None:
    geometry = replace(GEOMETRY, fftlength=2.0, fduration=1.0)
    plain = variances(white, geometry)
    assert variances(white, geometry, gained_filter) == pytest.approx(plain, abs=0.04)
    loud = variances(white + lines, geometry, gained_filter)
    # A part of the line at 60 Hz lies in the next band, whose gain is too low for it.
    assert loud[[0, 2]] == pytest.approx(1, abs=0.1)


def test_power_of_filtered_periodograms_is_the_whitened_variance(white, lines) -> None:
    geometry = replace(GEOMETRY, fftlength=2.0, fduration=1.0)
    seen = periodograms(white + lines, geometry.fft_size, RATE)
    expected = variances(white + lines, geometry)
    assert filtered_power(seen[-63:], geometry) == pytest.approx(expected, rel=0.2)


def test_thresholds_are_computed_from_the_remaining_windows() -> None:
    values = np.arange(40_000.0)
    scores = NoiseScores(
        values[::-1].copy(), np.tile(np.arange(40_000) // 20_000, (2, 1))
    )
    whole, left_out = scores.thresholds
    assert RATES == (1e-3, 1e-4)
    assert whole[0] == 39_959 and np.isnan(whole[1])
    # Block 0 has the louder half of the windows.
    assert left_out[:, 0].tolist() == [19_979, 39_979]
    shares, parts = scores.shares(np.array([19_999.5]))
    assert shares.tolist() == [0.5] and parts.tolist() == [[0.0], [1.0]]


def test_equal_noise_gives_the_references_figures() -> None:
    rng = np.random.default_rng(1)
    blocks = np.stack([rng.integers(0, 8, 200_000) for _ in range(2)])
    scores = NoiseScores(rng.standard_normal(200_000), blocks)
    mergers = 3 + rng.standard_normal((4, 50))
    rates = rate_figures(scores, scores, None)
    again = rate_figures(scores, scores, rates)
    assert [x["rate"] for x in rates] == pytest.approx(RATES)
    assert [x["ratio"] for x in again] == [1, 1]
    found = found_figures(mergers, scores, None)
    change = found_figures(mergers, scores, found)
    assert [x["change"] for x in change] == [0, 0]
    assert [x["change_error"] for x in change] == [0, 0]
    # The threshold of 1e-3 is 3.1 standard deviations.
    assert found[0]["found"] == pytest.approx(0.46, abs=0.1)


@pytest.mark.parametrize("event", [None, 16.4 * RATE])
def test_windows_with_mergers_share_no_strain_and_contain_no_event(event) -> None:
    rng, size = np.random.default_rng(2), 32 * RATE
    starts = np.concatenate(
        [window_starts(size, event, GEOMETRY, rng) for _ in range(50)], axis=1
    )
    assert starts.shape[1] > 20
    apart = GEOMETRY.kernel_size + GEOMETRY.filter_size
    assert (np.abs(np.diff(starts, axis=0)) >= apart).all()
    assert (starts >= GEOMETRY.psd_min_size - GEOMETRY.kernel_size).all()
    assert not near(starts.ravel(), event, GEOMETRY).any()
