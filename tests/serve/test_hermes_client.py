"""ml4gw-hermes's client streams to the served detector, as aframe does."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.client import ScoreClient
from tests import needs
from tests.builders import join

PACKAGE = Path(sys.prefix) / "ml4gw-hermes-0.3.1"
PROGRAM = Path(__file__).parent / "hermes_stream.py"
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "clients.md"
LONG, LONG_STRIDES = "stream-8s", 64


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    if not PACKAGE.is_dir():
        needs.missing(f"{PACKAGE} is not installed; make test installs it")


@pytest.fixture(scope="module")
def stream_server(
    repository: Path, geometry: Geometry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """Server with the untrained network as ``stream``, and with longer updates."""
    path = tmp_path_factory.mktemp("hermes") / "repository"
    shutil.copytree(repository, path)
    lengthen(path, LONG_STRIDES, LONG)
    with TritonServer(path, entries=("detector", "stream", LONG)) as server:
        yield server


def lengthen(repository: Path, strides: int, name: str) -> None:
    """Add a copy of ``stream`` with longer updates, as the guide describes."""
    shutil.copytree(repository / "stream", repository / name)
    path = repository / name / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.name = name
    config.input[0].dims[2] *= strides
    config.output[0].dims[0] = strides
    path.write_text(text_format.MessageToString(config))


def python(*arguments: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with ml4gw-hermes, and without chirpwatch."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(PACKAGE)},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
    )


def stream(
    server: TritonServer,
    model: str,
    geometry: Geometry,
    update_strides: int,
    strain: np.ndarray,
    directory: Path,
    *fault: str,
) -> subprocess.CompletedProcess[str]:
    """Stream as aframe does; strain and scores are files in the directory."""
    np.save(directory / "strain.npy", strain)
    return python(
        PROGRAM,
        server.address,
        model,
        str(geometry.stride_size),
        str(update_strides),
        "strain.npy",
        "scores.npy",
        *fault,
        directory=directory,
    )


@pytest.fixture(scope="module")
def expected(
    stream_server: TritonServer, noise: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, delays and validity of background and injections, from ``detector``."""
    detector = ScoreClient(stream_server.address)
    strides = noise.shape[-1] // geometry.stride_size
    return join(list(detector.stream(lambda a, b: noise[..., a:b], strides, 64)))


@pytest.mark.parametrize(
    ("model", "update_strides"), [("stream", 1), (LONG, LONG_STRIDES)]
)
def test_a_hermes_client_gets_the_detectors_scores(
    stream_server: TritonServer,
    noise: np.ndarray,
    geometry: Geometry,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    tmp_path: Path,
    model: str,
    update_strides: int,
) -> None:
    score, delay, valid = expected
    done = stream(stream_server, model, geometry, update_strides, noise, tmp_path)
    assert done.returncode == 0, done.stderr
    scores = np.load(tmp_path / "scores.npy")
    assert scores.shape == (2, len(valid), 2)
    assert valid.sum() == len(valid) - geometry.warmup_strides
    # A score that is not valid is -inf, below every threshold.
    assert (scores[:, ~valid, 0] == -np.inf).all()
    np.testing.assert_array_equal(scores[:, valid, 0], score[:, valid])
    np.testing.assert_array_equal(scores[:, valid, 1], delay[:, valid])
    # The two sequences differ by the injection.
    assert np.abs(scores[1, valid, 0] - scores[0, valid, 0]).max() > 1


def test_an_interrupted_sequence_restarts(
    stream_server: TritonServer,
    noise: np.ndarray,
    geometry: Geometry,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    """A second client uses the sequence ids of a client that sent no END."""
    strain = noise[..., : 20 * geometry.sample_rate]
    score, _, valid = (values[..., :160] for values in expected)
    done = stream(stream_server, "stream", geometry, 1, strain, tmp_path, "crash")
    assert done.returncode == 1
    assert not (tmp_path / "scores.npy").exists()
    done = stream(stream_server, "stream", geometry, 1, strain, tmp_path)
    assert done.returncode == 0, done.stderr
    scores = np.load(tmp_path / "scores.npy")[..., 0]
    np.testing.assert_array_equal(scores, np.where(valid, score, -np.inf))


def test_a_sequence_that_starts_later_gives_the_same_scores(
    stream_server: TritonServer,
    noise: np.ndarray,
    geometry: Geometry,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    """It starts a multiple of 8 s later, and 72 s before the first compared score."""
    begin = round(40 * geometry.inference_sampling_rate)
    wanted = begin + round(72 * geometry.inference_sampling_rate)
    done = stream(
        stream_server,
        LONG,
        geometry,
        LONG_STRIDES,
        noise[..., begin * geometry.stride_size :],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    scores = np.load(tmp_path / "scores.npy")[:, wanted - begin :]
    np.testing.assert_array_equal(scores[..., 0], expected[0][:, wanted:])
    np.testing.assert_array_equal(scores[..., 1], expected[1][:, wanted:])


def test_the_guides_example_runs(
    stream_server: TritonServer,
    noise: np.ndarray,
    geometry: Geometry,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    score, delay, valid = (values[..., :160] for values in expected)
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert "localhost:8001" in example
    np.save(tmp_path / "strain.npy", noise[..., : 160 * geometry.stride_size])
    program = f"""
import numpy as np
background, injected = np.load("strain.npy")
{example.replace("localhost:8001", stream_server.address)}
np.save("scores.npy", [scores, delays])
"""
    done = python("-c", program, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = np.load(tmp_path / "scores.npy")
    np.testing.assert_array_equal(scores[0], np.where(valid, score[1], -np.inf))
    np.testing.assert_array_equal(scores[1, valid], delay[1, valid])


def test_the_servers_errors_are_raised(
    stream_server: TritonServer, noise: np.ndarray, geometry: Geometry, tmp_path: Path
) -> None:
    strain = noise[..., : geometry.sample_rate]
    done = stream(stream_server, "stream", geometry, 1, strain, tmp_path, "no-start")
    assert done.returncode == 1
    assert "must specify the START flag" in done.stderr
