"""Injection rows that run only where needed give the scores of complete rows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chirpwatch.clustering import (
    Clusterer,
    ScoreEvent,
)
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import Segment
from chirpwatch.streamer.client import (
    ScoreClient,
    Scores,
)
from chirpwatch.streamer.replay.injections import (
    add_signals,
    signal_starts,
)
from chirpwatch.streamer.replay.jobs import SequenceJob
from tests.builders import T0_NS, join, random_signals

GEOMETRY = Geometry()
RATE = GEOMETRY.sample_rate
STRIDES = 30 * 8
SIZE = STRIDES * GEOMETRY.stride_size
REACH = GEOMETRY.kernel_size + GEOMETRY.filter_size


def loud(mergers: list[int], size: int, seed: int) -> ProjectedSignals:
    """Noise bursts so loud that they change every score whose strain contains one."""
    one = random_signals(sorted(mergers), size, seed)
    return ProjectedSignals(
        one.ifos,
        RATE,
        one.strain * np.float32(3e-22),
        one.merger_size,
        one.gps_time_ns,
        one.parameters,
    )


@st.composite
def foregrounds(draw: st.DrawFn) -> dict[str, ProjectedSignals]:
    """Up to four injection sets; signals may overlap and extend beyond the segment."""
    return {
        f"set{k}": loud(
            draw(st.lists(st.integers(-RATE, SIZE + RATE), max_size=5)),
            draw(st.sampled_from([1, 200, RATE, 4 * RATE])),
            seed=k,
        )
        for k in range(draw(st.integers(1, 4)))
    }


@pytest.fixture(scope="module")
def quiet(noise: np.ndarray) -> Segment:
    strain = dict(zip(GEOMETRY.ifos, noise[0, :, :SIZE], strict=True))
    return Segment(T0_NS, RATE, strain)


def whole_row(job: SequenceJob, name: str) -> Callable[[int, int], np.ndarray]:
    """Read row 0, and a set's own row over the complete segment."""
    starts = signal_starts(job.signals[name], job.t0_ns)

    def read(start: int, stop: int) -> np.ndarray:
        strain = job.read(start, stop)[0]
        return np.stack([strain, add_signals(strain, start, job.signals[name], starts)])

    return read


def picked(
    job: SequenceJob, name: str, answers: list[Scores]
) -> tuple[np.ndarray, ...]:
    pairs = [job.foreground.scores(name, answer) for answer in answers]
    score, delay = zip(*pairs, strict=True)
    return np.concatenate(score), np.concatenate(delay)


def events(score: np.ndarray, delay: np.ndarray, valid: np.ndarray) -> list[ScoreEvent]:
    clusterer = Clusterer(64)
    return [*clusterer.push(score, delay, valid), *clusterer.flush()]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets=foregrounds(), request_strides=st.sampled_from([3, 8, 37, 128, 512]))
def test_each_set_has_the_scores_of_a_complete_row(
    server: TritonServer,
    quiet: Segment,
    sets: dict[str, ProjectedSignals],
    request_strides: int,
) -> None:
    job = SequenceJob(quiet, GEOMETRY, (0.0, 0.0), sets)
    detector = ScoreClient(server.address)
    answers = list(detector.stream(job.read, STRIDES, request_strides))
    valid = np.concatenate([answer.valid for answer in answers])
    for name in sets:
        own = join(
            list(detector.stream(whole_row(job, name), STRIDES, request_strides))
        )
        score, delay = picked(job, name, answers)
        assert (valid == own[2]).all()
        assert (score == own[0][1])[valid].all()
        found = events(score, delay, valid)
        expected = events(own[0][1], own[1][1], valid)
        assert found == expected


