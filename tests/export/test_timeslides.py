"""The ``timeslides`` ensemble against slides that are run separately."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chirpwatch.clustering import Clusterer, cluster_strides
from chirpwatch.errors import (
    ModelError,
    ServerError,
    ShiftError,
    StrainError,
)
from chirpwatch.export import reference
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.strain import Segment
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.replay.jobs import SequenceJob
from chirpwatch.streamer.served import describe
from chirpwatch.streamer.timeslides import Timeslides

FRAME_LENGTH = 1 / 64


@pytest.fixture(scope="module")
def timeslides(server: TritonServer) -> Timeslides:
    return Timeslides(server.address)


def one_by_one(
    server: TritonServer, strain: np.ndarray, shift: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Run a slide as a separate sequence, which does not wrap around.

    Returns:
        The first detector's stride at the first score; scores, delays and validity.
    """
    geometry = Geometry()
    segment = Segment(
        0, geometry.sample_rate, dict(zip(geometry.ifos, strain, strict=True))
    )
    job = SequenceJob(segment, geometry, (0.0, shift * FRAME_LENGTH))
    pieces = list(
        ScoreClient(server.address).stream(
            job.read, job.strides, 256, offsets=job.offsets
        )
    )
    first, rest = divmod(job.offsets[0], geometry.stride_size)
    assert rest == 0
    return (
        first,
        np.concatenate([piece.score[0] for piece in pieces]),
        np.concatenate([piece.delay[0] for piece in pieces]),
        np.concatenate([piece.valid for piece in pieces]),
    )


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_slides_equal_slides_that_are_run_separately(
    server, timeslides, geometry, noise, data
):
    strides = data.draw(st.integers(200, 1200), label="strides")
    start = data.draw(st.integers(0, noise.shape[2] - strides * 256), label="start")
    strain = noise[data.draw(st.integers(0, 1)), :, start : start + strides * 256]
    period = strides * 8
    # In a separate sequence, a detector that is read earlier shifts the strides of the
    # first detector. So the part after the wrap is compared for whole strides only.
    shift = data.draw(st.integers(1, period - 64 * 9), label="shift")
    whole = 8 * data.draw(
        st.integers(1, strides - 1).filter(lambda strides: 8 * strides != shift),
        label="strides of shift",
    )
    slides = timeslides.scores(strain, np.array([[shift], [whole - period]]))
    compared = 0
    for row, alone in ((0, shift), (1, whole), (1, whole - period)):
        if period - abs(alone) < 64 * 8:
            continue  # Shorter than the warm-up: no separate sequence.
        first, score, delay, valid = one_by_one(server, strain, alone)
        part = slice(first, first + len(score))
        both = valid & slides.valid[row, part]
        # Strides that are valid in the separate sequence are valid in the slide too.
        np.testing.assert_array_equal(both, valid)
        np.testing.assert_allclose(
            slides.score[row, part][both], score[both], rtol=0, atol=1e-4
        )
        # The merger's frame is that with the largest salience; rounding may decide
        # between two that are almost equal.
        assert np.mean(slides.delay[row, part][both] != delay[both]) < 0.01
        compared += both.sum()
    assert compared > 0


@pytest.mark.parametrize("shift", [3, 640, 2777])
def test_a_slide_scores_strain_that_is_whitened_before_the_shift(
    timeslides, geometry, network, noise, shift
):
    strain = noise[1, :, : 120 * 2048]
    slides = timeslides.scores(strain, np.array([[shift]]))
    whitened = reference.whiten(strain[None], geometry)
    # The second detector is read later; the part that would wrap around is dropped.
    later = shift * geometry.frame_size
    shifted = [whitened.strain[0, 0, : -later or None], whitened.strain[0, 1, later:]]
    first = geometry.warmup_strides
    begin = (first + 1) * geometry.stride_size - geometry.kernel_size
    begin -= geometry.filter_size // 2 + whitened.start
    with torch.no_grad():
        dense = torch.from_numpy(np.stack(shifted)[None, :, begin:]).float()
        score = network(dense)[0].numpy()
    part = slice(first, first + len(score))
    valid = slides.valid[0, part]
    assert valid.mean() > 0.9
    assert np.abs(slides.score[0, part] - score)[valid].max() < 1e-3


