"""False-alarm rates, thresholds, and injections found or missed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from chirpwatch.background import (
    BINS_PER_UNIT,
    MAX_BINS,
    Background,
    false_alarm_probability,
    poisson_interval,
    significance,
)
from chirpwatch.drift import rate_drift
from chirpwatch.efficiency import efficiency, match_injections, wilson_interval
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
    for candidate in [value, *background.loud]:
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


# Also within one bin, and in bins that are next to each other.
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
    # But what is quieter than all the bins is in the first of them.
    if value > binned.floor - MAX_BINS / BINS_PER_UNIT + 1 / BINS_PER_UNIT:
        assert rate.count <= bin_below


@given(many, st.integers(0, 40), st.floats(1e-3, 1e3), fine)
def test_passing_the_threshold_is_having_the_rate_among_bins_as_well(
    values, kept, rate, value
):
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
def test_parts_together_count_as_the_whole_does(parts, kept, kept_together):
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
def test_the_ifar_curve_goes_on_below_the_floor(values, kept):
    binned = Background.of(values, 1e6, kept)
    points = binned.ifar_curve()
    assert points[0].count == binned.size
    assert [point.count for point in points] == [
        binned.far(point.statistic).count for point in points
    ]
    assert points[-1].saturated


def test_bins_are_of_use_for_a_hundred_million_events():
    """What is counted in bins takes the same memory however many there are."""
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
    bins = efficiency([9.0, 9.5], matched >= 0)
    (filled,) = [part for part in bins if part.injections]
    assert (filled.found, filled.injections, filled.efficiency) == (0, 2, 0.0)
    assert (filled.low_edge, filled.high_edge) == (8.0, 10.0)


def test_every_injection_falls_into_one_bin():
    snr = np.random.default_rng(2).pareto(3, 500) * 4
    bins = efficiency(snr, snr > 10)
    assert sum(part.injections for part in bins) == 500
    assert sum(part.found for part in bins) == np.count_nonzero(snr > 10)


def test_events_of_the_background_itself_do_not_drift():
    """And the probabilities are what they say, or less often small."""
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
def test_events_of_another_distribution_do(change):
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
        # Given both counts, by SciPy's own test of one side.
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
