"""The export: an atomic write of a model repository with its provenance."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.errors import (
    GeometryError,
    ModelError,
)
from chirpwatch.export import (
    parity,
    preprocessor,
)
from chirpwatch.export.build import parity_strain
from chirpwatch.export.cli import export
from chirpwatch.export.networks import (
    HeadModel,
    longest_delay,
)
from chirpwatch.export.repository import write_repository
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.checkpoint import save_checkpoint
from chirpwatch.train.networks.network import Network

ROOT = Path(__file__).parents[2]


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def test_export_writes_a_repository_with_geometry_and_provenance(
    network: Network, geometry: Geometry, tmp_path: Path
) -> None:
    checkpoint, repository = tmp_path / "network.ckpt", tmp_path / "repository"
    save_checkpoint(checkpoint, network, {"peak_offset_size": 64.0, "seed": 1})
    done = CliRunner().invoke(
        export, [str(checkpoint), str(repository)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    config = text_format.Parse(
        (repository / "detector" / "config.pbtxt").read_text(), pb.ModelConfig()
    )
    parameters = {name: p.string_value for name, p in config.parameters.items()}
    assert Geometry.from_json(parameters["geometry"]) == geometry
    # Kernel and half a filter before the right edge, less the frame's merger offset.
    latest = geometry.kernel_length + geometry.fduration / 2 - 64 / 2048
    assert float(parameters["longest_delay"]) == pytest.approx(latest, abs=1e-6)
    provenance = json.loads(parameters["provenance"])
    assert provenance["seed"] == 1
    assert "onnxruntime" in provenance["export_versions"]
    for model in ("snapshotter", "preprocessor", "frontend", "head"):
        loaded = onnx.load(repository / model / "1" / "model.onnx")
        (entry,) = loaded.metadata_props
        assert Geometry.from_json(entry.value) == geometry
        # No paths and no name of the machine that exported it.
        assert str(Path.cwd()).encode() not in loaded.SerializeToString()
    report = json.loads((repository / "parity.json").read_text())
    assert report["measured"].keys() == report["limits"].keys()
    for name, value in report["measured"].items():
        assert value <= report["limits"][name]
    assert {path.name for path in tmp_path.iterdir()} == {"network.ckpt", "repository"}


def test_the_shipped_models_come_from_the_shipped_checkpoint() -> None:
    checkpoint = ROOT / "train" / "checkpoints" / "matched" / "network.ckpt"
    config = text_format.Parse(
        (ROOT / "model_repo" / "detector" / "config.pbtxt").read_text(),
        pb.ModelConfig(),
    )
    provenance = json.loads(config.parameters["provenance"].string_value)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert provenance["checkpoint_sha256"] == digest


def test_no_delay_exceeds_the_longest_delay(
    network: Network, geometry: Geometry
) -> None:
    with torch.inference_mode():
        frames = network.features(torch.randn(8, 2, 16 * geometry.sample_rate))
        _, delays = HeadModel(network, 64.0)(frames)
    longest = longest_delay(geometry, 64.0)
    assert longest - 0.1 < float(delays.max()) <= longest
    assert float(delays.min()) > longest - geometry.kernel_length


def test_a_failed_export_keeps_the_existing_repository(
    models: dict[str, onnx.ModelProto], geometry: Geometry, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    write_repository(repository, geometry, models, 1.0, {}, {})
    before = contents(repository)
    broken = dict(models)
    broken["head"] = models["preprocessor"]
    with pytest.raises(ModelError, match="a model with the output score, found none"):
        write_repository(repository, geometry, broken, 1.0, {}, {})
    with pytest.raises(TypeError):
        no_text: Any = None
        write_repository(repository, geometry, models, 1.0, {}, {"report": no_text})
    assert contents(repository) == before
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]
    write_repository(repository, geometry, models, 1.0, {"new": True}, {})
    assert contents(repository) != before


def test_a_directory_that_is_not_a_repository_is_not_replaced(
    models: dict[str, onnx.ModelProto], geometry: Geometry, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ModelError, match="something else"):
        write_repository(tmp_path, geometry, models, 1.0, {}, {})
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_a_model_that_differs_from_the_reference_is_not_written(
    models: dict[str, onnx.ModelProto], geometry: Geometry
) -> None:
    other = Network(geometry).eval()
    strain = parity_strain(geometry)
    with pytest.raises(ModelError, match="score_against_torch"):
        parity.measure(models, geometry, other, strain)


def test_a_checkpoint_without_calibration_is_refused(
    network: Network, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "network.ckpt", network, {})
    with pytest.raises(ModelError, match="peak_offset_size"):
        CliRunner().invoke(
            export,
            [str(tmp_path / "network.ckpt"), str(tmp_path / "repository")],
            catch_exceptions=False,
        )
    assert not (tmp_path / "repository").exists()


def test_lengths_that_do_not_fit_the_filter_are_refused() -> None:
    with pytest.raises(GeometryError, match="half of fduration"):
        preprocessor.build(Geometry(fduration=1.03125))


def test_rows_are_scored_independently_of_their_number(
    models: dict[str, onnx.ModelProto], geometry: Geometry, noise: np.ndarray
) -> None:
    three = np.concatenate([noise, noise[1:]])[..., : 20 * geometry.sample_rate]
    chain = parity.run_chain(models, geometry, three, 4 * geometry.sample_rate)
    two = parity.run_chain(models, geometry, three[:2], 4 * geometry.sample_rate)
    np.testing.assert_allclose(chain.score[:2], two.score, atol=1e-5)
    np.testing.assert_allclose(chain.score[1], chain.score[2], atol=1e-5)


def test_models_use_an_opset_that_the_native_backend_runs_on_a_gpu(
    models: dict[str, onnx.ModelProto],
) -> None:
    for model in models.values():
        assert model.ir_version <= 10
        # Later opsets of Pad, ReduceMax and others have no CUDA kernels.
        assert all(opset.version <= 18 for opset in model.opset_import)
