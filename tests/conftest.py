"""What many tests share: strain, a network without training, and a real server."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from chirpwatch.geometry import Geometry
from export.build import build_models
from export.repository import write_repository
from serve.embedded import TritonServer
from tests.postgresql import PostgresServer, find_programs
from train.data.background import simulate_background
from train.network import Network

torch.set_num_threads(1)
# The same examples each time: a failure is of the change at hand. Others are drawn
# with --hypothesis-profile=default.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"
GW150914 = 1126259462.42
OFFSET_SIZE = 64.0
"""Samples from a frame to the merger, as if calibrated, of the untrained network."""


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the tests' own."""
    if find_programs() is None:
        assert "CI" not in os.environ, "CI must test PostgreSQL: install it"
        pytest.skip("PostgreSQL's server is not installed")
    # Its user reads no folder of another one's; the sockets' path must be short.
    with tempfile.TemporaryDirectory(prefix="chirpwatch-") as folder:
        Path(folder).chmod(0o755)
        with PostgresServer(Path(folder) / "postgresql") as server:
            yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes empty databases of each kind, and gives their URL."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgresql")
        return server.new_database
    return lambda: str(tmp_path_factory.mktemp("sqlite") / "results.db")


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return Geometry()


@pytest.fixture(scope="session")
def network(geometry: Geometry) -> Network:
    """A network with random weights whose norms have seen some noise."""
    torch.manual_seed(1)
    network = Network(geometry)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(64, len(geometry.ifos), geometry.kernel_size))
        # Scores of noise that scatter as a trained network's do: a tolerance in logits
        # means nothing without.
        network.eval()
        scores = network(torch.randn(2000, len(geometry.ifos), geometry.kernel_size))
        for branch in (network.head.mean_logit, network.head.max_logit):
            branch.weight *= 1.3 / scores.std()
    return network


class EnergyHead(nn.Module):
    """The largest energy of a kernel's frames, and which frame has it."""

    def __init__(self, kernel_frames: int, stride_frames: int) -> None:
        super().__init__()
        self.kernel_frames = kernel_frames
        self.stride_frames = stride_frames
        self.register_buffer("frames", torch.eye(kernel_frames)[:, None])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_sum(features.sum(1))

    def forward_sum(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        kernels = nn.functional.conv1d(energy, self.frames, stride=self.stride_frames)
        return kernels.max(1).values, kernels.argmax(1).float()


class EnergyNetwork(nn.Module):
    """A network whose score and time are known in closed form.

    Its frames are the energy of ``frame_size`` whitened samples, so that an impulse
    scores by its energy, at its frame: what the path around the network does with times
    shows without the training of one.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.head = EnergyHead(
            geometry.kernel_size // geometry.frame_size,
            geometry.stride_size // geometry.frame_size,
        )
        self.mean = nn.AvgPool1d(geometry.frame_size)
        self.hyperparameters: dict[str, int] = {}

    def features(self, x: Tensor) -> Tensor:
        rows, ifos, time = x.shape
        energy = self.mean(x.reshape(rows * ifos, 1, time) ** 2)
        return energy.reshape(rows, ifos, 1, -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))[0]

    def fused(self) -> "EnergyNetwork":
        return self


@pytest.fixture(scope="session")
def noise(geometry: Geometry) -> np.ndarray:
    """Three minutes of simulated O3 noise, and again with a loud burst in row 1.

    float32 [2, ifos, size].
    """
    strain, _ = simulate_background(
        180, "O3", geometry.ifos, geometry.sample_rate, seed=7
    )
    rows = np.stack([np.stack([strain[ifo] for ifo in geometry.ifos])] * 2)
    start = 100 * geometry.sample_rate
    t = np.arange(512) / geometry.sample_rate
    rows[1, :, start : start + 512] += 1e-21 * np.sin(2 * np.pi * 120 * t)
    return rows.astype(np.float32)


@pytest.fixture(scope="session")
def models(network: Network) -> dict[str, onnx.ModelProto]:
    """The untrained network's ONNX models by name."""
    return build_models(network, OFFSET_SIZE)


@pytest.fixture(scope="session")
def repository(
    tmp_path_factory: pytest.TempPathFactory,
    models: dict[str, onnx.ModelProto],
    geometry: Geometry,
) -> Path:
    """A model repository of the untrained network."""
    path = tmp_path_factory.mktemp("models") / "repository"
    write_repository(path, geometry, models, {}, {})
    return path


@pytest.fixture(scope="session")
def energy_repository(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry
) -> Path:
    """A model repository of the energy network."""
    path = tmp_path_factory.mktemp("energy") / "repository"
    network = EnergyNetwork(geometry)
    write_repository(
        path, geometry, build_models(network, geometry.frame_size / 2), {}, {}
    )
    return path


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton on the untrained network."""
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="session")
def wired_server(repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton on the untrained network, as ensembles of models."""
    with TritonServer(repository, configuration=None) as server:
        yield server


@pytest.fixture(scope="session")
def energy_server(energy_repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton on the energy network."""
    with TritonServer(energy_repository) as server:
        yield server


@pytest.fixture(scope="session")
def gwosc_files() -> list[Path]:
    """32 s of strain around GW150914, of H1 and L1, from GWOSC."""
    files = sorted(SHARED_DATA.glob("*LOSC_4_V2*.hdf5"))
    if len(files) != 2:
        pytest.skip("the GWOSC files around GW150914 are not at hand")
    return files


@pytest.fixture(scope="session")
def o3a_file() -> Path:
    """500 s of one detector's strain of O3a."""
    path = SHARED_DATA / "o3a_noise_500s.hdf"
    if not path.exists():
        pytest.skip("the O3a noise is not at hand")
    return path


def slide_livetime(strides: int, shift: int) -> float:
    """Livetime of a slide of a stretch, s, counted one stride after the other.

    A score is valid if each detector's data lie 8 s or more behind the begin of the
    stretch, in which the second one is read later by ``shift`` feature frames.
    """
    frames = 8 * strides
    edges = range(8, frames + 1, 8)
    return (
        sum(edge >= 512 and (edge + shift - 1) % frames + 1 >= 512 for edge in edges)
        / 8
    )
