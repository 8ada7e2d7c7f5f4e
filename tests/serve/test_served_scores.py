"""A score depends on the strain and its time only, not on the requests."""

import os
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.errors import (
    ModelError,
    ServerError,
)
from chirpwatch.export import reference
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.client import (
    OpenSequence,
    ScoreClient,
)
from chirpwatch.train.networks.network import Network
from tests.builders import join
from tests.networks import OFFSET_SIZE, EnergyNetwork


def _cut(strain: np.ndarray, start: int, stop: int) -> np.ndarray:
    return strain[..., start:stop]


@pytest.fixture(scope="module")
def whole(
    server: TritonServer, noise: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three minutes, scored in requests of 64 s."""
    strides = noise.shape[-1] // geometry.stride_size
    detector = ScoreClient(server.address)
    pieces = detector.stream(lambda a, b: noise[..., a:b], strides, 512)
    return join(list(pieces))


@pytest.mark.parametrize("length", [1 / 8, 1, 7])
def test_request_length_does_not_matter(
    server: TritonServer, noise: np.ndarray, geometry: Geometry, whole, length: float
) -> None:
    strides = noise.shape[-1] // geometry.stride_size
    detector = ScoreClient(server.address)
    pieces = list(
        detector.stream(
            lambda a, b: noise[..., a:b],
            strides,
            round(length * geometry.inference_sampling_rate),
        )
    )
    score, delay, valid = join(pieces)
    assert (valid == whole[2]).all()
    error = np.abs(score - whole[0])[:, valid].max()
    print(f"requests of {length:g} s: largest difference {error:.1e}")
    assert error < 1e-4
    assert np.abs(delay - whole[1])[:, valid].max() < 1e-4


def test_offline_path_gives_the_same(
    noise: np.ndarray, geometry: Geometry, network: Network, whole
) -> None:
    expected, delay, valid = reference.score(noise, geometry, network, OFFSET_SIZE)
    assert (valid == whole[2]).all()
    error = np.abs(expected - whole[0])[:, valid].max()
    print(f"offline path: largest difference {error:.1e}")
    assert error < 1e-3
    # Rounding may swap two frames of almost equal salience.
    assert np.mean(np.abs(delay - whole[1])[:, valid] < 1e-4) > 0.999
    # The scores are not constant, and a signal changes them.
    assert expected[0, valid].std() > 0.5
    assert np.abs(expected[0] - expected[1])[valid].max() > 1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_scores_do_not_depend_on_the_cut_into_requests(
    server: TritonServer, noise: np.ndarray, geometry: Geometry, data: st.DataObject
) -> None:
    strides = data.draw(st.integers(64, 400), label="strides")
    start = data.draw(st.integers(0, 1000), label="start") * 17
    rows = data.draw(st.integers(1, 2), label="rows")
    cut = data.draw(st.integers(1, strides), label="request")
    strain = noise[:rows, :, start:]
    detector = ScoreClient(server.address)
    one = join(list(detector.stream(lambda a, b: strain[..., a:b], strides, 512)))
    other = join(list(detector.stream(lambda a, b: strain[..., a:b], strides, cut)))
    valid = one[2]
    assert valid.sum() == strides - geometry.warmup_strides
    assert (valid == other[2]).all()
    assert np.abs(one[0] - other[0])[:, valid].max() < 1e-4


def test_a_signal_does_not_change_the_background_row(
    server: TritonServer, noise: np.ndarray, geometry: Geometry, whole
) -> None:
    strides = noise.shape[-1] // geometry.stride_size
    detector = ScoreClient(server.address)
    alone = join(list(detector.stream(lambda a, b: noise[:1, :, a:b], strides, 64)))
    assert np.abs(alone[0][0] - whole[0][0])[whole[2]].max() < 1e-4


def test_a_resumed_sequence_gives_the_same_scores(
    server: TritonServer, noise: np.ndarray, geometry: Geometry, whole
) -> None:
    strides = noise.shape[-1] // geometry.stride_size
    detector = ScoreClient(server.address)
    for first in (1, 63, 700, 1100, strides - 1):
        pieces = list(detector.stream(lambda a, b: noise[..., a:b], strides, 56, first))
        score, _, valid = join(pieces)
        assert pieces[0].first == first
        assert (score[:, valid] == whole[0][:, first:][:, valid]).all()


def test_a_sequence_survives_the_loss_of_its_state(
    repository: Path, noise: np.ndarray, geometry: Geometry, whole
) -> None:
    """The server is killed in the middle, and restarts at the same address."""
    strides = noise.shape[-1] // geometry.stride_size
    with TritonServer(repository) as first:
        port = int(first.address.split(":")[1])
        detector = ScoreClient(first.address)
        stream = detector.stream(lambda a, b: noise[..., a:b], strides, 64)
        pieces = [next(stream) for _ in range(12)]
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="killed by signal 9"):
            while True:
                first.check()
                time.sleep(0.05)
        with TritonServer(repository, grpc_port=port):
            pieces += list(stream)
    score, _, valid = join(pieces)
    assert (score[:, valid] == whole[0][:, valid]).all()


def test_a_server_that_comes_back_with_another_model_is_refused(
    repository: Path, energy_repository: Path, noise: np.ndarray
) -> None:
    with TritonServer(repository) as first:
        port = int(first.address.split(":")[1])
        stream = ScoreClient(first.address).stream(
            lambda a, b: noise[..., a:b], 800, 64
        )
        next(stream)
        # Asked to end, it would wait 10 s for the sequence.
        os.kill(first.pid, signal.SIGKILL)
    with TritonServer(energy_repository, grpc_port=port):
        with pytest.raises(ModelError, match="results of two models do not mix"):
            list(stream)


@pytest.mark.parametrize("length", [1 / 8, 5, 64])
def test_an_impulse_is_found_at_its_time(
    energy_server: TritonServer, geometry: Geometry, length: float
) -> None:
    """The loudest score's right edge minus its delay is the impulse's time."""
    rate = geometry.sample_rate
    rng = np.random.default_rng(3)
    strain = 1e-22 * rng.standard_normal((1, 2, 30 * rate))
    requests = round(length * geometry.inference_sampling_rate)
    for sample in (20 * rate, 23 * rate + 77, 25 * rate + 1717):
        struck = strain.copy()
        struck[..., sample] += 1e-19
        detector = ScoreClient(energy_server.address)
        score, delay, valid = join(
            list(detector.stream(partial(_cut, struck), 240, requests))
        )
        loudest = int(np.argmax(np.where(valid, score[0], -np.inf)))
        edge = (loudest + 1) * geometry.stride_length
        assert abs(edge - delay[0, loudest] - sample / rate) < 1 / 32
        offline, lag, _ = reference.score(
            struck, geometry, EnergyNetwork(geometry), geometry.frame_size / 2
        )
        loudest = int(np.nanargmax(offline[0]))
        edge = (loudest + 1) * geometry.stride_length
        assert abs(edge - lag[0, loudest] - sample / rate) < 1 / 32


def test_a_missing_server_and_a_missing_detector_have_different_errors() -> None:
    with pytest.raises(ServerError, match=r"no Triton server at 127\.0\.0\.1:1"):
        ScoreClient("127.0.0.1:1")


def test_a_server_without_the_detector_is_refused(
    repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "repository"
    shutil.copytree(repository / "frontend", other / "frontend")
    with TritonServer(other) as server, pytest.raises(ModelError, match="detector"):
        ScoreClient(server.address)


def test_a_sequence_that_the_server_dropped_is_restarted(
    repository: Path, tmp_path: Path, noise: np.ndarray, geometry: Geometry, whole
) -> None:
    """Triton drops an idle sequence: "must specify the START flag"."""
    impatient = Path(shutil.copytree(repository, tmp_path / "repository"))
    path = impatient / "detector" / "configs" / "cpu.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    # Longer than a request takes on a busy machine.
    config.sequence_batching.max_sequence_idle_microseconds = 2_000_000
    path.write_text(text_format.MessageToString(config))
    pause = 600 * geometry.stride_size
    starts: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        if start == pause and pause not in starts:
            time.sleep(5)
        starts.append(start)
        return noise[..., start:stop]

    with TritonServer(impatient) as server:
        detector = ScoreClient(server.address, window=1)
        pieces = list(detector.stream(read, 800, 8))
    score, _, valid = join(pieces)
    assert starts.count(pause) == 2
    assert starts[starts.index(pause) + 1] < pause
    assert (score[:, valid] == whole[0][:, :800][:, valid]).all()


def test_a_server_that_does_not_answer_fails_the_request_in_time(
    repository: Path, noise: np.ndarray
) -> None:
    with TritonServer(repository) as server:
        detector = ScoreClient(server.address, deadline=1)
        stream = detector.stream(lambda a, b: noise[..., a:b], 400, 8)
        next(stream)
        os.kill(server.pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"strides \d+ to \d+, sent to"):
            list(stream)
        assert time.monotonic() - begin < 20
        # Asked to end, it would wait 10 s for the sequence.
        os.kill(server.pid, signal.SIGKILL)


def test_the_state_is_one_tensor(repository: Path) -> None:
    """Triton pairs several states by the order of their names, not by their roles."""
    stateful = {"snapshotter/config", "detector/configs/cpu", "stream_detector/config"}
    for path in repository.rglob("*.pbtxt"):
        config = text_format.Parse(path.read_text(), pb.ModelConfig())
        states = config.sequence_batching.state
        name = path.relative_to(repository).with_suffix("").as_posix()
        assert len(states) == (1 if name in stateful else 0)
        # Without an initial state, a sequence would start with uninitialised memory.
        assert all(state.initial_state for state in states)


def test_a_sequence_that_ended_leaves_no_thread(energy_server: TritonServer) -> None:
    """Whether it failed or not; a live search opens a sequence after each gap."""
    detector = ScoreClient(energy_server.address)
    nothing = np.zeros((1, 2, 2048), np.float32)

    def open_some() -> None:
        for number in range(6):
            with OpenSequence(detector, (0, 0)) as sequence:
                sequence.send(nothing, 0, 8, end=number % 2 == 0)
                sequence.receive()

    open_some()
    before = threading.active_count()
    open_some()
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)