@pytest.mark.parametrize("first", [0, 3, 200, 700])
@pytest.mark.parametrize("shift", [3, 1000, -776, 5001])
def test_a_slide_that_starts_in_the_middle_has_the_same_scores(
    server, geometry, noise, shift, first
):
    segment = Segment(0, 2048, dict(zip(geometry.ifos, noise[0], strict=True)))
    job = SequenceJob(segment, geometry, (0.0, shift * FRAME_LENGTH))
    whole, part = (
        list(
            ScoreClient(server.address).stream(
                job.read, job.strides, strides, first=begin, offsets=job.offsets
            )
        )
        for begin, strides in ((0, 512), (first, 77))
    )
    valid = np.concatenate([piece.valid for piece in whole])[first:]
    np.testing.assert_array_equal(np.concatenate([x.valid for x in part]), valid)
    scores = np.concatenate([piece.score[0] for piece in whole])[first:]
    again = np.concatenate([piece.score[0] for piece in part])
    # Off the grid of 64 samples, the order of summation depends on the request.
    np.testing.assert_allclose(again[valid], scores[valid], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [1, -2001, 777])
def test_samples_before_a_detectors_data_are_ignored(server, geometry, noise, shift):
    segment = Segment(0, 2048, dict(zip(geometry.ifos, noise[0], strict=True)))
    job = SequenceJob(segment, geometry, (0.0, shift * FRAME_LENGTH))

    def spoiled(start: int, stop: int) -> np.ndarray:
        strain = job.read(start, stop)
        for row, offset in zip(strain[0], job.offsets, strict=True):
            row[: max(0, -start - offset)] = 1e-19
        return strain

    clean, other = (
        list(
            ScoreClient(server.address).stream(
                read, job.strides, requests, offsets=job.offsets
            )
        )
        for read, requests in ((job.read, 512), (spoiled, 40))
    )
    valid = np.concatenate([piece.valid for piece in clean])
    np.testing.assert_array_equal(np.concatenate([x.valid for x in other]), valid)
    scores, again = (
        np.concatenate([piece.score[0] for piece in pieces])
        for pieces in (clean, other)
    )
    assert valid.sum() > 1000
    np.testing.assert_allclose(again[valid], scores[valid], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [1, 129, 512, 4001, -1, -777, 8190])
def test_livetime_counts_the_strides_with_complete_data(
    timeslides, geometry, noise, shift
):
    strides = 1024
    slides = timeslides.scores(noise[0, :, : strides * 256], np.array([[shift]]))
    edges = (np.arange(strides) + 1) * geometry.stride_size
    size = strides * geometry.stride_size
    later = (edges + shift * geometry.frame_size - 1) % size + 1
    warm = geometry.psd_min_size
    np.testing.assert_array_equal(slides.valid[0], (edges >= warm) & (later >= warm))


