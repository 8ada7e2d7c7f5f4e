"""Writes the Triton model repository from protobuf messages, atomically."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.atomic import exchange
from chirpwatch.errors import ModelError
from chirpwatch.export.merge import merge
from chirpwatch.geometry import Geometry
from chirpwatch.limits import MAX_LENGTH

VERSION = 1
IDLE_LENGTH = 60
"""Idle time after which the server drops a sequence, s."""

TYPES = {
    onnx.TensorProto.FLOAT: pb.TYPE_FP32,
    onnx.TensorProto.INT64: pb.TYPE_INT64,
    onnx.TensorProto.BOOL: pb.TYPE_BOOL,
}


@dataclass(frozen=True)
class Ensemble:
    """Models that run one after the other.

    A tensor has the same name in the model that produces it and in those that use it.

    Attributes:
        steps: The models, in the order in which they run.
        inputs: Names of the input tensors.
        outputs: Names of the output tensors.
    """

    steps: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


ENSEMBLES = {
    "detector": Ensemble(
        steps=("snapshotter", "preprocessor", "frontend", "head"),
        inputs=("strain", "position"),
        outputs=("score", "delay", "valid"),
    ),
    "timeslides": Ensemble(
        steps=("stretch", "preprocessor", "frontend", "slides"),
        inputs=("strain", "shifts"),
        outputs=(
            "score",
            "delay",
            "valid",
            "peak",
            "peak_stride",
            "peak_delay",
            "peak_is_event",
        ),
    ),
    "stream": Ensemble(
        steps=("stream_detector", "stream_columns"),
        inputs=("strain",),
        outputs=("scores",),
    ),
}
STATEFUL = ("snapshotter", "stream_detector")
MERGED = ("detector",)
"""Ensembles that the CPU configurations serve as one model each.

An update then takes one hop. Timeslides gain nothing: as one model they are a quarter
slower, measured with two concurrent requests. Clients of `stream` treat only an
ensemble as stateful; see `chirpwatch.export.stream`.
"""

MODELS = tuple(
    dict.fromkeys(step for ensemble in ENSEMBLES.values() for step in ensemble.steps)
)
LARGE = ("stretch", "slides")
"""Models that need far more memory to run a request than for its outputs."""

CPU_CONFIGURATION = "cpu"
GPU_CONFIGURATION = "gpu"
"""Names of alternative configurations, for `tritonserver --model-config-name`: for
CPUs, the detector as one model; for GPUs, the models that run on one.

Source: Triton's documentation, custom model configuration.
"""
ON_GPU = ("preprocessor", "frontend", "head", "slides")
"""Models that run on a GPU; the others keep state, or copy more than they compute."""

BY_TENSORRT = "frontend"
"""The model that TensorRT runs; it does nearly all of the network's work."""

UNTILED = "untiled.onnx"
"""File name of the frontend without the loop that bounds its memory on a CPU.

TensorRT builds one engine from it. From a loop's body it would build an engine whose
inputs no optimization profile can name.
"""
ENGINES = "/engines"
"""Directory of TensorRT's caches of engines and timings, in the container."""

MAX_ROWS = 8
"""Largest number of rows that the TensorRT engine accepts in a request.

Row 0 is the background; signals that overlap in time have a row each.
"""

Request = tuple[float, int]
"""A request's length, s, and its number of rows."""

USUAL: Request = (64.0, 2)
"""A replay's request, for which TensorRT optimizes the engine."""

LONGEST: Request = (MAX_LENGTH, MAX_ROWS)
"""The longest request with the most rows for which the engine is built."""


def shortest(geometry: Geometry) -> Request:
    """A live update, the shortest request for which the engine is built."""
    return geometry.stride_length, 1


def warm_ups(geometry: Geometry) -> tuple[Request, ...]:
    """Warm-up requests, which a server runs before it is ready."""
    return shortest(geometry), USUAL, (USUAL[0], MAX_ROWS), (LONGEST[0], 1)


