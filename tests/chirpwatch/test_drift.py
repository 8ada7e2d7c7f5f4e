"""Drift: event rates that differ from the background's."""

import numpy as np
import pytest
from scipy.stats import binomtest

from chirpwatch.background import Background
from chirpwatch.drift import rate_drift


def test_events_from_the_background_do_not_drift():
    """Small p-values are as rare as they should be, or rarer."""
    rng = np.random.default_rng(8)
    livetime, rate = 1e6, 0.05
    probabilities = []
    for _ in range(300):
        noise = rng.exponential(size=rng.poisson(rate * livetime))
        background = Background.of(noise, livetime, max_loud=5000)
        events = rng.exponential(size=rng.poisson(rate * 3600))
        probabilities.append(rate_drift(background, events, 3600.0)[1])
    for level in (0.3, 0.1, 0.03):
        share = np.mean(np.array(probabilities) <= level)
        assert share <= level + 3 * np.sqrt(level / 300)
    assert np.mean(np.array(probabilities) <= 0.5) > 0.1


@pytest.mark.parametrize("change", ["more", "fewer", "louder"])
def test_events_from_another_distribution_drift(change):
    rng = np.random.default_rng(9)
    background = Background.of(rng.exponential(size=50_000), 1e6)
    size = {"more": 290, "fewer": 100, "louder": 180}[change]
    events = rng.exponential(size=size) * (2.5 if change == "louder" else 1)
    points, probability = rate_drift(background, events, 3600.0)
    assert probability < 1e-4
    assert len(points) == 8
    for point in points:
        count = background.count(point.statistic)
        assert point.expected == pytest.approx(count * 3600 / 1e6)
        assert point.observed == np.sum(events >= point.statistic)
        # Against SciPy's one-sided test of both counts.
        sides = [
            binomtest(
                point.observed,
                point.observed + count,
                3600 / (3600 + 1e6),
                alternative=side,
            ).pvalue
            for side in ("less", "greater")
        ]
        assert point.p_value == pytest.approx(min(1, 2 * min(sides)))


def test_without_time_or_background_nothing_drifts():
    background = Background.of([1.0, 2.0], 100.0)
    assert rate_drift(background, [], 0.0) == ([], 1.0)
    assert rate_drift(Background.of([], 100.0), [1.0], 50.0) == ([], 1.0)
