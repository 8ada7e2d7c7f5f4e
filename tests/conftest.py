"""Shared fixtures: strain, an untrained network, model repositories, real servers.

Test files run in parallel processes. What takes long is made once for all of them, and
PyTorch, which takes seconds to import, is imported only by the fixtures that use it.
"""

import fcntl
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from tests import needs, shapes
from tests.postgresql import PostgresServer, find_programs

if TYPE_CHECKING:
    from onnx import ModelProto
    from playwright.sync_api import Browser

    from chirpwatch.train.networks.network import Network

shapes.install()

# The same examples in each run, so that a failure comes from a change of the code.
# --hypothesis-profile=default draws others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Show details of failed assertions in these helper modules, as in tests.
pytest.register_assert_rewrite("tests.builders", "tests.streamer.live.search")

HERE = Path(__file__).parent

LONGEST = (
    "project/test_image.py",
    "api/test_killed.py",
    "streamer/test_background.py",
    "train/test_validate.py",
    "project/test_three_detectors.py",
    "streamer/live/test_live.py",
    "streamer/test_replay.py",
    "serve/test_served_scores.py",
    "train/test_matched.py",
    "api/test_page.py",
    "project/test_docs_run.py",
    "project/test_hostile.py",
    "train/test_stock.py",
    "train/test_resume.py",
    "train/test_rank.py",
    "serve/test_server.py",
    "train/test_fit.py",
    "train/test_recorded.py",
    "train/test_report.py",
    "project/test_compose.py",
    "export/test_runtimes.py",
    "train/test_ddp.py",
    "commands/test_demo.py",
)
"""Slow test files. They start first, so that no slow file runs alone at the end."""

Once = Callable[[str, Callable[[Path], None]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, and keep the order of the rest."""
    place = {HERE / name: number for number, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in place), (
        "LONGEST names a file that does not exist"
    )
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Function that fills a folder once for all parallel test processes.

    Call it with the folder's name and a function that fills the folder. Tests must not
    change the folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, part = shared / name, shared / f"{name}.part"
        with open(shared / f"{name}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                fill(part)
                part.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server for the tests."""
    if find_programs() is None:
        needs.missing("PostgreSQL's server is not installed")
    # PostgreSQL's user cannot enter pytest's folders; socket paths must be short.
    with tempfile.TemporaryDirectory(prefix="chirpwatch-") as folder:
        Path(folder).chmod(0o755)
        with PostgresServer(Path(folder) / "postgresql") as server:
            yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Function that makes an empty database and returns its URL, for each backend."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgresql")
        return server.new_database
    return lambda: str(tmp_path_factory.mktemp("sqlite") / "results.db")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless browser, without its own background network traffic."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=needs.chromium(),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return Geometry()


@pytest.fixture(scope="session")
def network(once: Once, geometry: Geometry) -> "Network":
    """A network with random weights, whose BatchNorms have statistics of noise."""
    import torch

    from chirpwatch.train.networks.network import Network
    from tests.networks import untrained_network

    def make(folder: Path) -> None:
        torch.save(untrained_network(geometry).state_dict(), folder / "weights.pt")

    network = Network(geometry).eval()
    folder = once("network", make)
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return network


@pytest.fixture(scope="session")
def noise(geometry: Geometry) -> np.ndarray:
    """Three minutes of simulated O3 noise; row 1 is the same with a loud burst.

    float32 [2, ifos, size].
    """
    from chirpwatch.train.data.noise.background import simulate_background

    strain, _ = simulate_background(
        180, "O3", geometry.ifos, geometry.sample_rate, seed=7
    )
    rows = np.stack([np.stack([strain[ifo] for ifo in geometry.ifos])] * 2)
    start = 100 * geometry.sample_rate
    t = np.arange(512) / geometry.sample_rate
    rows[1, :, start : start + 512] += 1e-21 * np.sin(2 * np.pi * 120 * t)
    return rows.astype(np.float32)


@pytest.fixture(scope="session")
def models(once: Once, request: pytest.FixtureRequest) -> "dict[str, ModelProto]":
    """ONNX models of the untrained network, by name."""
    import onnx

    def make(folder: Path) -> None:
        from chirpwatch.export.build import build_models
        from tests.networks import OFFSET_SIZE

        network = request.getfixturevalue("network")
        for name, model in build_models(network, OFFSET_SIZE).items():
            onnx.save(model, folder / f"{name}.onnx")

    folder = once("models", make)
    return {path.stem: onnx.load(path) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def repository(once: Once, request: pytest.FixtureRequest, geometry: Geometry) -> Path:
    """A model repository of the untrained network."""

    def make(folder: Path) -> None:
        from chirpwatch.export.repository import write_repository

        models = request.getfixturevalue("models")
        write_repository(folder / "models", geometry, models, 1.0, {}, {})

    return once("repository", make) / "models"


@pytest.fixture(scope="session")
def energy_repository(once: Once, geometry: Geometry) -> Path:
    """A model repository of the energy network."""

    def make(folder: Path) -> None:
        from chirpwatch.export.build import build_models
        from chirpwatch.export.repository import write_repository
        from tests.networks import EnergyNetwork

        network = EnergyNetwork(geometry)
        models = build_models(network, geometry.frame_size / 2)
        write_repository(folder / "models", geometry, models, 1.0, {}, {})

    return once("energy_repository", make) / "models"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton with the untrained network."""
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="session")
def wired_server(repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton with the untrained network, as ensembles of models."""
    with TritonServer(repository, configuration=None) as server:
        yield server


@pytest.fixture(scope="session")
def energy_server(energy_repository: Path) -> Iterator[TritonServer]:
    """The embedded Triton with the energy network."""
    with TritonServer(energy_repository) as server:
        yield server


@pytest.fixture(scope="session")
def gwosc_files() -> list[Path]:
    """32 s of strain around GW150914, of H1 and L1, from GWOSC."""
    return needs.gwosc_files()
