"""False-alarm rates, thresholds, and injections found or missed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chirpwatch.errors import StatisticsError
from chirpwatch.statistics import (
    JULIAN_YEAR,
    Background,
    efficiency_by_snr,
    match_injections,
    poisson_interval,
    wilson_interval,
)

# Few distinct values, so that ties are common.
statistic = st.one_of(
    st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, allow_nan=False)
)
backgrounds = st.builds(
    Background.of,
    st.lists(statistic, max_size=40),
    st.floats(1e-3, 1e12, allow_nan=False),
)


@given(backgrounds, statistic)
def test_far_is_count_plus_one_over_livetime(background, value):
    rate = background.far(value)
    count = sum(value <= other for other in background.statistics)
    assert rate.count == count
    assert rate.far_per_year == pytest.approx(
        (count + 1) / (background.livetime / JULIAN_YEAR)
    )
    assert rate.saturated == (count == 0)
    assert rate.livetime == background.livetime


@given(backgrounds, statistic, statistic)
def test_a_louder_event_is_never_more_often_a_false_alarm(background, one, other):
    quiet, loud = sorted([one, other])
    assert background.far(loud).far_per_year <= background.far(quiet).far_per_year


@given(backgrounds, st.floats(1e-12, 1e300, allow_nan=False), statistic)
def test_passing_the_threshold_is_having_the_rate(background, rate, value):
    if rate < background.far(1e9).far_per_year:
        with pytest.raises(StatisticsError, match="analyse more timeslides"):
            background.threshold_at_far(rate)
        return
    threshold = background.threshold_at_far(rate)
    for candidate in [value, *background.statistics]:
        passes = background.far(candidate).far_per_year <= rate
        assert (candidate >= threshold) == passes
    if math.isfinite(threshold):
        assert background.far(threshold).far_per_year <= rate


@given(st.integers(1, 50), st.floats(1e-3, 1e12))
def test_the_rate_of_every_rank_is_reached_by_that_rank(size, livetime):
    background = Background.of(np.arange(size), livetime)
    for value in range(size):
        threshold = background.threshold_at_far(background.far(value).far_per_year)
        assert background.count(threshold) == background.count(value)
        assert threshold <= value


def test_too_little_background_raises_instead_of_giving_the_quietest_event():
    """An index of -0 into sorted events is the lowest statistic of all."""
    background = Background.of([1.0, 2.0, 3.0], livetime=3600)
    with pytest.raises(StatisticsError, match="3600"):
        background.threshold_at_far(1.0)


@pytest.mark.parametrize(
    ("statistics", "livetime"),
    [([1.0], 0.0), ([1.0], -1.0), ([1.0], math.nan), ([math.nan], 1.0)],
)
def test_background_that_is_none_is_refused(statistics, livetime):
    with pytest.raises(StatisticsError):
        Background.of(statistics, livetime)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_questions_that_are_not_finite_are_refused(value):
    background = Background.of([1.0], 100.0)
    with pytest.raises(StatisticsError):
        background.far(value)
    with pytest.raises(StatisticsError):
        background.threshold_at_far(value)


@given(backgrounds)
def test_ifar_curve_rises_to_a_saturated_end_within_its_band(background):
    points = background.ifar_curve()
    assert bool(points) == bool(background.statistics.size)
    for point in points:
        assert point.ifar_years_low <= point.ifar_years <= point.ifar_years_high
        rate = background.far(point.statistic)
        assert (point.count, point.saturated) == (rate.count, rate.saturated)
        assert point.ifar_years == pytest.approx(1 / rate.far_per_year)
    for one, next_one in itertools.pairwise(points):
        assert one.statistic < next_one.statistic
        assert one.ifar_years < next_one.ifar_years
    assert [point.saturated for point in points] == [False] * (len(points) - 1) + [
        True
    ] * bool(points)


def test_a_long_ifar_curve_is_thinned_and_keeps_its_loud_end():
    background = Background.of(np.random.default_rng(1).normal(size=100_000), 1e7)
    points = background.ifar_curve(max_points=90)
    assert len(points) <= 91
    loud = [point.statistic for point in points[-31:-1]]
    assert loud == background.statistics[-30:].tolist()
    assert points[0].statistic == background.statistics[0]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 300])
def test_poisson_interval_against_the_exact_one(count):
    one_sigma = stats.norm.cdf(1)
    low, high = poisson_interval(count)
    assert low == pytest.approx(
        stats.chi2.ppf(1 - one_sigma, 2 * count) / 2, rel=0.01, abs=0.01
    )
    assert high == pytest.approx(stats.chi2.ppf(one_sigma, 2 * count + 2) / 2, rel=0.01)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_interval_against_scipy(found, more):
    total = found + more
    low, high = wilson_interval(found, total)
    if not total:
        assert (low, high) == (0, 1)
        return
    expected = stats.binomtest(found, total).proportion_ci(
        2 * stats.norm.cdf(1) - 1, method="wilson"
    )
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-9)
    assert low <= found / total + 1e-12
    assert high >= found / total - 1e-12


times = st.lists(st.integers(0, 40), max_size=12).map(
    lambda values: [1_264_316_116 * 10**9 + value * 250_000_000 for value in values]
)


@given(times, times, st.data())
def test_matching_is_one_to_one_within_the_window_and_leaves_no_pair(
    injections, events, data
):
    loudness = data.draw(
        st.lists(statistic, min_size=len(events), max_size=len(events))
    )
    matched = match_injections(injections, events, loudness, window=0.5)
    assert len(matched) == len(injections)
    used = [event for event in matched if event >= 0]
    assert len(set(used)) == len(used)
    near = [
        [abs(event - injection) <= 500_000_000 for event in events]
        for injection in injections
    ]
    for injection, event in enumerate(matched):
        if event >= 0:
            assert near[injection][event]
        else:
            # Whatever could have explained a missed injection explains another.
            assert all(e in used for e, close in enumerate(near[injection]) if close)


@given(times, times, st.data())
def test_matching_does_not_depend_on_the_order_of_arrival(injections, events, data):
    loudness = [float(place) for place in range(len(events))]
    order = data.draw(st.permutations(range(len(events))))
    straight = match_injections(injections, events, loudness)
    shuffled = match_injections(
        injections, [events[i] for i in order], [loudness[i] for i in order]
    )
    assert straight.tolist() == [order[i] if i >= 0 else -1 for i in shuffled]


def test_the_loudest_event_chooses_first_and_takes_the_nearest_injection():
    second = 10**9
    matched = match_injections(
        [100 * second, 101 * second],
        [int(100.4 * second), int(100.6 * second)],
        [3.0, 9.0],
        window=0.7,
    )
    assert matched.tolist() == [0, 1]
    matched = match_injections([100 * second], [99_800_000_000] * 2, [1.0, 2.0])
    assert matched.tolist() == [1]


def test_the_window_is_inclusive_and_exact_in_nanoseconds():
    time = 1_264_316_116_123_456_789
    half = 500_000_000
    assert match_injections([time], [time + half], [0.0]).tolist() == [0]
    assert match_injections([time], [time + half + 1], [0.0]).tolist() == [-1]
    assert match_injections([time], [time - half - 1], [0.0]).tolist() == [-1]


def test_injections_without_any_event_are_missed_and_stay_in_the_denominator():
    matched = match_injections([10**18, 2 * 10**18], [], [])
    assert matched.tolist() == [-1, -1]
    bins = efficiency_by_snr([9.0, 9.5], matched >= 0)
    (filled,) = [part for part in bins if part.injections]
    assert (filled.found, filled.injections, filled.efficiency) == (0, 2, 0.0)
    assert (filled.snr_low, filled.snr_high) == (8.0, 10.0)


def test_every_injection_falls_into_one_bin():
    snr = np.random.default_rng(2).pareto(3, 500) * 4
    bins = efficiency_by_snr(snr, snr > 10)
    assert sum(part.injections for part in bins) == 500
    assert sum(part.found for part in bins) == np.count_nonzero(snr > 10)
