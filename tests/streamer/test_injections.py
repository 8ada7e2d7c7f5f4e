import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch.errors import SignalError
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.replay.injections import (
    add_signals,
    signal_starts,
)
from tests.builders import T0_NS, random_signals

RATE = 2048


def inject(strain: np.ndarray, one: ProjectedSignals) -> np.ndarray:
    return add_signals(strain, 0, one, signal_starts(one, T0_NS))


def test_overlapping_injections_add_up() -> None:
    strain = np.random.default_rng(1).standard_normal((2, 1000)).astype(np.float32)
    both = random_signals([400, 450])
    parts = [
        ProjectedSignals(
            both.ifos,
            RATE,
            both.strain[i : i + 1],
            both.merger_size,
            both.gps_time_ns[i : i + 1],
            {},
        )
        for i in (0, 1)
    ]
    expected = inject(strain, parts[0]) + inject(strain, parts[1]) - strain
    np.testing.assert_allclose(inject(strain, both), expected, atol=1e-5)


@given(
    st.lists(st.integers(-100, 1100), min_size=1, max_size=12),
    st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
def test_pieces_equal_the_complete_strain_bit_for_bit(
    mergers: list[int], cuts: list[int]
) -> None:
    strain = np.random.default_rng(2).standard_normal((2, 1000)).astype(np.float32)
    one = random_signals(sorted(mergers))
    starts = signal_starts(one, T0_NS)
    whole = add_signals(strain, 0, one, starts)
    pieces, position = [], 0
    for cut in [*cuts, 1000]:
        stop = min(position + cut, 1000)
        pieces.append(add_signals(strain[:, position:stop], position, one, starts))
        position = stop
    assert (np.concatenate(pieces, axis=1) == whole).all()


def test_the_merger_is_at_its_sample_and_nothing_wraps() -> None:
    strain = np.zeros((2, 1000), np.float32)
    one = random_signals([997])
    injected = inject(strain, one)
    assert (injected[:, 997] == one.strain[0, :, one.merger_size]).all()
    assert not injected[:, : 997 - one.merger_size].any()


def test_times_between_samples_round_to_the_nearest() -> None:
    one = random_signals([500])
    half = NANOSECONDS // RATE // 2
    for shift, expected in ((half - 1000, 500), (half + 1000, 501)):
        moved = ProjectedSignals(
            one.ifos, RATE, one.strain, one.merger_size, one.gps_time_ns + shift, {}
        )
        assert signal_starts(moved, T0_NS)[0] + one.merger_size == expected


def test_signals_of_other_detectors_are_refused() -> None:
    one = random_signals([500])
    with pytest.raises(SignalError, match="signals of 3 detectors"):
        inject(np.zeros((3, 1000), np.float32), one)
