"""The plan of a background run, against brute-force counting."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chirpwatch.errors import (
    ConfigurationError,
    ShiftError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.streamer.background.plan import (
    Plan,
    make_plan,
    min_step,
    valid_ranges,
)
from tests.builders import START, valid_by_hand

GEOMETRIES = {2: Geometry(), 3: Geometry(ifos=("H1", "L1", "V1"))}
FRAMES_PER_STRIDE = 8
WARMUP_FRAMES = 512


class Sized:
    """Strain whose values do not matter, only its length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def segment(length: float, start: float = START, ifos: int = 2) -> Segment:
    names = GEOMETRIES[ifos].ifos
    strain = {ifo: Sized(round(length * 2048)) for ifo in names}
    return Segment(round(start * NANOSECONDS), 2048, strain)


def one_after_another(lengths: list[float], ifos: int = 2) -> list[Segment]:
    starts = np.cumsum([0.0, *lengths[:-1]]) + START
    return [segment(n, s, ifos) for n, s in zip(lengths, starts, strict=True)]


def count(plan: Plan) -> int:
    return sum(sum(job.strides) for job in plan.jobs)


@given(st.data())
def test_valid_strides_agree_with_brute_force(data):
    strides = data.draw(st.integers(64, 400))
    shift = st.integers(0, strides * FRAMES_PER_STRIDE - 1)
    shifts = tuple(data.draw(st.lists(shift, min_size=1, max_size=2)))
    geometry = GEOMETRIES[len(shifts) + 1]
    found = np.zeros(strides, bool)
    ranges = valid_ranges(geometry, strides, shifts)
    for begin, end in ranges:
        assert 0 <= begin < end <= strides
        found[begin:end] = True
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges))
    np.testing.assert_array_equal(found, valid_by_hand(strides, shifts))


plans = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.floats(5, 150), min_size=1, max_size=4),
        "ifos": st.sampled_from([2, 3]),
        "stretch_length": st.floats(30, 90),
        "step": st.integers(131, 400),
    }
)


def plan_of(
    lengths: list[float], ifos: int, stretch_length: float, step: int, **wanted: float
) -> Plan:
    try:
        return make_plan(
            one_after_another(lengths, ifos),
            GEOMETRIES[ifos],
            stretch_length=stretch_length,
            step_length=step / 64,
            **wanted,
        )
    except StrainError:
        assume(False)
        raise


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(1, 6))
def test_no_pair_of_data_is_used_twice(drawn, slides):
    try:
        plan = plan_of(**drawn, slides=slides)
    except ConfigurationError:
        assume(False)
        raise
    ifos = drawn["ifos"]
    least = min_step(GEOMETRIES[ifos])
    for one, other in itertools.combinations(range(ifos), 2):
        for number, stretch in enumerate(plan.stretches):
            frames = stretch.strides * FRAMES_PER_STRIDE
            t = np.arange(frames)
            # Zero-lag pairs are excluded too.
            pairs = [t * frames + t]
            shifts = [0]
            for job in plan.jobs:
                if job.stretch == number:
                    for further in job.shifts:
                        every = (0, *further)
                        first, second = (t + every[one]) % frames, t + every[other]
                        pairs.append(first * frames + second % frames)
                        shifts.append((every[other] - every[one]) % frames)
            together = np.concatenate(pairs)
            assert len(np.unique(together)) == len(together)
            for a, b in itertools.combinations(shifts, 2):
                apart = (a - b) % frames
                assert least <= apart <= frames - least


@settings(max_examples=40, deadline=None)
@given(plans, st.floats(1, 4000))
def test_the_plan_has_no_more_slides_than_the_livetime_needs(drawn, livetime):
    try:
        plan = plan_of(**drawn, livetime=livetime)
    except ConfigurationError as error:
        assert "at most" in str(error)
        return
    slides = 0
    for job in plan.jobs:
        strides = plan.stretches[job.stretch].strides
        for shifts, promised in zip(job.shifts, job.strides, strict=True):
            assert promised == valid_by_hand(strides, shifts).sum() > 0
            slides += 1
    assert plan.slides == slides
    assert plan.livetime == count(plan) / 8
    smallest = min(min(job.strides) for job in plan.jobs)
    largest = max(max(job.strides) for job in plan.jobs)
    assert livetime <= plan.livetime <= livetime + (largest + 1) / 8
    assert smallest > 0
    assert plan.livetime <= plan.max_livetime
    assert [job.number for job in plan.jobs] == list(range(len(plan.jobs)))


@settings(max_examples=40, deadline=None)
@given(plans)
def test_the_largest_livetime_is_that_of_all_slides(drawn):
    try:
        least = plan_of(**drawn, slides=1)
    except ConfigurationError:
        assume(False)
        raise
    most = least.max_livetime
    plan = plan_of(**drawn, livetime=most)
    assert plan.livetime == most
    further = drawn["ifos"] - 1
    expected = 0
    for stretch in plan.stretches:
        frames = stretch.strides * FRAMES_PER_STRIDE
        k = 1
        while frames - k * further * drawn["step"] >= drawn["step"]:
            shifts = tuple(i * k * drawn["step"] for i in range(1, further + 1))
            expected += valid_by_hand(stretch.strides, shifts).sum()
            k += 1
    assert expected / 8 == most
    with pytest.raises(ConfigurationError, match=f"at most {most:.1f} s"):
        plan_of(**drawn, livetime=most + 0.01)