@pytest.mark.parametrize("size", [0, 7, 64, 511, 513])
def test_events_equal_those_of_the_clustering(timeslides, geometry, noise, size):
    strain = noise[1, :, : (520 + size) * 256]
    rng = np.random.default_rng(size)
    shifts = rng.choice(np.arange(1, strain.shape[1] // 32), 9, replace=False)[:, None]
    scores = timeslides.scores(strain, shifts)
    events = timeslides.events(strain, shifts)
    reach = cluster_strides(geometry)
    np.testing.assert_array_equal(events.valid, scores.valid)
    for row in range(len(shifts)):
        clusterer = Clusterer(reach)
        expected = list(
            clusterer.push(scores.score[row], scores.delay[row], scores.valid[row])
        )
        expected += clusterer.flush()
        mine = events.slide == row
        assert [e.stride for e in expected] == events.stride[mine].tolist()
        assert [e.statistic for e in expected] == events.statistic[mine].tolist()
        assert [e.delay for e in expected] == pytest.approx(events.delay[mine])
    assert len(events.slide) > 9


def test_every_window_has_its_peak(server, timeslides, geometry, noise):
    strain = noise[1, :, : 100 * 2048]
    shifts = np.array([[200], [-3000]])
    scores = timeslides.scores(strain, shifts)
    peak, stride, _, _, _ = timeslides._infer(
        strain, shifts, ("peak", "peak_stride", "peak_delay", "peak_is_event", "valid")
    )
    masked = np.where(scores.valid, scores.score, -np.inf)
    windows = np.pad(masked, [(0, 0), (0, -800 % 64)], constant_values=-np.inf)
    windows = windows.reshape(2, 13, 64)
    np.testing.assert_array_equal(peak, windows.max(axis=2))
    np.testing.assert_array_equal(stride, windows.argmax(axis=2) + 64 * np.arange(13))


def test_many_slides_are_split_into_several_requests(
    timeslides, geometry, noise, monkeypatch
):
    strain, shifts = noise[1, :, : 64 * 2048], np.arange(200, 1700, 300)[:, None]
    whole = timeslides.events(strain, shifts)
    monkeypatch.setattr("chirpwatch.streamer.timeslides.MAX_SLIDE_LENGTH", 2 * 64)
    parts = timeslides.events(strain, shifts)
    for name in ("valid", "slide", "stride", "statistic", "delay"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_scores_with_a_dead_detector_are_not_valid(timeslides, geometry, noise):
    strain = noise[0, :, : 180 * 2048].copy()
    # Longer than half of a PSD's strain, so that the PSD's median is zero.
    strain[1, 60 * 2048 : 120 * 2048] = 0
    still = timeslides.scores(strain, np.array([[64 * 30]]))
    edges = (np.arange(180 * 8) + 1) / 8
    spoiled = ~still.valid[0] & (edges >= 8) & ((edges + 30) % 180 >= 8)
    assert spoiled.any()
    # The second detector is read 30 s later.
    assert (edges[spoiled] + 30).min() > 60
    assert np.isfinite(still.score[still.valid]).all()


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        ([], "at least one slide"),
        ([[1.5]], "whole feature frames"),
        ([[64], [128], [64]], "given 2 times"),
        ([[64], [64 - 6400]], "given 2 times"),
        ([[64], [6400]], "shorter than the stretch of 6400"),
        ([[64], [-6401]], "shorter than the stretch"),
        ([[64, 64]], "shifts of 1 detector"),
    ],
)
def test_invalid_shifts_are_refused(timeslides, noise, shifts, message):
    with pytest.raises(ShiftError, match=message):
        timeslides.events(noise[0, :, : 100 * 2048], np.array(shifts))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 7 * 2048), "at least 8 s, the warm-up"),
        ((2, 1281 * 2048), "at most 1280 s, found 1281 s"),
        ((2, 20 * 2048 + 1), "whole strides"),
        ((1, 20480), "2 detectors"),
    ],
)
def test_a_stretch_without_a_score_is_refused(timeslides, shape, message):
    with pytest.raises(StrainError, match=message):
        timeslides.events(np.ones(shape, np.float32), np.array([[64]]))


def test_a_missing_server_is_reported():
    with pytest.raises(ServerError, match=r"no Triton server at 127\.0\.0\.1:1"):
        Timeslides("127.0.0.1:1")


def test_a_request_that_times_out_is_an_error(server, noise):
    hasty = Timeslides(server.address, deadline=0.001)
    with pytest.raises(ServerError, match="1 timeslides of 204800 samples"):
        hasty.events(noise[0, :, : 100 * 2048], np.array([[64]]))


def test_a_server_without_the_ensemble_is_an_error(server):
    with pytest.raises(ModelError, match="serves no model 'slides of time'"):
        describe(server.address, "slides of time")
