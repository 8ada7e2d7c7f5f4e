"""The merged model answers bit for bit as the ensemble of models."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chirpwatch.errors import ServerError
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.client import (
    OpenSequence,
    ScoreClient,
    Scores,
)
from chirpwatch.streamer.timeslides import Timeslides

STRIDE = 256


def scores(
    address: str,
    strain: np.ndarray,
    cuts: list[int],
    rows: list[int],
    first: int,
    offsets: tuple[int, int],
) -> list[Scores]:
    """Answers to the requests of a sequence.

    Args:
        address: Address of the server.
        strain: [rows, ifos, size].
        cuts: Number of strides of each request.
        rows: Number of rows of each request.
        first: First stride of the sequence.
        offsets: Samples of each detector's data before stride 0.
    """
    answers = []
    stride = first
    with OpenSequence(ScoreClient(address), offsets) as sequence:
        for i, (cut, count) in enumerate(zip(cuts, rows, strict=True)):
            begin = (stride - first) * STRIDE
            piece = strain[:count, :, begin : begin + cut * STRIDE]
            sequence.send(piece, stride, stride + cut, end=i == len(cuts) - 1)
            answers.append(sequence.receive())
            stride += cut
    return answers


def assert_same(ours: list[Scores], theirs: list[Scores]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for name in ("score", "delay", "valid"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_sequence_has_equal_answers(
    server: TritonServer,
    wired_server: TritonServer,
    noise: np.ndarray,
    data: st.DataObject,
) -> None:
    """Any requests, changing rows, and any start of each detector's data."""
    cuts = data.draw(
        st.lists(st.sampled_from([1, 2, 7, 56, 64, 200]), min_size=1, max_size=8),
        label="strides of requests",
    )
    rows = [data.draw(st.integers(1, 3), label="rows") for _ in cuts]
    first = data.draw(st.sampled_from([0, 1, 63, 512]), label="first stride")
    offsets = data.draw(
        st.tuples(*[st.sampled_from([0, -40, -16384, 300])] * 2), label="offsets"
    )
    strain = np.concatenate([noise, noise[1:]])
    if data.draw(st.booleans(), label="not finite"):
        strain[data.draw(st.integers(0, 2)), 1, 70 * STRIDE + 5] = np.nan
    request = strain, cuts, rows, first, offsets
    assert_same(
        scores(server.address, *request), scores(wired_server.address, *request)
    )


