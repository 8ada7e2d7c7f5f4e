"""The benchmark of networks in a search: its counting, and a complete run."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import deployed
from benchmarks.deployed import (
    LONE_SLIDES,
    LoneMergers,
    Recorder,
    Source,
    WindowRates,
    by_snr,
    efficiency_at,
    kernels_with,
    main,
    missed,
    population,
)
from benchmarks.deployed_report import MOST_ROWS, _each, _missed
from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.evaluation.deployment import (
    INJECTION_SPACING,
    DeployedValidation,
    Glitch,
    Injections,
    Piece,
    Slides,
)
from chirpwatch.train.evaluation.scoring import frames_of
from tests.networks import EnergyNetwork

GEOMETRY = Geometry(kernel_length=2.0)
RATE = GEOMETRY.sample_rate
SIZES = {"length": 240, "stretches": 2, "slides": 10, "injections": 8, "windows": 0}


@pytest.fixture(scope="module")
def validation() -> DeployedValidation:
    settings = WindowSettings(
        glitch_weights={"blip": 1.0}, min_glitch_snr=60.0, max_spin=0.9
    )
    return DeployedValidation(GEOMETRY, settings, 5, loud_injections=4, **SIZES)


def test_the_population_equals_the_trainings() -> None:
    settings = population()
    assert (settings.min_mass, settings.max_mass) == (5, 200)
    assert settings.max_spin == 0.9 and settings.mass_flattening == 0.8


def test_a_shorter_kernel_sees_the_same_strain(validation) -> None:
    shorter = replace(GEOMETRY, kernel_length=1.0)
    cut = validation.with_kernel_of(shorter)
    drawn = DeployedValidation(
        shorter, validation.settings, 5, loud_injections=4, **SIZES
    )
    assert cut.glitches == drawn.glitches and cut.geometry == shorter
    for one, other in zip(cut._background, drawn._background, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    for one, other in zip(cut.injections, drawn.injections, strict=True):
        torch.testing.assert_close(one.strain, other.strain, atol=1e-3, rtol=1e-3)
        assert one.mergers.tolist() == other.mergers.tolist()
        assert one.glitches == other.glitches
    # The original is unchanged.
    assert validation.geometry == GEOMETRY
    with pytest.raises(ConfigurationError, match="differ in kernel_length alone"):
        cut.with_kernel_of(GEOMETRY)
    with pytest.raises(ConfigurationError, match="differ in kernel_length alone"):
        validation.with_kernel_of(replace(shorter, highpass=20.0))


def test_glitches_and_mergers_are_at_their_listed_times(validation) -> None:
    stretches = [
        *zip(validation._background, validation.glitches, strict=True),
        *((one.strain, one.glitches) for one in validation.injections),
    ]
    counted = 0
    for strain, glitches in stretches:
        for ifo, center, snr in glitches:
            if 0 <= center < strain.shape[-1]:
                # Short blips with an SNR above 60 have a peak of many sigma.
                near = strain[ifo, max(0, center - 200) : center + 200]
                assert near.abs().max() > 0.1 * snr
                counted += 1
    assert counted >= 5


def test_mergers_have_their_snr_in_each_detector(validation) -> None:
    for one in validation.injections:
        np.testing.assert_allclose((one.ifo_snrs**2).sum(1) ** 0.5, one.snrs, rtol=1e-5)
        assert one.masses.shape == (len(one.snrs), 2)
        assert (one.masses[:, 0] >= one.masses[:, 1]).all()
    loud = validation.injections[-1]
    assert len(loud.snrs) == 4 and (loud.snrs >= 15).all()
    assert sum(len(one.snrs) for one in validation.injections) == 12


@given(
    center=st.integers(-9000, 40_000),
    begin=st.integers(-5000, 5000),
    strides=st.integers(0, 90),
    margin=st.integers(0, 5000),
)
def test_kernels_that_contain_a_sample_are_listed(
    center, begin, strides, margin
) -> None:
    starts = begin + GEOMETRY.stride_size * np.arange(strides)
    ends = starts + GEOMETRY.kernel_size
    inside = (starts <= center + margin) & (center - margin < ends)
    chosen = np.zeros(strides, bool)
    chosen[kernels_with(center, begin, strides, GEOMETRY, margin)] = True
    assert chosen.tolist() == inside.tolist()


def test_repeated_strain_counts_once() -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 100_000, (2, 400))
    apart = Slides(np.ones(400), places, 1e6, 2.0)
    assert apart.effective_count(1.0) == pytest.approx(400, rel=0.25)
    assert apart.effective_count(2.0) == 0
    # All contain the same glitch in the first detector.
    glitch = Slides(np.ones(400), np.stack([places[0] * 0 + 7, places[1]]), 1e6, 2.0)
    quiet = Slides(
        np.concatenate([np.ones(400), np.zeros(400)]),
        np.concatenate([glitch.times, places], 1),
        1e6,
        2.0,
    )
    assert quiet.effective_count(1.0) == pytest.approx(1, abs=0.1)
    # Ten glitches with forty events each.
    ten = places.copy()
    ten[0] = 1000.0 * (np.arange(400) % 10)
    tens = Slides(
        np.concatenate([np.ones(400), np.zeros(400)]),
        np.concatenate([ten, places], 1),
        1e6,
        2.0,
    )
    assert tens.effective_count(1.0) == pytest.approx(10, rel=0.2)


def piece(scores: np.ndarray, stretch: int, shift: int) -> Piece:
    begins = np.array([0, shift * GEOMETRY.stride_size])
    return Piece(stretch, begins, scores.astype(np.float32))


def test_windows_and_glitches_are_taken_from_all_slides() -> None:
    rng = np.random.default_rng(2)
    glitch = Glitch(1, 500 * GEOMETRY.stride_size, 30.0)
    recorder = Recorder(GEOMETRY, [[glitch], []])
    series = []
    for shift in (100, 200):
        for stretch in (0, 1):
            scores = rng.normal(size=4000)
            scores[500 - shift] += 20 * (stretch == 0)
            series.append(scores)
            recorder.add(piece(scores, stretch, shift))
    (source,) = recorder.sources()
    assert source.snr == 30 and len(source.scores) == 2 and (source.scores > 15).all()
    # A kernel of 2 s, and 2.5 s of glitch and filter on either side.
    reach = 8 * (2 + 2 * 2.5)
    assert recorder.windows["all"] == 16_000
    assert recorder.windows["quiet"] == pytest.approx(16_000 - 2 * reach, abs=4)
    whole = -np.sort(-np.concatenate(series).astype(np.float32))
    rates = recorder.false_positives("all")
    assert rates.threshold(1e-3) == whole[16]
    assert rates.limits(1e-3)["windows"] == 16
    assert recorder.false_positives("quiet").threshold(1e-3) < rates.threshold(1e-3)
    # Too few kept events, and a rate with too few events above the threshold.
    assert rates.threshold(0.5) is None and rates.limits(0.5) is None
    assert rates.limits(1e-4) is None


def test_limits_follow_from_the_square_root_of_the_clusters() -> None:
    scores = np.arange(1000.0)
    places = np.stack([50.0 * np.arange(1000), 50.0 * np.arange(1000)[::-1]])
    rates = WindowRates(Slides(scores, places, 1e6, 2.0), 100_000)
    limits = rates.limits(1e-3)
    assert limits["threshold"] == 899 and limits["windows"] == 100
    # Clusters have separate strain; the variance of their number is slightly smaller.
    assert limits["clusters"] == pytest.approx(100, rel=0.15)
    assert limits["low"] == pytest.approx(909, abs=2)
    assert limits["high"] == pytest.approx(889, abs=2)


def test_a_single_detector_merger_is_combined_with_the_others_noise() -> None:
    geometry = GEOMETRY
    network = EnergyNetwork(geometry)
    spacing = round(INJECTION_SPACING * RATE)
    mergers = spacing * np.arange(1, 25)
    strain = torch.zeros(2, 26 * spacing + 5 * RATE)
    # The energy is 3 frame sizes in the first detector, 5 in the second.
    for ifo, energy in enumerate((3.0, 5.0)):
        strain[ifo, mergers] = math.sqrt(energy * geometry.frame_size)
    ifo_snrs = np.tile([10.0, 20.0], (24, 1))
    stretch = Injections(
        strain, mergers, np.full(24, 22.4), ifo_snrs, np.zeros((24, 2)), []
    )
    lone = LoneMergers(network)
    with torch.inference_mode():
        lone.add(stretch, frames_of(network, strain))
    assert len(lone.sources) == 48
    for snr, scores in lone.sources:
        assert 1 <= len(scores) <= LONE_SLIDES
        np.testing.assert_allclose(scores, {10.0: 3.0, 20.0: 5.0}[snr], rtol=1e-4)
    first, second = by_snr(lone.sources, (8.0, 15.0, 25.0), {"day": 4.0})
    assert first["sources"] == second["sources"] == 24
    assert first["above"]["day"]["share"] == 0 and second["above"]["day"]["share"] == 1
    assert first["quantiles"] == pytest.approx([3, 3, 3], rel=1e-4)


def test_errors_of_sources_come_from_their_differences() -> None:
    sources = [Source(10.0, np.full(8, float(i < 5))) for i in range(20)]
    (entry,) = by_snr(sources, (8.0, 12.0), {"day": 0.5})
    above = entry["above"]["day"]
    assert above["share"] == 0.25
    assert above["error"] == pytest.approx(np.sqrt(0.25 * 0.75 / 19), rel=1e-6)
    (empty,) = by_snr([], (8.0, 12.0), {"day": 0.5})
    assert empty["sources"] == 0 and "above" not in empty


def background(causes: int) -> Slides:
    """Ten days with 100 events above 0; each cause has a tenth of the loudest."""
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 1e5, (2, 100))
    places[0, -12:] = 2e5 + 100.0 * (np.arange(12) % causes)
    return Slides(np.arange(100.0), places, 10 * 86400.0, 2.0)


def test_shares_need_background_and_causes() -> None:
    loudest = np.array([-np.inf, 80.0, 92.0, 99.0, 99.0])
    day = efficiency_at(loudest, background(12), 86400.0, 4)
    # FAR = (n + 1) / T: nine louder events, plus one.
    assert day["events"] == day["causes"] == 9
    assert day["share"] == 0.5 and 0 < day["wilson"][0] < 0.5
    assert day["high"] <= day["threshold"] <= day["low"]
    assert day["share_low"] <= day["share"] <= day["share_high"]
    few = efficiency_at(loudest, background(2), 86400.0, 4)
    assert few["causes"] == 2 and "share" not in few
    assert efficiency_at(loudest, background(12), 10 * 86400.0, 4)["events"] == 0


def test_missed_mergers_are_listed_with_nearby_events_and_glitches() -> None:
    stretch = Injections(
        torch.zeros(2, 1),
        RATE * np.array([10, 30, 50]),
        np.array([14.0, 16.0, 20.0]),
        np.array([[10.0, 9.8], [15.7, 3.0], [14.0, 14.3]]),
        np.array([[30.0, 20.0], [40.0, 6.0], [50.0, 50.0]]),
        [Glitch(1, 31 * RATE, 12.0), Glitch(0, 36 * RATE, 99.0)],
    )
    limits = {"threshold": 5.0, "low": 6.0, "high": 4.5}
    result = missed([stretch], np.array([-np.inf, 4.0, 5.5]), limits, GEOMETRY)
    assert result["mergers"] == 2 and result["missed"] == 1
    assert result["missed_low"] == 2 and result["missed_high"] == 1
    (row,) = result["list"]
    assert row["masses"] == [40.0, 6.0] and row["ifo_snrs"] == {"H1": 15.7, "L1": 3.0}
    assert row["glitches"] == [{"ifo": "L1", "snr": 12.0, "after": 1.0}]


def test_the_table_shows_the_snr_of_missed_mergers() -> None:
    row = {"snr": 20.0, "statistic": None, "masses": [9.0, 8.0], "glitches": []}
    faint = {**row, "ifo_snrs": {"H1": 3.0, "L1": 19.8}}
    loud = {**row, "snr": 30.0, "statistic": 1.0, "ifo_snrs": {"H1": 9.0, "L1": 28.6}}
    loud["glitches"] = [{"ifo": "L1", "snr": 12.4, "after": -0.5}]
    figure = {
        **{"mergers": 400, "missed": 2, "wilson": (0.002, 0.01)},
        **{"missed_low": 3, "missed_high": 2, "list": [faint, loud]},
    }
    text = _missed({"networks": {"one": {"missed": {"day": figure}}}})
    assert "2 of 400 missed, 0.50 %" in text
    assert "1 have an SNR below 4 in one detector, and 1 a glitch" in text
    first = "| 9.0, 8.0 | 30.0 | 9.0 | 28.6 | 1.00 | L1, SNR 12, -0.5 s |"
    assert text.index(first) < text.index("| 9.0, 8.0 | 20.0 | 3.0 | 19.8 | no event |")
    assert "And 3 fainter ones" in _each([loud] * (MOST_ROWS + 3))


def test_the_command_writes_figures_and_tables(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(deployed, "WINDOW_STRETCHES", 1)
    options = {
        **{"length": 480, "stretches": 2, "slides": 64},
        **{"injections": 12, "loud": 4, "windows": 4},
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = CliRunner().invoke(
        main,
        [str(tmp_path), *arguments, "--network", "split"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "deployed.json").read_text())
    text = (tmp_path / "deployed.md").read_text()
    assert text.strip() == done.output.strip()
    one = result["networks"]["split"]
    # Eight hours of background: a FAR of one per hour would need ten.
    assert 28_000 < one["livetime"] < 31_000 and "share" not in one["rates"]["hour"]
    assert one["windows"]["quiet"] < one["windows"]["all"] == one["livetime"] * 8
    assert {(entry["kind"], entry["rate"]) for entry in one["found"]} == {
        (kind, rate) for kind in ("all", "quiet") for rate in (1e-3, 1e-4, 1e-5, 1e-6)
    }
    assert sum(entry["pairings"] for entry in one["glitches"]) >= 64
    assert "| split | one a day | n/a |" in text
