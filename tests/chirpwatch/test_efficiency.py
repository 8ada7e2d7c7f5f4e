"""Matching injections with events, and the efficiency with its interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chirpwatch.efficiency import efficiency, match_injections, wilson_interval

# Few distinct values, so that ties are common.
statistic = st.one_of(
    st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, allow_nan=False)
)


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
def test_matching_is_one_to_one_and_leaves_no_possible_pair(injections, events, data):
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
            # Any event near a missed injection is matched with another one.
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


def test_the_loudest_event_is_matched_first_with_the_nearest_injection():
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
