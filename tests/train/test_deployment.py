"""Validation as in deployment: the search's rules, on strain that is drawn once."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from chirpwatch.errors import ConfigurationError
from chirpwatch.export import reference
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.evaluation import deployment
from chirpwatch.train.evaluation.deployment import (
    DeployedValidation,
    Slides,
    partial_auroc,
    whiten_stretch,
)
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    kernel_frames,
    score_slide,
    score_stretch,
)
from chirpwatch.train.networks.baseline import (
    DenseResNet,
    SeedResNet,
)
from chirpwatch.train.networks.checkpoint import load_checkpoint
from chirpwatch.train.networks.network import Network
from tests.networks import SPLIT

GEOMETRY = Geometry()
SETTINGS = WindowSettings(batch_size=64, bank_size=16, glitch_bank_size=16, stretches=1)


@pytest.fixture(scope="module")
def split() -> Network:
    return load_checkpoint(SPLIT)[0].fused()


@pytest.fixture(scope="module")
def validation() -> DeployedValidation:
    return DeployedValidation(
        GEOMETRY, SETTINGS, 7, length=240, slides=10, injections=12, windows=128
    )


def test_stretches_are_whitened_as_the_search_whitens_them() -> None:
    strain, _ = simulate_background(101, "O3", ["H1"], 2048, seed=3, glitch_rate=0.1)
    ours = whiten_stretch(strain["H1"], GEOMETRY)
    theirs = reference.whiten(strain["H1"][None, None], GEOMETRY)
    begin = 8 * 2048 - 1024 - 2048 - theirs.start
    expected = theirs.strain[0, 0, begin:]
    assert len(ours) == len(expected)
    np.testing.assert_allclose(ours, expected, atol=2e-3)


@torch.inference_mode()
def test_slides_score_what_shifted_strain_scores(split: Network) -> None:
    strain = torch.randn(2, 70 * 2048, generator=torch.Generator().manual_seed(1))
    frames = frames_of(split, strain)
    assert frames.shape[-1] == split.features(strain[None]).shape[-1]
    shift = 9 * GEOMETRY.stride_size
    kernel = kernel_frames(split)
    total = frames.shape[-1]
    (ahead, before), (behind, after) = score_slide(split, frames, shift // 32, kernel)
    assert ahead == [0, shift // 32] and behind == [total - shift // 32, 0]
    slid = torch.stack([strain[0, :-shift], strain[1, shift:]])
    expected, _ = score_stretch(split, slid)
    torch.testing.assert_close(before, expected, atol=1e-4, rtol=1e-4)
    # Frames at the ends also see strain beyond the cut.
    assert len(after) == (72 - kernel) // 8 + 1


@torch.inference_mode()
def test_each_kind_of_network_scores_a_stretch_as_its_kernels(split: Network) -> None:
    strain = torch.randn(2, 3 * 2048)
    windows = strain.unfold(-1, 2048, 256).transpose(0, 1)
    for network in (
        split,
        DenseResNet(GEOMETRY, width=16).fused(),
        SeedResNet(GEOMETRY, width=16).fused(),
    ):
        scores, _ = score_stretch(network, strain)
        expected = torch.cat([network(window[None])[0] for window in windows])
        # The reference network's trunk runs in bfloat16 here.
        limit = 0.02 if isinstance(network, SeedResNet) else 1e-4
        torch.testing.assert_close(scores, expected, atol=limit, rtol=limit)


def test_the_partial_area_counts_signals_over_the_loudest_noise() -> None:
    noise = torch.arange(20_000.0)
    # Signals above 15 of the 20 loudest noise scores, above all, and below all.
    signal = torch.tensor([19_994.5, 20_000.5, 19_979.0])
    expected = (15 / 20 + 1 + 0) / 3
    assert partial_auroc(noise, signal, 1e-3) == pytest.approx(expected, abs=0.02)
    assert math.isnan(partial_auroc(noise[:9000], signal, 1e-3))


def test_a_repeated_validation_gives_the_same_figures(split, validation) -> None:
    result = validation.evaluate(split)
    assert result == validation.evaluate(split)
    assert result["valid_loss"] < 0.6
    # 10 slides of 4 minutes are 40 minutes: too few for a FAR of one per hour.
    assert 2000 < result["valid_livetime"] < 2400
    assert math.isnan(result["valid_found_hour"])
    again = DeployedValidation(
        GEOMETRY, SETTINGS, 7, length=240, slides=10, injections=12, windows=128
    )
    assert again.evaluate(split) == result


@torch.inference_mode()
def test_every_loud_injection_has_an_event_of_its_own(
    split: Network, monkeypatch
) -> None:
    # The smallest possible distance between two injections.
    tightest = deployment.INJECTION_SPACING - 2 * deployment.INJECTION_JITTER
    monkeypatch.setattr(deployment, "INJECTION_SPACING", tightest)
    monkeypatch.setattr(deployment, "INJECTION_JITTER", 0.0)
    settings = replace(SETTINGS, last_snr=25.0, first_snr=30.0, min_mass=20.0)
    validation = DeployedValidation(
        GEOMETRY, settings, 9, length=1600, slides=1, injections=32, windows=128
    )
    assert np.isfinite(validation.run_injections(split)).all()


def test_slides_without_a_separate_head_are_the_same(
    split: Network, validation, monkeypatch
) -> None:
    network, cheap = split.fused(), validation.run_slides(split.fused())
    monkeypatch.setattr(deployment, "has_slides", lambda network: False)
    monkeypatch.setattr(validation, "plain_slides", validation.slides)
    plain = validation.run_slides(network)
    # A kernel must end within its slide, a frame need not: a few scores fewer.
    assert 0.98 * cheap.livetime < plain.livetime < cheap.livetime
    found, expected = (
        dict(zip(map(tuple, x.times.T), x.statistics, strict=True))
        for x in (plain, cheap)
    )
    common = found.keys() & expected.keys()
    assert len(common) > 0.4 * len(found)
    for place in common:
        assert found[place] == pytest.approx(expected[place], abs=1e-3)


def test_an_event_has_its_place_in_each_detectors_strain(
    split: Network, validation
) -> None:
    slides = validation.run_slides(split.fused())
    loudest = int(slides.statistics.argmax())
    # The same kernels of the same stretch, combined again by hand.
    apart = 2 * validation._size / 2048
    number = int(slides.times[0, loudest] // apart)
    strain = validation._background[number]
    starts = (slides.times[:, loudest] - number * apart) * 2048
    pair = [strain[i, int(start) : int(start) + 2048] for i, start in enumerate(starts)]
    with torch.inference_mode():
        score = float(split.fused()(torch.stack(pair)[None]))
    assert score == pytest.approx(slides.statistics[loudest], abs=1e-3)


def test_events_that_share_a_glitch_have_one_cause() -> None:
    first = [10.0, 10.4, 10.9, 50.0, 90.0, 70.0, 200.0]
    others = [1.0, 30.0, 60.0, 500.0, 500.6, 503.0, 800.0]
    slides = Slides(np.arange(7.0), np.array([first, others]), 100.0, 1.0)
    # A glitch in the first detector at 10 s, one in the others at 500 s, two alone.
    assert slides.causes(-np.inf) == 4
    assert slides.causes(3.0) == 3 and slides.causes(6.0) == 1
    assert slides.causes(7.0) == 0


def test_injections_are_found_at_their_times(split: Network) -> None:
    settings = replace(SETTINGS, last_snr=30.0, first_snr=40.0, min_mass=20.0)
    validation = DeployedValidation(
        GEOMETRY,
        settings,
        8,
        length=1000,
        slides=40,
        injections=20,
        windows=128,
    )
    result = validation.evaluate(split)
    assert result["valid_livetime"] > 36_000
    assert result["valid_found_hour"] >= 0.9
    assert math.isnan(result["valid_found_day"])


def test_networks_without_slides_report_their_livetime(validation) -> None:
    network = DenseResNet(GEOMETRY, width=16)
    result = validation.evaluate(network)
    assert result["valid_livetime"] == 0 and math.isnan(result["valid_found_hour"])
    assert result["valid_loss"] > 0


def test_more_slides_than_the_strain_allows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"at least 2\.125 s between two"):
        DeployedValidation(GEOMETRY, SETTINGS, 1, length=100, slides=100)