def write_repository(
    path: str | Path,
    geometry: Geometry,
    models: Mapping[str, onnx.ModelProto],
    longest_delay: float,
    provenance: Mapping[str, Any],
    reports: Mapping[str, str],
) -> str:
    """Write the repository that the streamer's servers serve.

    Args:
        path: Directory of the repository; an existing one is replaced once the new one
            is complete.
        geometry: The analysis, written to the ensembles' parameters and to each ONNX
            model's metadata.
        models: The models by name: all of ``MODELS``, and ``UNTILED``.
        longest_delay: The longest that the models' delays can be, s, written to the
            ensembles' parameters.
        provenance: What the network was made from, written to the ensembles'
            parameters.
        reports: Text files, by name, to write beside the models.

    Returns:
        The models' digest: 16 hex digits.

    Raises:
        ModelError: Two models of an ensemble do not fit together, or ``path`` holds
            something other than a model repository.
    """
    # A symbolic link stays a link.
    target = Path(path).resolve()
    if target.exists() and not (target / "detector" / "config.pbtxt").exists():
        raise ModelError(
            f"{target}: expected a model repository or nothing, found something else; "
            "it was not changed"
        )
    digest = hashlib.sha256()
    contents = {}
    for name in (*MODELS, UNTILED):
        model = onnx.ModelProto()
        model.CopyFrom(models[name])
        onnx.helper.set_model_props(model, {"geometry": geometry.to_json()})
        contents[name] = model.SerializeToString(deterministic=True)
        digest.update(contents[name])
    key = digest.hexdigest()[:16]
    parameters = {
        "geometry": geometry.to_json(),
        "model": key,
        "longest_delay": f"{longest_delay:.6f}",
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    configurations = _configurations(geometry, models, parameters)
    files = {f"{name}/{VERSION}/model.onnx": contents[name] for name in MODELS}
    files[f"{BY_TENSORRT}/{VERSION}/{UNTILED}"] = contents[UNTILED]
    for name, configuration in configurations.items():
        files[f"{name}/config.pbtxt"] = _text(configuration)
    for name in MERGED:
        merged, configuration = _merged(name, models, configurations)
        files[f"{name}/{VERSION}/model.onnx"] = merged
        files[f"{name}/configs/{CPU_CONFIGURATION}.pbtxt"] = _text(configuration)
    for name, configuration in _gpu_configurations(
        geometry, models, configurations
    ).items():
        files[f"{name}/configs/{GPU_CONFIGURATION}.pbtxt"] = _text(configuration)

    _place(target, files, reports)
    return key


def _configurations(
    geometry: Geometry,
    models: Mapping[str, onnx.ModelProto],
    parameters: Mapping[str, str],
) -> dict[str, pb.ModelConfig]:
    """Configurations of the models and ensembles by name.

    Args:
        geometry: The analysis.
        models: The models by name.
        parameters: Parameters of the ensembles.
    """
    configurations = {name: _model_config(name, models[name]) for name in MODELS}
    for name in LARGE:
        # The server need not keep the memory that a long stretch took.
        configurations[name].parameters[
            "memory.enable_memory_arena_shrinkage"
        ].string_value = "cpu:0"
    for name in STATEFUL:
        _make_stateful(configurations[name])
    for name in ENSEMBLES:
        configurations[name] = _ensemble(name, configurations, parameters)
    _fix_shapes(configurations["stream"], geometry)
    return configurations


def _place(
    target: Path, files: Mapping[str, bytes], reports: Mapping[str, str]
) -> None:
    """Write a repository's files, and put it in the place of an earlier one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        new = Path(temporary) / "new"
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        for name in ENSEMBLES.keys() - set(MERGED):
            # Git and wheels drop empty directories, but Triton requires this one.
            version = new / name / str(VERSION)
            version.mkdir()
            (version / "README.txt").write_text("An ensemble has no model file.\n")
        for name, text in reports.items():
            (new / name).write_text(text)
        if target.exists():
            # The old one is then in the temporary directory, and is removed with it.
            exchange(new, target)
        else:
            new.rename(target)


def _text(configuration: pb.ModelConfig) -> bytes:
    text: str = text_format.MessageToString(configuration)
    return text.encode()


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else -1 for d in dims]


def _model_config(name: str, model: onnx.ModelProto) -> pb.ModelConfig:
    """A model's configuration, with the tensors of the ONNX model."""
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
            # Two instances with one thread each are faster than one with two.
            "intra_op_thread_count": pb.ModelParameter(string_value="1"),
            "inter_op_thread_count": pb.ModelParameter(string_value="1"),
        },
    )