@settings(max_examples=40, deadline=None)
@given(plans)
def test_stretches_are_whole_strides_and_do_not_overlap(drawn):
    try:
        plan = plan_of(**drawn, slides=1)
    except ConfigurationError:
        assume(False)
        raise
    segments = one_after_another(drawn["lengths"], drawn["ifos"])
    for one, other in itertools.pairwise(plan.stretches):
        assert one.start_ns + one.strides * NANOSECONDS // 8 <= other.start_ns
    for stretch in plan.stretches:
        assert stretch.strides / 8 <= drawn["stretch_length"]
        where = segments[stretch.segment]
        assert stretch.start_ns == where.time_ns(stretch.start)
        assert stretch.start + stretch.strides * 256 <= where.size
    for number, where in enumerate(segments):
        sizes = [s.strides for s in plan.stretches if s.segment == number]
        used = sum(sizes) * 256
        if used < where.size:
            assert any(where.name in what for what in plan.left_out)
        if sizes:
            assert max(sizes) - min(sizes) <= 1


def test_a_job_holds_no_more_than_512_slides():
    short = Geometry(kernel_length=0.5, fduration=0.5)
    plan = make_plan([segment(1024)], short, slides=900)
    assert [len(job.shifts) for job in plan.jobs] == [512, 388]
    assert [job.shifts[0] for job in plan.jobs] == [(67,), (67 * 513,)]


def test_slides_come_in_rounds_over_all_stretches(geometry):
    plan = make_plan([segment(180)], geometry, livetime=400, stretch_length=60)
    # The first slide of a stretch has 50 s, the second 48 s, the third 45.875 s.
    assert [job.strides for job in plan.jobs] == [(400, 384, 367)] * 3
    assert {job.shifts[0] for job in plan.jobs} == {(131,)}
    plan = make_plan([segment(180)], geometry, livetime=198, stretch_length=60)
    assert [job.strides for job in plan.jobs] == [(400, 384), (400,), (400,)]


def test_the_smallest_step_covers_kernel_filter_and_light_travel(geometry):
    # 1 s, 1 s, and 42.55 ms through the Earth, in frames of 1/64 s.
    assert min_step(geometry) == 131
    assert make_plan([segment(60)], geometry, slides=1).step == 131


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"livetime": 1e9},
            ConfigurationError,
            r"at most .* 1 stretch\(es\) in 1 segment",
        ),
        ({"livetime": 0.0}, ConfigurationError, "above 0 s, found 0 s"),
        ({"livetime": -1.0}, ConfigurationError, "above 0 s, found -1 s"),
        ({"livetime": float("nan")}, ConfigurationError, "above 0 s, found nan"),
        ({"slides": 0}, ConfigurationError, "at least one slide, found 0"),
        ({"slides": 10_000}, ConfigurationError, "at most [0-9]+ slides"),
        ({}, ConfigurationError, "either a livetime or a number"),
        ({"slides": 1, "livetime": 1.0}, ConfigurationError, "either a livetime or"),
        (
            {"slides": 1, "step_length": 2.05},
            ShiftError,
            r"multiple of a feature frame, 0\.015625 s, found 2\.05 s",
        ),
        (
            {"slides": 1, "step_length": 2.03125},
            ShiftError,
            r"at least .* 2\.04688 s, found 2\.03125 s",
        ),
        (
            {"slides": 1, "step_length": 100.0, "stretch_length": 100.0},
            ShiftError,
            "less than the stretches of 100 s, found 100 s",
        ),
        (
            {"slides": 1, "stretch_length": 1281.0},
            ConfigurationError,
            "at most 1280 s, the longest request that the models accept, found 1281 s",
        ),
        ({"slides": 1, "stretch_length": 8.0}, StrainError, "warm-up of 8 s"),
        ({"slides": 1, "stretch_length": 2.0}, ShiftError, "less than the stretches"),
    ],
)
def test_an_impossible_plan_is_refused(geometry, options, error, message):
    with pytest.raises(error, match=message):
        make_plan([segment(200)], geometry, **options)


def test_data_that_are_given_twice_are_refused(geometry):
    again = [segment(100), segment(100, START + 99.5)]
    with pytest.raises(StrainError, match=r"do not overlap.*1262304099\.5-100"):
        make_plan(again, geometry, slides=1)
    with pytest.raises(StrainError, match="do not overlap"):
        make_plan([segment(100), segment(100)], geometry, slides=1)


def test_no_data_are_refused(geometry):
    with pytest.raises(StrainError, match="found none"):
        make_plan([], geometry, slides=1)
    with pytest.raises(StrainError, match="9 s, less than the"):
        make_plan([segment(9)], geometry, slides=1)


def test_one_detector_has_no_slides():
    alone = Geometry(ifos=("H1",))
    with pytest.raises(ShiftError, match="two detectors or more, found H1 alone"):
        make_plan([segment(100)], alone, slides=1)


def test_strain_of_another_rate_or_detector_is_refused(geometry):
    other = Segment(0, 4096, {"H1": Sized(10**6), "L1": Sized(10**6)})
    with pytest.raises(StrainError, match="expects 2048 Hz, found 4096 Hz"):
        make_plan([other], geometry, slides=1)
    alone = Segment(0, 2048, {"H1": Sized(10**6)})
    with pytest.raises(StrainError, match="expected detectors H1, L1, found H1"):
        make_plan([alone], geometry, slides=1)
