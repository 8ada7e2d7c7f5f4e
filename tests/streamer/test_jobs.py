import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch.errors import (
    ConfigurationError,
    ShiftError,
    SignalError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.streamer.replay.inputs import Replay
from chirpwatch.streamer.replay.jobs import SequenceJob
from tests.builders import T0_NS, random_signals

RATE = 2048
GEOMETRY = Geometry()


def segment(seconds: int = 40, rate: int = RATE) -> Segment:
    """Strain whose values are the sample's index, negative in L1."""
    ramp = np.arange(seconds * rate, dtype=float)
    return Segment(T0_NS, rate, {"H1": ramp, "L1": -ramp})


@given(st.integers(-30, 30), st.integers(-30, 30))
def test_detectors_are_read_at_their_shifts(h1: int, l1: int) -> None:
    """At analysis time t, a detector shifted by s is read at t + s."""
    shifts = (h1 / 2, l1 / 2)
    job = SequenceJob(segment(), GEOMETRY, shifts)
    strain = job.read(0, job.size)
    assert job.size == 40 * RATE - abs(h1 - l1) * RATE // 2
    for row, shift, sign in zip(strain[0], shifts, (1, -1), strict=True):
        analysis_time = (job.t0_ns - T0_NS) / NANOSECONDS
        assert sign * row[0] == (analysis_time + shift) * RATE
        assert sign * row[-1] - sign * row[0] == job.size - 1


@pytest.mark.parametrize(
    ("shifts", "error", "words"),
    [
        ((0.0, 40.0), ShiftError, "differ by less than its 40 s"),
        ((0.0, -40.0), ShiftError, "differ by less than its 40 s"),
        ((0.0, 32.5), StrainError, "at least 8 s .* found 7.5 s"),
        ((0.0, 1 / 128), ShiftError, "whole feature frames of 0.015625 s"),
        ((0.0,), ShiftError, "a shift for each of H1, L1"),
    ],
)
def test_shifts_that_leave_nothing_are_refused(
    shifts: tuple[float, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        SequenceJob(segment(), GEOMETRY, shifts)


def test_a_segment_shorter_than_the_warmup_is_refused() -> None:
    with pytest.raises(StrainError, match="the warm-up of the PSD"):
        SequenceJob(segment(seconds=7), GEOMETRY, (0.0, 0.0))
    # The first valid score is at the end of the warm-up.
    assert SequenceJob(segment(seconds=8), GEOMETRY, (0.0, 0.0)).strides == 64


def test_strain_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(StrainError, match="expects 2048 Hz, found 4096 Hz"):
        SequenceJob(segment(rate=4096), GEOMETRY, (0.0, 0.0))
    three = Geometry(ifos=("H1", "L1", "V1"))
    with pytest.raises(StrainError, match="detectors H1, L1, V1, found H1, L1"):
        SequenceJob(segment(), three, (0.0, 0.0, 0.0))
    other = Geometry(sample_rate=4096)
    with pytest.raises(SignalError, match="at 4096 Hz, found H1, L1 at 2048 Hz"):
        SequenceJob(segment(rate=4096), other, (0.0, 0.0), {"a": random_signals([500])})


def test_the_injected_row_differs_where_the_signal_is() -> None:
    one = random_signals([20 * RATE])
    job = SequenceJob(segment(), GEOMETRY, (0.0, 0.0), {"a": one})
    background, injected = job.read(0, job.size).astype(float)
    changed = np.flatnonzero((background != injected).any(0))
    start = 20 * RATE - one.merger_size
    assert (changed[0], changed[-1]) == (start, start + one.size - 1)


@pytest.mark.parametrize("name", ["", "a.b", "a" * 65, "a\n"])
def test_names_that_the_api_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(SignalError, match="injection set: expected a name"):
        SequenceJob(
            segment(), GEOMETRY, (0.0, 0.0), {name: random_signals([20 * RATE])}
        )


def test_two_segments_may_not_have_a_set_of_the_same_name() -> None:
    sets = {"a": random_signals([20 * RATE])}
    both = Replay([segment(40), segment(50)], signals={"x": sets, "y": sets})
    with pytest.raises(SignalError, match="found a in several segments"):
        both.jobs(GEOMETRY)


def test_short_segments_are_skipped_and_reported() -> None:
    later = Segment(T0_NS + 100 * NANOSECONDS, RATE, segment(16).strain)
    last = Segment(T0_NS + 200 * NANOSECONDS, RATE, segment(5).strain)
    replay = Replay([segment(40), later, last], slides=30)
    jobs, left_out = replay.jobs(GEOMETRY)
    assert [job.segment.duration for job in jobs] == [40, 16]
    assert len(left_out) == 1
    assert "5 s, less than the warm-up of 8 s" in left_out[0]
    plan, left_out = replay.background(GEOMETRY)
    assert plan is not None
    assert [len(job.shifts) for job in plan.jobs] == [18, 6]
    assert "timeslides of" in left_out[0] and "segment 1262304200-5" in left_out[0]
    assert "timeslides 19 to 30: the longest stretch allows 18" in left_out[1]


def test_without_slides_or_strain_for_them_there_is_no_background() -> None:
    assert Replay([segment()], slides=0).background(GEOMETRY) == (None, [])
    plan, left_out = Replay([segment(9)]).background(GEOMETRY)
    assert plan is None
    assert "less than the" in left_out[0]


@pytest.mark.parametrize("length", [0.05, 0.3, 0, 1e9, float("inf")])
def test_requests_are_whole_strides(length: float) -> None:
    with pytest.raises(ConfigurationError, match=r"a multiple of 0\.125 s"):
        Replay([segment()], request_length=length).jobs(GEOMETRY)


def test_a_detector_that_is_off_is_refused_with_its_time() -> None:
    ramp = np.arange(40.0 * RATE)
    off = ramp.copy()
    off[20 * RATE : 21 * RATE] = 0
    strain = Segment(T0_NS, RATE, {"H1": ramp, "L1": off})
    job = SequenceJob(strain, GEOMETRY, (0.0, 4.0))
    assert job.read(0, 16 * RATE).shape == (1, 2, 16 * RATE)
    with pytest.raises(StrainError, match=r"from GPS 1262304020\.000000 on in L1"):
        job.read(0, 40 * RATE - 4 * RATE)