def _merged(
    name: str,
    models: Mapping[str, onnx.ModelProto],
    configurations: Mapping[str, pb.ModelConfig],
) -> tuple[bytes, pb.ModelConfig]:
    """An ensemble merged into one model, and its configuration."""
    ensemble, wired = ENSEMBLES[name], configurations[name]
    configuration = pb.ModelConfig()
    configuration.CopyFrom(configurations[ensemble.steps[0]])
    configuration.name = name
    for field in ("input", "output"):
        configuration.ClearField(field)
        getattr(configuration, field).extend(getattr(wired, field))
    for step in (name, *ensemble.steps):
        for key, value in configurations[step].parameters.items():
            configuration.parameters[key].CopyFrom(value)
    states = configuration.sequence_batching.state
    merged = merge(
        name,
        {step: models[step] for step in ensemble.steps},
        [*ensemble.inputs, *(state.input_name for state in states)],
        [*ensemble.outputs, *(state.output_name for state in states)],
    )
    geometry = wired.parameters["geometry"].string_value
    onnx.helper.set_model_props(merged, {"geometry": geometry})
    return merged.SerializeToString(deterministic=True), configuration


def _make_stateful(configuration: pb.ModelConfig) -> None:
    """Declare the state tensor, which is initially a single zero."""
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
            dims=[-1],
            initial_state=[
                pb.ModelSequenceBatching.InitialState(
                    name="zeros",
                    data_type=pb.TYPE_FP32,
                    dims=[1],
                    zero_data=True,
                )
            ],
        )
    )


def _fix_shapes(configuration: pb.ModelConfig, geometry: Geometry) -> None:
    """Fix an ensemble's shapes to updates of one stride: two rows in, one score out."""
    (strain,), (scores,) = configuration.input, configuration.output
    strain.dims[:] = [2, len(geometry.ifos), geometry.stride_size]
    scores.dims[:] = [1, 2]


def _gpu_configurations(
    geometry: Geometry,
    models: Mapping[str, onnx.ModelProto],
    configurations: Mapping[str, pb.ModelConfig],
) -> dict[str, pb.ModelConfig]:
    """Configurations of the models that run on a GPU.

    The models compute in float32, so scores differ from a CPU's only by the order of
    summation. Source for the accelerators' parameters: the documentation of Triton's
    ONNX Runtime backend.
    """
    gpu_configurations = {}
    shapes = _shapes(geometry, models)
    for name in ON_GPU:
        configuration = pb.ModelConfig()
        configuration.CopyFrom(configurations[name])
        del configuration.instance_group[:]
        configuration.instance_group.add(count=2, kind=pb.ModelInstanceGroup.KIND_GPU)
        if name in LARGE:
            shrinkage = configuration.parameters["memory.enable_memory_arena_shrinkage"]
            shrinkage.string_value = "cpu:0;gpu:0"
        if name == BY_TENSORRT:
            configuration.default_model_filename = UNTILED
            accelerators = configuration.optimization.execution_accelerators
            accelerators.gpu_execution_accelerator.add(
                name="tensorrt",
                parameters={
                    "precision_mode": "FP32",
                    "trt_engine_cache_enable": "1",
                    "trt_engine_cache_path": ENGINES,
                    "trt_timing_cache_enable": "1",
                    "trt_timing_cache_path": ENGINES,
                }
                | {
                    f"trt_profile_{kind}_shapes": profile(geometry, request)
                    for kind, request in {
                        "min": shortest(geometry),
                        "opt": USUAL,
                        "max": LONGEST,
                    }.items()
                },
            )
        for (length, rows), inputs in shapes.get(name, {}).items():
            configuration.model_warmup.add(
                name=f"{length:g} s, rows: {rows}",
                batch_size=1,  # for a model without batching; 0 would be left out
                inputs={
                    tensor.name: pb.ModelWarmup.Input(
                        data_type=tensor.data_type,
                        dims=inputs[tensor.name],
                        zero_data=True,
                    )
                    for tensor in configuration.input
                },
            )
        gpu_configurations[name] = configuration
    return gpu_configurations