@pytest.mark.parametrize("length", [64, 1024])
def test_replays_in_long_requests(
    server: TritonServer, wired_server: TritonServer, noise: np.ndarray, length: int
) -> None:
    """Requests with several tiles of the frontend, and with many PSDs."""
    strain = np.concatenate([noise[:1]] * 6, axis=2)[..., : 1024 * 2048]
    cuts = [8 * length] * (strain.shape[2] // (length * 2048))
    request = strain, cuts, [1] * len(cuts), 0, (0, 0)
    assert_same(
        scores(server.address, *request), scores(wired_server.address, *request)
    )


@pytest.mark.parametrize("served", ["server", "wired_server"])
def test_a_position_that_jumps_is_refused(
    request: pytest.FixtureRequest, served: str, noise: np.ndarray
) -> None:
    """After the refusal, the sequence continues at its position."""
    address = request.getfixturevalue(served).address
    whole = scores(address, noise, [400, 400], [2, 2], 0, (0, 0))
    detector = ScoreClient(address)
    for jump in ((STRIDE, 0), (0, STRIDE), (-1, -1)):
        with OpenSequence(detector, (0, 0)) as sequence:
            sequence.send(noise[..., : 400 * STRIDE], 0, 400)
            first = sequence.receive()
            sequence._offsets = np.array(jump)
            sequence.send(noise[..., 400 * STRIDE : 800 * STRIDE], 400, 800)
            with pytest.raises(ServerError, match="position_must_continue"):
                sequence.receive()
            sequence.under_way.clear()
            sequence._offsets = np.array((0, 0))
            sequence.send(noise[..., 400 * STRIDE : 800 * STRIDE], 400, 800, end=True)
            assert_same([first, sequence.receive()], whole)


def test_positions_are_exact_beyond_the_range_of_float32(
    wired_server: TritonServer, noise: np.ndarray
) -> None:
    """After four months of samples a jump by one sample is refused, either way."""
    strides = 10_000_000 * 8
    detector = ScoreClient(wired_server.address)
    for jump in (-1, 1):
        with OpenSequence(detector, (0, 7)) as sequence:
            sequence.send(noise[..., : 8 * STRIDE], strides, strides + 8)
            sequence.receive()
            sequence.send(noise[..., : 8 * STRIDE], strides + 8, strides + 16)
            sequence.receive()
            sequence._offsets = np.array((0, 7 + jump))
            sequence.send(noise[..., : 8 * STRIDE], strides + 16, strides + 24)
            with pytest.raises(ServerError, match="position_must_continue"):
                sequence.receive()


@pytest.mark.parametrize("served", ["server", "wired_server"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -3e38])
def test_a_score_that_is_not_finite_is_not_valid(
    request: pytest.FixtureRequest,
    served: str,
    value: float,
    noise: np.ndarray,
    geometry: Geometry,
) -> None:
    address = request.getfixturevalue(served).address
    usual = scores(address, noise, [512, 512], [2, 2], 0, (0, 0))
    sample = 20 * geometry.sample_rate + 77
    edges = (1 + np.arange(1024)) * STRIDE
    reach = geometry.kernel_size + geometry.filter_size
    in_kernel = (edges > sample) & (edges - reach <= sample)
    for row in range(2):
        strain = noise.copy()
        strain[row, 1, sample] = value
        found = scores(address, strain, [512, 512], [2, 2], 0, (0, 0))
        score = np.concatenate([one.score for one in found], axis=1)
        valid = np.concatenate([one.valid for one in found])
        expected = np.concatenate([one.valid for one in usual]) & ~in_kernel
        if row == 0:
            # Each PSD that contains the sample, and strain whitened with such a PSD.
            refresh, psd = geometry.psd_refresh_size, geometry.psd_size
            for edge in (edges - 1, edges - geometry.kernel_size):
                due = edge // refresh * refresh
                expected &= (due <= sample) | (due - psd > sample)
        assert np.isfinite(score[:, valid]).all()
        assert (valid == expected).all()
        if row == 1:
            same = np.concatenate([one.score[0] for one in usual])
            assert (score[0] == same).all()


@pytest.mark.parametrize("served", ["server", "wired_server"])
def test_a_detector_that_sends_zeros_has_no_data(
    request: pytest.FixtureRequest, served: str, noise: np.ndarray, geometry: Geometry
) -> None:
    """Kernels and PSDs that contain the zeros are not valid."""
    address = request.getfixturevalue(served).address
    strides = 1400
    off, on = 40, 46
    strain = noise[:1].copy()
    strain[0, 1, off * 2048 : on * 2048] = 0
    (found,) = scores(address, strain, [strides], [1], 0, (0, 0))
    edges = (1 + np.arange(strides)) * STRIDE
    reach = geometry.kernel_size + geometry.filter_size
    expected = edges >= geometry.psd_min_size
    expected &= (edges <= off * 2048) | (edges - reach >= on * 2048)
    for edge in (edges - 1, edges - geometry.kernel_size):
        due = edge // geometry.psd_refresh_size * geometry.psd_refresh_length
        # Segments of 2 s; a segment that ends where zeros begin contains none.
        expected &= (due <= off) | (due - geometry.psd_length >= on)
    assert (found.valid == expected).all()
    assert found.valid[-1]


def test_a_single_block_is_whitened_as_in_a_long_request(
    server: TritonServer, noise: np.ndarray
) -> None:
    """Here, L1's PSD falls due three blocks later than H1's."""
    strain = noise[:1, :, : 300 * STRIDE]
    offsets = (-192, 0)
    (long,) = scores(server.address, strain, [300], [1], 0, offsets)
    live = scores(server.address, strain, [1] * 300, [1] * 300, 0, offsets)
    score = np.concatenate([one.score for one in live], axis=1)
    assert (score[:, long.valid] == long.score[:, long.valid]).all()


@pytest.mark.parametrize("served", ["server", "wired_server"])
@pytest.mark.parametrize("size", [32, 300, 2 * STRIDE - 1])
def test_strain_of_a_fraction_of_a_stride_is_refused(
    request: pytest.FixtureRequest, served: str, noise: np.ndarray, size: int
) -> None:
    """The state is unchanged, and the sequence continues with whole strides."""
    address = request.getfixturevalue(served).address
    with OpenSequence(ScoreClient(address), (0, 0)) as sequence:
        sequence.send(noise[..., : 8 * STRIDE], 0, 8)
        sequence.receive()
        sequence.send(noise[..., :size], 8, 9)
        with pytest.raises(ServerError, match="strain_must_be_whole_strides"):
            sequence.receive()
        sequence.under_way.clear()
        sequence.send(noise[..., 8 * STRIDE : 9 * STRIDE], 8, 9, end=True)
        assert len(sequence.receive().valid) == 1


def test_slides_are_invalid_where_strain_is_not_finite(
    server: TritonServer, noise: np.ndarray, geometry: Geometry
) -> None:
    """Scores that depend on it are valid in no slide, and give no event."""
    shifts = np.array([[0], [64], [200]])
    client = Timeslides(server.address)
    strain = noise[0, :, : 100 * geometry.sample_rate]
    usual = client.scores(strain, shifts)
    spoilt = strain.copy()
    # Near the end: only the last PSD contains it.
    sample = 97 * geometry.sample_rate + 5
    spoilt[1, sample] = np.nan
    found, events = client.scores(spoilt, shifts), client.events(spoilt, shifts)
    assert np.isfinite(found.score[found.valid]).all()
    assert np.isfinite(events.statistic).all()
    period = strain.shape[1]
    reach = geometry.kernel_size + geometry.filter_size
    for slide, (shift,) in enumerate(shifts):
        edges = (1 + np.arange(800)) * STRIDE + shift * geometry.frame_size
        edges = (edges - 1) % period + 1
        touched = (edges > sample) & (edges - reach <= sample)
        assert (found.valid[slide] == usual.valid[slide] & ~touched).all()
        kept = found.valid[slide]
        assert (found.score[slide, kept] == usual.score[slide, kept]).all()