@given(sets=foregrounds(), cuts=st.lists(st.integers(1, 100), min_size=1, max_size=9))
def test_a_sets_scores_use_only_the_sets_strain(
    quiet: Segment, sets: dict[str, ProjectedSignals], cuts: list[int]
) -> None:
    """Each score of a set uses strain that equals the set's bit for bit.

    The test follows the server's state of each row: a new row continues row 0.
    """
    job = SequenceJob(quiet, GEOMETRY, (0.0, 0.0), sets)
    stride_size = GEOMETRY.stride_size
    own = {name: whole_row(job, name)(0, SIZE)[1] for name in sets}
    past = np.zeros((1, 2, 0), np.float32)
    position = 0
    for cut in [*cuts, STRIDES]:
        stop = min(position + cut, STRIDES)
        piece = job.read(position * stride_size, stop * stride_size)
        assert len(piece) == job.foreground.rows(position, stop)
        kept = [past[row if row < len(past) else 0] for row in range(len(piece))]
        past = np.concatenate([np.stack(kept), piece], axis=2)
        for span in job.foreground.spans:
            for i in range(max(span.start, position), min(span.stop, stop)):
                seen = slice(
                    max((i + 1) * stride_size - REACH, 0), (i + 1) * stride_size
                )
                assert (past[span.row][:, seen] == own[span.name][:, seen]).all()
        position = stop
    # Outside the set's spans, its strain equals row 0 within a score's reach.
    for name in sets:
        for i in range(STRIDES):
            if not any(
                span.name == name and span.start <= i < span.stop
                for span in job.foreground.spans
            ):
                seen = slice(
                    max((i + 1) * stride_size - REACH, 0), (i + 1) * stride_size
                )
                assert (past[0][:, seen] == own[name][:, seen]).all()


@given(sets=foregrounds())
def test_no_two_spans_of_a_row_overlap_and_no_row_is_wasted(
    sets: dict[str, ProjectedSignals],
) -> None:
    ramp = np.arange(SIZE, dtype=np.float32)
    job = SequenceJob(
        Segment(T0_NS, RATE, {"H1": ramp, "L1": ramp}), GEOMETRY, (0.0, 0.0), sets
    )
    in_use = np.zeros((len(sets) + 1, STRIDES), int)
    for span in job.foreground.spans:
        in_use[span.row, span.start : span.stop] += 1
    assert in_use.max() <= 1
    most = int(in_use.sum(0).max())
    assert {span.row for span in job.foreground.spans} == set(range(1, most + 1))


def test_only_strides_with_an_injection_are_scored_twice(quiet: Segment) -> None:
    """Two signals of 1/4 s, each within reach for 2 s more, in requests of 1/8 s."""
    size = RATE // 4
    mergers = [10 * RATE + size * 3 // 4, 20 * RATE + size * 3 // 4]
    sets = {"a": loud(mergers[:1], size, 0), "b": loud(mergers[1:], size, 1)}
    job = SequenceJob(quiet, GEOMETRY, (0.0, 0.0), sets)
    rows = [job.foreground.rows(i, i + 1) for i in range(STRIDES)]
    # Two strides of the signal, plus kernel and filter, minus a stride.
    needed = 2 + REACH // GEOMETRY.stride_size - 1
    assert [span.row for span in job.foreground.spans] == [1, 1]
    assert sum(rows) - STRIDES == 2 * needed
    assert set(rows[80 : 80 + needed]) == {2}


def test_a_sequence_resumed_within_an_injection_gives_the_same(
    server: TritonServer, noise: np.ndarray
) -> None:
    strides = noise.shape[-1] // GEOMETRY.stride_size
    strain = dict(zip(GEOMETRY.ifos, noise[0], strict=True))
    # In the first set, signals overlap for longer than a restart's warm-up.
    sets = {
        "a": loud([k * RATE for k in range(20, 170, 3)], 4 * RATE, 0),
        "b": loud([k * RATE for k in range(20, 170, 24)], 4 * RATE, 1),
    }
    job = SequenceJob(Segment(T0_NS, RATE, strain), GEOMETRY, (0.0, 0.0), sets)
    detector = ScoreClient(server.address)
    undisturbed = list(detector.stream(job.read, strides, 64))
    for first in (161, 700, 1100, 1331):
        resumed = list(detector.stream(job.read, strides, 56, first))
        for name in sets:
            expected = picked(job, name, undisturbed)
            found = picked(job, name, resumed)
            for one, other in zip(found, expected, strict=True):
                assert (one == other[first:]).all()