def profile(geometry: Geometry, request: Request) -> str:
    """Shape of the frontend's input in a request, in the syntax of TensorRT's profiles.

    Args:
        geometry: The analysis.
        request: Its length, s, and number of rows.
    """
    length, rows = request
    overlap_size = geometry.kernel_size - geometry.stride_size
    samples = overlap_size + round(length * geometry.sample_rate)
    return f"whitened:{rows}x{len(geometry.ifos)}x{samples}"


def _shapes(
    geometry: Geometry, models: Mapping[str, onnx.ModelProto]
) -> dict[str, dict[Request, dict[str, Sequence[int]]]]:
    """Input shapes of the models that run on a GPU, for each warm-up request."""
    shapes: dict[str, dict[Request, dict[str, Sequence[int]]]] = {}
    ifos = len(geometry.ifos)
    for length, rows in warm_ups(geometry):
        size = round(length * geometry.inference_sampling_rate) * geometry.stride_size
        made: dict[str, NDArray[Any]] = {
            "strain": np.zeros((rows, ifos, size), np.float32),
            "position": np.zeros(ifos, np.int64),
            "state": np.zeros(1, np.float32),
            "shifts": np.ones((1, ifos - 1), np.int64),
        }
        # The long request is a stretch for timeslides, with one row.
        ensemble = "timeslides" if length > USUAL[0] else "detector"
        for step in ENSEMBLES[ensemble].steps:
            session = onnxruntime.InferenceSession(
                models[step].SerializeToString(), providers=["CPUExecutionProvider"]
            )
            inputs = {node.name: made[node.name] for node in session.get_inputs()}
            shapes.setdefault(step, {})[length, rows] = {
                name: value.shape for name, value in inputs.items()
            }
            names = [node.name for node in session.get_outputs()]
            made |= dict(zip(names, session.run(None, inputs), strict=True))
    return {step: shapes[step] for step in ON_GPU if step in shapes}


def _ensemble(
    name: str,
    configurations: Mapping[str, pb.ModelConfig],
    parameters: Mapping[str, str],
) -> pb.ModelConfig:
    """An ensemble's configuration; checks that connected tensors fit together."""
    ensemble = ENSEMBLES[name]
    made: dict[str, pb.ModelInput | pb.ModelOutput] = {
        tensor.name: tensor
        for step in ensemble.steps
        for tensor in configurations[step].input
        if tensor.name in ensemble.inputs
    }
    inputs = [made[tensor] for tensor in ensemble.inputs]
    steps = []
    used = set(ensemble.outputs)
    for step in ensemble.steps:
        used |= {tensor.name for tensor in configurations[step].input}
    for step in ensemble.steps:
        configuration = configurations[step]
        for tensor in configuration.input:
            source = made.get(tensor.name)
            if source is None or source.data_type != tensor.data_type:
                raise ModelError(
                    f"{step}: no tensor of the right type for its input {tensor.name}"
                )
            if not _fit(source.dims, tensor.dims):
                raise ModelError(
                    f"{step}, input {tensor.name}: expected the shape "
                    f"{list(tensor.dims)}, found {list(source.dims)}"
                )
        made.update({tensor.name: tensor for tensor in configuration.output})
        steps.append(
            pb.ModelEnsembling.Step(
                model_name=step,
                model_version=-1,
                input_map={t.name: t.name for t in configuration.input},
                # Triton rejects an ensemble that has an unused tensor.
                output_map={
                    t.name: t.name for t in configuration.output if t.name in used
                },
            )
        )
    missing = [tensor for tensor in ensemble.outputs if tensor not in made]
    if missing:
        raise ModelError(f"{name}: no model gives its output {missing[0]}")
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=0,
        input=inputs,
        output=[
            pb.ModelOutput(
                name=tensor, data_type=made[tensor].data_type, dims=made[tensor].dims
            )
            for tensor in ensemble.outputs
        ],
        ensemble_scheduling=pb.ModelEnsembling(step=steps),
        parameters={
            key: pb.ModelParameter(string_value=value)
            for key, value in parameters.items()
        },
    )


def _fit(given: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(given) == len(wanted) and all(
        g == w or -1 in (g, w) for g, w in zip(given, wanted, strict=True)
    )
