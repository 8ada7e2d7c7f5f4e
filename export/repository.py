"""The Triton model repository, written from protobuf messages, whole or not at all."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.atomic import exchange
from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry

VERSION = 1
IDLE_LENGTH = 60
"""Seconds after which the server forgets a sequence that sends nothing."""

TYPES = {
    onnx.TensorProto.FLOAT: pb.TYPE_FP32,
    onnx.TensorProto.INT64: pb.TYPE_INT64,
    onnx.TensorProto.BOOL: pb.TYPE_BOOL,
}

# The ensemble: each model with what its inputs are called, and which of its outputs
# leave the ensemble. A tensor has one name from its making to its last use.
STEPS = ("snapshotter", "preprocessor", "frontend", "head")
INPUTS = ("strain", "step")
OUTPUTS = ("score", "delay", "valid")


def write_repository(
    path: str | Path,
    geometry: Geometry,
    models: Mapping[str, onnx.ModelProto],
    provenance: Mapping[str, Any],
    reports: Mapping[str, str],
) -> str:
    """Write the repository that the streamer's servers serve.

    Args:
        path: Directory of the repository; one that is there is replaced, once the new
            one is complete.
        geometry: The analysis; it goes into the ensemble's parameters and into the
            metadata of each ONNX model.
        models: The models by name: snapshotter, preprocessor, frontend, head.
        provenance: What the network was made from, for the ensemble's parameters.
        reports: Files by name, to lie beside the models.

    Returns:
        The digest of the models: 16 hex digits.

    Raises:
        ModelError: Two models that are wired together do not fit, or ``path`` holds
            something that is no model repository.
    """
    target = Path(path)
    if target.exists() and not (target / "detector" / "config.pbtxt").exists():
        raise ModelError(
            f"{target}: expected a model repository or nothing, found something else; "
            "it is left as it is"
        )
    digest = hashlib.sha256()
    contents = {}
    for name in STEPS:
        model = onnx.ModelProto()
        model.CopyFrom(models[name])
        onnx.helper.set_model_props(model, {"geometry": geometry.to_json()})
        contents[name] = model.SerializeToString(deterministic=True)
        digest.update(contents[name])
    key = digest.hexdigest()[:16]
    parameters = {
        "geometry": geometry.to_json(),
        "model": key,
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    configurations = {name: _model_config(name, models[name]) for name in STEPS}
    configurations["snapshotter"] = _stateful(
        configurations["snapshotter"], len(geometry.ifos)
    )
    configurations["detector"] = _ensemble(configurations, parameters)

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        new = Path(temporary) / "new"
        for name, configuration in configurations.items():
            version = new / name / str(VERSION)
            version.mkdir(parents=True)
            (new / name / "config.pbtxt").write_text(
                text_format.MessageToString(configuration)
            )
            if name in contents:
                (version / "model.onnx").write_bytes(contents[name])
            else:
                # Git and wheels keep no empty directory, and Triton wants this one.
                (version / "README.txt").write_text("An ensemble has no model file.\n")
        for name, text in reports.items():
            (new / name).write_text(text)
        if target.exists():
            # The old one is then in the temporary directory, and goes with it.
            exchange(new, target)
        else:
            new.rename(target)
    return key


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else -1 for d in dims]


def _model_config(name: str, model: onnx.ModelProto) -> pb.ModelConfig:
    """A model's configuration, its tensors as the ONNX model says them."""
    return pb.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=0,
        input=[
            pb.ModelInput(
                name=value.name,
                data_type=TYPES[value.type.tensor_type.elem_type],
                dims=_dims(value),
            )
            for value in model.graph.input
        ],
        output=[
            pb.ModelOutput(
                name=value.name,
                data_type=TYPES[value.type.tensor_type.elem_type],
                dims=_dims(value),
            )
            for value in model.graph.output
        ],
        instance_group=[
            pb.ModelInstanceGroup(count=2, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
        parameters={
            # Two instances of one thread beat one instance of two.
            "intra_op_thread_count": pb.ModelParameter(string_value="1"),
            "inter_op_thread_count": pb.ModelParameter(string_value="1"),
        },
    )


def _stateful(configuration: pb.ModelConfig, ifos: int) -> pb.ModelConfig:
    """Declare the snapshotter's state, which begins as a zero for each detector."""
    for tensors, name in (
        (configuration.input, "state"),
        (configuration.output, "new_state"),
    ):
        (index,) = [i for i, tensor in enumerate(tensors) if tensor.name == name]
        del tensors[index]
    batching = configuration.sequence_batching
    batching.max_sequence_idle_microseconds = IDLE_LENGTH * 1_000_000
    batching.oldest.max_candidate_sequences = 1024
    batching.state.append(
        pb.ModelSequenceBatching.State(
            input_name="state",
            output_name="new_state",
            data_type=pb.TYPE_FP32,
            dims=[ifos, -1],
            initial_state=[
                pb.ModelSequenceBatching.InitialState(
                    name="zeros",
                    data_type=pb.TYPE_FP32,
                    dims=[ifos, 1],
                    zero_data=True,
                )
            ],
        )
    )
    return configuration


def _ensemble(
    configurations: Mapping[str, pb.ModelConfig], parameters: Mapping[str, str]
) -> pb.ModelConfig:
    """The ``detector`` ensemble; checks that what is wired together fits."""
    made: dict[str, pb.ModelInput | pb.ModelOutput] = {}
    for tensor in configurations["snapshotter"].input:
        made[tensor.name] = tensor
    steps = []
    for name in STEPS:
        configuration = configurations[name]
        for tensor in configuration.input:
            source = made.get(tensor.name)
            if source is None or source.data_type != tensor.data_type:
                raise ModelError(f"{name}: nothing gives its input {tensor.name}")
            if not _fit(source.dims, tensor.dims):
                raise ModelError(
                    f"{name}: input {tensor.name} expects {list(tensor.dims)}, gets "
                    f"{list(source.dims)}"
                )
        made.update({tensor.name: tensor for tensor in configuration.output})
        steps.append(
            pb.ModelEnsembling.Step(
                model_name=name,
                model_version=-1,
                input_map={t.name: t.name for t in configuration.input},
                output_map={t.name: t.name for t in configuration.output},
            )
        )
    missing = [name for name in OUTPUTS if name not in made]
    if missing:
        raise ModelError(f"detector: no model gives its output {missing[0]}")
    return pb.ModelConfig(
        name="detector",
        platform="ensemble",
        max_batch_size=0,
        input=[made[name] for name in INPUTS],
        output=[
            pb.ModelOutput(
                name=name, data_type=made[name].data_type, dims=made[name].dims
            )
            for name in OUTPUTS
        ],
        ensemble_scheduling=pb.ModelEnsembling(step=steps),
        parameters={
            name: pb.ModelParameter(string_value=value)
            for name, value in parameters.items()
        },
    )


def _fit(given: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(given) == len(wanted) and all(
        g == w or -1 in (g, w) for g, w in zip(given, wanted, strict=True)
    )
