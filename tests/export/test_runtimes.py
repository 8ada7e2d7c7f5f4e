"""Every model loads and gives equal scores in all ONNX Runtimes of users' servers.

The oldest version is that of NVIDIA's image 24.10, which has the same Triton release as
the embedded server. The newest is the locked version.
"""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest

from chirpwatch.gwosc_file import read_gwosc
from tests import needs

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_repo"
OLDEST = "1.19.2"
PACKAGE = Path(sys.prefix) / f"onnxruntime-{OLDEST}"
RATE = 2048

TOLERANCE = 1e-4
"""Largest difference of a score between runtimes and levels of optimization.

Measured on Intel Xeon and AMD Zen processors: 1.1e-5 around GW150914, at a score of 66;
4e-6 on O3a and simulated noise.
"""


@pytest.fixture(scope="module")
def strain(noise: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated and recorded strain, [1, ifos, size] each."""
    (segment,) = read_gwosc(needs.gwosc_files(), ("H1", "L1"), RATE)
    (noise_file,) = needs.shared_data("o3a_noise_500s.hdf")
    with h5py.File(noise_file) as file:
        data = file["data"][:]
    strains = {
        "simulated": noise[:1, :, : 48 * RATE],
        # A single detector's noise at two times stands for two detectors.
        "O3a": np.stack([data[: 48 * RATE], data[-48 * RATE :]])[None],
        "GW150914": np.stack([segment.strain[ifo] for ifo in ("H1", "L1")])[None],
    }
    path = tmp_path_factory.mktemp("strain") / "strain.npz"
    np.savez(path, **{name: x.astype(np.float32) for name, x in strains.items()})
    return path


def scores(strain: Path, *path: Path) -> dict[str, np.ndarray]:
    """Scores by `tests.export.runtime_scores` with the first ONNX Runtime on a path."""
    result = strain.with_name("scores.npz")
    subprocess.run(
        [sys.executable, "-m", "tests.export.runtime_scores", SHIPPED, strain, result],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))},
        check=True,
        capture_output=True,
    )
    return dict(np.load(result))


def test_the_oldest_and_the_newest_runtime_score_alike(strain: Path) -> None:
    if not PACKAGE.is_dir():
        needs.missing(f"{PACKAGE} is not installed; make test installs it")
    oldest, newest = scores(strain, PACKAGE), scores(strain)
    assert oldest.pop("version") == OLDEST
    assert newest.pop("version") == onnxruntime.__version__
    kinds = {key.split(", ")[1] for key in newest}
    assert kinds == {"merged", "wired", "timeslides"}
    largest: dict[str, float] = {}
    for key in newest:
        name, kind, level, output = key.split(", ")
        if output != "score":
            continue
        expected = newest[f"{name}, {kind}, all, score"]
        valid = newest[f"{name}, {kind}, all, valid"]
        assert valid.any()
        for found in (newest, oldest):
            assert (found[f"{name}, {kind}, {level}, valid"] == valid).all()
            error = np.abs(found[key] - expected)
            error = error[np.broadcast_to(valid, error.shape)].max()
            largest[name] = max(largest.get(name, 0.0), error)
    print("largest differences:", largest)
    assert max(largest.values()) < TOLERANCE
    # The trained network gives the signal a high score.
    assert newest["GW150914, merged, all, score"].max() > 20


def test_every_node_has_a_name_of_its_own() -> None:
    """ONNX Runtime up to 1.21 refuses models in which it fuses nodes without one."""

    def names(graph: onnx.GraphProto) -> list[str]:
        found = [node.name for node in graph.node]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    found += names(attribute.g)
        return found

    paths = sorted(SHIPPED.glob("*/1/*.onnx"))
    assert len(paths) == 10
    for path in paths:
        found = names(onnx.load(path).graph)
        assert "" not in found, path
        assert len(set(found)) == len(found), path
