"""False-alarm rates, thresholds, and the compact storage of a background."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chirpwatch.background import (
    BINS_PER_UNIT,
    MAX_BINS,
    Background,
    false_alarm_probability,
    poisson_interval,
    significance,
)
from chirpwatch.errors import StatisticsError
from chirpwatch.units import JULIAN_YEAR

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
    count = sum(value <= other for other in background.loud)
    assert rate.count == count
    assert rate.far_per_year == pytest.approx(
        (count + 1) / (background.livetime / JULIAN_YEAR)
    )
    assert rate.saturated == (count == 0)
    assert rate.livetime == background.livetime


@given(backgrounds, statistic, statistic)
def test_far_never_rises_with_the_statistic(background, one, other):
    quiet, loud = sorted([one, other])
    assert background.far(loud).far_per_year <= background.far(quiet).far_per_year


@given(backgrounds, st.floats(1e-12, 1e300, allow_nan=False), statistic)
def test_an_event_above_the_threshold_has_at_most_the_rate(background, rate, value):
    if rate < background.far(1e9).far_per_year:
        with pytest.raises(StatisticsError, match="analyse more timeslides"):
            background.threshold_at_far(rate)
        return
    threshold = background.threshold_at_far(rate)
    for candidate in [value, *background.loud]:
        passes = background.far(candidate).far_per_year <= rate
        assert (candidate >= threshold) == passes
    if math.isfinite(threshold):
        assert background.far(threshold).far_per_year <= rate


@given(st.integers(1, 50), st.floats(1e-3, 1e12))
def test_the_far_of_each_rank_gives_that_events_threshold(size, livetime):
    background = Background.of(np.arange(size), livetime)
    for value in range(size):
        threshold = background.threshold_at_far(background.far(value).far_per_year)
        assert background.count(threshold) == background.count(value)
        assert threshold <= value


def test_too_little_background_raises_instead_of_giving_the_quietest_event():
    """An index of -0 into sorted events would give the lowest statistic."""
    background = Background.of([1.0, 2.0, 3.0], livetime=3600)
    with pytest.raises(StatisticsError, match="3600"):
        background.threshold_at_far(1.0)


@pytest.mark.parametrize(
    ("statistics", "livetime"),
    [([1.0], 0.0), ([1.0], -1.0), ([1.0], math.nan), ([math.nan], 1.0)],
)
def test_invalid_background_is_refused(statistics, livetime):
    with pytest.raises(StatisticsError):
        Background.of(statistics, livetime)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_arguments_that_are_not_finite_are_refused(value):
    background = Background.of([1.0], 100.0)
    with pytest.raises(StatisticsError):
        background.far(value)
    with pytest.raises(StatisticsError):
        background.threshold_at_far(value)


@given(backgrounds)
def test_ifar_curve_rises_to_a_saturated_end_within_its_band(background):
    points = background.ifar_curve()
    assert bool(points) == bool(background.loud.size)
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
    assert loud == background.loud[-30:].tolist()
    assert points[0].statistic == background.loud[0]


# Also within a bin, and in adjacent bins.
fine = st.one_of(statistic, st.integers(-40, 40).map(lambda i: 3 + i / 200))
many = st.lists(fine, min_size=1, max_size=40)


@given(many, st.integers(0, 40), fine)
def test_counting_quiet_events_in_bins_is_exact_above_the_floor_and_a_bin_below(
    values, kept, value
):
    whole, binned = Background.of(values, 1e6), Background.of(values, 1e6, kept)
    assert binned.size == whole.size == len(values)
    assert binned.loud.size <= kept or math.isinf(binned.floor)
    rate = binned.far(value)
    count = sum(other >= value for other in values)
    if value >= binned.floor:
        assert (rate.count, rate.uncertain) == (count, 0)
        return
    assert rate.count - rate.uncertain <= count <= rate.count
    bin_below = sum(other >= value - 1 / BINS_PER_UNIT for other in values)
    # Events quieter than all bins are counted in the first bin.
    if value > binned.floor - MAX_BINS / BINS_PER_UNIT + 1 / BINS_PER_UNIT:
        assert rate.count <= bin_below


@given(many, st.integers(0, 40), st.floats(1e-3, 1e3), fine)
def test_thresholds_and_rates_agree_for_binned_events_too(values, kept, rate, value):
    binned = Background.of(values, JULIAN_YEAR, kept)
    if rate < 1:
        with pytest.raises(StatisticsError, match="analyse more timeslides"):
            binned.threshold_at_far(rate)
        return
    threshold = binned.threshold_at_far(rate)
    for candidate in [value, *values]:
        passes = binned.far(candidate).far_per_year <= rate
        assert (candidate >= threshold) == passes


@given(st.lists(many, min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_combined_parts_count_like_the_complete_background(parts, kept, kept_together):
    values = [value for part in parts for value in part]
    backgrounds = [Background.of(part, 10.0, kept) for part in parts]
    together = Background.merge(backgrounds, kept_together)
    assert together.livetime == 10.0 * len(parts)
    assert together.size == len(values)
    assert together.loud.tolist() == sorted(v for v in values if v >= together.floor)
    again = Background.of(values, together.livetime)._raised(together.floor)
    assert together.quiet.sum() == again.quiet.sum()
    for value in values:
        assert together.count(value) == again.count(value)


@given(many, st.integers(0, 40))
def test_the_ifar_curve_continues_below_the_floor(values, kept):
    binned = Background.of(values, 1e6, kept)
    points = binned.ifar_curve()
    assert points[0].count == binned.size
    assert [point.count for point in points] == [
        binned.far(point.statistic).count for point in points
    ]
    assert points[-1].saturated


def test_a_hundred_million_events_fit_in_the_bins():
    """Binned events take the same memory whatever their number."""
    rng = np.random.default_rng(1)
    parts = [Background.of(rng.normal(size=10_000), 1e4, 500) for _ in range(50)]
    together = Background.merge(parts, 1000)
    assert together.size == 500_000
    assert together.loud.size <= 1000
    assert together.quiet.size < 1500


def test_significance_against_scipy_and_the_small_rate_limit():
    assert false_alarm_probability(1.0, JULIAN_YEAR) == pytest.approx(1 - math.exp(-1))
    # A rate of 1 in 1e15 years, where 1 - exp(-x) rounds to nothing.
    tiny = false_alarm_probability(1e-15, JULIAN_YEAR)
    assert tiny == pytest.approx(1e-15, rel=1e-12)
    for sigma in (-1.0, 0.0, 3.0, 8.0):
        assert significance(stats.norm.sf(sigma)) == pytest.approx(sigma, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 20, 300])
def test_poisson_interval_against_the_exact_one(count):
    one_sigma = stats.norm.cdf(1)
    low, high = poisson_interval(count)
    assert low == pytest.approx(
        stats.chi2.ppf(1 - one_sigma, 2 * count) / 2, rel=0.01, abs=0.01
    )
    assert high == pytest.approx(stats.chi2.ppf(one_sigma, 2 * count + 2) / 2, rel=0.01)
