import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from scipy.signal import find_peaks

from chirpwatch.clustering import Clusterer, cluster_strides, find_events
from chirpwatch.export import timeslides
from chirpwatch.export.graph import Graph
from chirpwatch.geometry import Geometry


def find(score: np.ndarray, valid: np.ndarray, size: int, cuts: list[int]) -> list[int]:
    clusterer, events, position = Clusterer(size), [], 0
    for cut in [*cuts, len(score)]:
        piece = slice(position, position + cut)
        events += clusterer.push(score[piece], score[piece], valid[piece])
        position += cut
    events += clusterer.flush()
    assert all(event.statistic == score[event.stride] for event in events)
    return [event.stride for event in events]


scores = st.lists(
    st.tuples(st.integers(0, 6), st.booleans() | st.just(value=True)), max_size=80
)


@given(scores, st.integers(1, 12), st.lists(st.integers(1, 30), max_size=10))
def test_events_are_the_maxima_of_their_neighbourhood(
    pairs: list[tuple[int, bool]], size: int, cuts: list[int]
) -> None:
    score = np.array([pair[0] for pair in pairs], dtype=float)
    valid = np.array([pair[1] for pair in pairs], dtype=bool)
    masked = np.where(valid, score, -np.inf)
    expected = [
        i
        for i in np.flatnonzero(valid)
        if masked[i] == masked[max(0, i - size) : i + size + 1].max()
        and not (masked[max(0, i - size) : i] == masked[i]).any()
    ]
    assert find(score, valid, size, cuts) == expected
    assert np.flatnonzero(find_events(score, size, valid)).tolist() == expected


@given(st.integers(0, 2**32 - 1))
def test_events_are_peaks_of_scipy_and_the_loudest_among_them(seed: int) -> None:
    score = np.random.default_rng(seed).standard_normal(500)
    found = find(score, np.ones(500, bool), 20, [])
    peaks, _ = find_peaks(np.pad(score, 1, constant_values=-np.inf), distance=21)
    assert set(found) <= set(peaks - 1)
    assert int(np.argmax(score)) in found
    assert np.diff(found).min(initial=500) > 20


def test_no_scores_and_no_valid_score_give_no_event() -> None:
    empty = np.empty(0)
    assert find(empty, empty.astype(bool), 4, []) == []
    assert find(np.ones(20), np.zeros(20, bool), 4, [3]) == []


def test_a_loud_peak_has_no_shoulder_events() -> None:
    t = np.arange(-200, 200)
    score = 30 * np.exp(-np.abs(t) / 40)
    assert find(score, np.ones(400, bool), 64, [64] * 6) == [200]


def test_a_plateau_is_one_event_at_its_first_score() -> None:
    score = np.zeros(50)
    score[20:25] = 7
    assert find(score, np.ones(50, bool), 10, [21, 1, 1])[:2] == [0, 20]


@given(scores, st.integers(1, 12))
def test_nan_is_no_event_and_hides_none(
    pairs: list[tuple[int, bool]], size: int
) -> None:
    score = np.array([pair[0] for pair in pairs], dtype=np.float32)
    valid = np.array([pair[1] for pair in pairs], dtype=bool)
    for nothing in (np.nan, np.inf, -np.inf):
        without = np.where(valid, score, np.float32(nothing))
        np.testing.assert_array_equal(
            find_events(without, size), find_events(score, size, valid)
        )


@pytest.fixture(scope="module")
def peaks() -> onnxruntime.InferenceSession:
    """The part of the model ``slides`` that finds events, as a model."""
    graph = Graph()
    sizes: list[int | str] = ["slides", "strides"]
    model = graph.model(
        "peaks",
        [
            ("score", TensorProto.FLOAT, sizes),
            ("delay", TensorProto.FLOAT, sizes),
            ("valid", TensorProto.BOOL, sizes),
        ],
        timeslides._peaks(graph, Geometry(), "score", "delay", "valid"),
    )
    return onnxruntime.InferenceSession(model.SerializeToString())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 5, 1000]),
    slides=st.integers(1, 70),
    strides=st.integers(1, 300),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_graph_finds_the_same_events(
    peaks: onnxruntime.InferenceSession,
    seed: int,
    levels: int,
    slides: int,
    strides: int,
    share: float,
) -> None:
    """With ties, and with scores that are not valid, some of them NaN."""
    rng = np.random.default_rng(seed)
    score = rng.integers(levels, size=(slides, strides)).astype(np.float32)
    valid = rng.random(score.shape) >= share
    score[~valid] = rng.choice(np.float32([np.nan, np.inf, 99]), (~valid).sum())
    delay = rng.random(score.shape, dtype=np.float32)
    feed = {"score": score, "delay": delay, "valid": valid}
    peak, stride, its_delay, is_event = peaks.run(None, feed)
    expected = find_events(score, cluster_strides(Geometry()), valid)
    found = np.zeros_like(valid)
    row, window = np.nonzero(is_event)
    found[row, stride[row, window]] = True
    np.testing.assert_array_equal(found, expected)
    assert len(row) == expected.sum()
    np.testing.assert_array_equal(peak[row, window], score[row, stride[row, window]])
    np.testing.assert_array_equal(
        its_delay[row, window], delay[row, stride[row, window]]
    )
