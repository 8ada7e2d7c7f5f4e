"""p_astro for populations with known densities."""

import numpy as np
import pytest

from chirpwatch.astro import astrophysical_probability
from chirpwatch.background import Background
from chirpwatch.errors import StatisticsError
from chirpwatch.units import JULIAN_YEAR

YEARS = 1000.0
SLOPE = 1.4
FOUND = 20_000
VOLUME = 2e9
"""Volume that all injections represent together, Mpc^3."""


@pytest.fixture(scope="module")
def populations():
    """Statistics: exponential for noise, uniform from 0 to 20 for signals."""
    rng = np.random.default_rng(1)
    noise = rng.exponential(1 / SLOPE, 400_000)
    background = Background.of(noise, YEARS * JULIAN_YEAR, max_loud=50_000)
    found = rng.uniform(0, 20, FOUND)
    return background, found, np.full(FOUND, VOLUME / FOUND)


@pytest.mark.parametrize("statistic", [0.5, 3.0, 5.0, 7.0])
@pytest.mark.parametrize("rate", [5.0, 50.0])
def test_odds_follow_from_the_densities(populations, statistic, rate):
    odds = astrophysical_probability(statistic, *populations, rate)
    signals = rate * VOLUME / 1e9 / 20
    noise = 400_000 / YEARS * SLOPE * np.exp(-SLOPE * statistic)
    assert odds.signal_density == pytest.approx(signals, rel=0.5)
    assert odds.background_density == pytest.approx(noise, rel=0.35)
    assert odds.p_astro == pytest.approx(
        odds.signal_density / (odds.signal_density + odds.background_density)
    )
    assert not odds.saturated


def test_the_density_of_signals_is_unbiased(populations):
    """An estimate uses few injections; the mean over many has little scatter."""
    background, found, volumes = populations
    densities = [
        astrophysical_probability(at, background, found, volumes, 1.0).signal_density
        for at in np.linspace(1, 19, 400)
    ]
    # The span of the nearest injections is slightly too short at an end: 1 in 30.
    assert np.mean(densities) == pytest.approx(VOLUME / 1e9 / 20, rel=0.08)


def test_beyond_the_background_it_is_a_lower_limit(populations):
    background, found, volumes = populations
    odds = astrophysical_probability(19.0, background, found, volumes, 5.0)
    assert odds.saturated
    assert odds.background_density == pytest.approx(1 / YEARS * SLOPE, rel=0.2)
    # Beyond every injection too, the result is a probability.
    assert (
        0 < astrophysical_probability(40.0, background, found, volumes, 5.0).p_astro < 1
    )


def test_a_louder_candidate_is_more_likely_a_merger(populations):
    values = [
        astrophysical_probability(at, *populations, 5.0).p_astro for at in (2, 5, 8, 11)
    ]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("found", "noise", "rate", "message"),
    [
        (range(10), range(100), 1.0, "30 injections"),
        (range(100), [1.0], 1.0, "several different"),
        (range(100), range(100), 0.0, "above 0"),
    ],
)
def test_invalid_arguments_are_refused(found, noise, rate, message):
    background = Background.of(list(noise), 1e6)
    with pytest.raises(StatisticsError, match=message):
        astrophysical_probability(
            5.0, background, list(found), np.ones(len(found)), rate
        )
