"""The ``stream`` entry, put together from the models of a repository."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, compose, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.geometry import Geometry

WIRES = {
    "snapshotter": {"strain": "strain", "position": "position", "state": "history"},
    "preprocessor": {
        "snapshot": "snapshotter/snapshot",
        "psd": "snapshotter/psd",
        "position": "position",
    },
    "frontend": {"whitened": "last_row"},
    "head": {"features": "frontend/features"},
}
"""For each model the edges that its inputs are taken from."""

DIGIT = 2**20
"""A position is two float32 numbers, digits of this base: exact up to 2^44 samples."""


class Nodes(list[onnx.NodeProto]):
    """The nodes of a graph, in order."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def add(self, output: str, operator: str, *inputs: Any, **attributes: Any) -> None:
        """Add a node; inputs that are no names become constants."""
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.append(helper.make_node(operator, names, [output], output, **attributes))

    def _constant(self, x: Any) -> str:
        array = np.asarray(x)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = f"constant{next(self._count)}"
        tensor = numpy_helper.from_array(array)
        self.append(helper.make_node("Constant", [], [name], name, value=tensor))
        return name


def add_stream(repository: Path, geometry: Geometry) -> None:
    """Add the ensemble ``stream`` and its two steps to a repository."""
    ifos = len(geometry.ifos)
    model = _stream_detector(repository, ifos)
    detector = _read(repository, "snapshotter")
    detector.name = "stream_detector"
    del detector.input[:], detector.output[:]
    detector.input.add(name="strain", data_type=pb.TYPE_FP32, dims=[-1, ifos, -1])
    detector.output.add(name="rows", data_type=pb.TYPE_FP32, dims=[2, -1])
    _write(repository, detector, model)

    columns = pb.ModelConfig(name="stream_columns", backend="onnxruntime")
    columns.input.add(name="rows", data_type=pb.TYPE_FP32, dims=[2, -1])
    columns.output.add(name="scores", data_type=pb.TYPE_FP32, dims=[-1, 2])
    columns.instance_group.extend(detector.instance_group)
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["rows"], ["scores"], "scores", perm=[1, 0])],
        columns.name,
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [2, "strides"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["strides", 2])],
    )
    _write(repository, columns, _model(graph, model))

    stream = pb.ModelConfig(name="stream", platform="ensemble")
    size = geometry.stride_size
    stream.input.add(name="strain", data_type=pb.TYPE_FP32, dims=[2, ifos, size])
    stream.output.add(name="scores", data_type=pb.TYPE_FP32, dims=[1, 2])
    for step in (detector, columns):
        stream.ensemble_scheduling.step.add(
            model_name=step.name,
            model_version=-1,
            input_map={tensor.name: tensor.name for tensor in step.input},
            output_map={tensor.name: tensor.name for tensor in step.output},
        )
    stream.parameters.MergeFrom(_read(repository, "detector").parameters)
    _write(repository, stream)


def resize(repository: Path, strides: int, name: str) -> None:
    """Add a copy of ``stream`` for updates of so many strides."""
    config = _read(repository, "stream")
    config.name = name
    config.input[0].dims[2] *= strides
    config.output[0].dims[0] = strides
    _write(repository, config)


def _stream_detector(repository: Path, ifos: int) -> onnx.ModelProto:
    """The detector's four models in one, with the position in the state."""
    parts = {
        name: compose.add_prefix(
            onnx.load(str(repository / name / "1" / "model.onnx")), f"{name}/"
        )
        for name in WIRES
    }
    nodes = Nodes()
    # A state begins as one zero for each detector. It becomes the position's two digits
    # and the one zero that the snapshotter's state begins with.
    nodes.add("state_size", "Shape", "state", start=1, end=2)
    nodes.add("missing", "Sub", [3], "state_size")
    nodes.add("after", "Max", "missing", [0])
    nodes.add("padding", "Concat", [0, 0, 0], "after", axis=0)
    nodes.add("padded", "Pad", "state", "padding")
    nodes.add("digits", "Slice", "padded", [0], [2], [1])
    nodes.add("history", "Slice", "padded", [2], [2**62], [1])
    nodes.add("whole_digits", "Cast", "digits", to=TensorProto.INT64)
    nodes.add("weighted", "Mul", "whole_digits", [[DIGIT, 1]])
    nodes.add("position", "ReduceSum", "weighted", [1], keepdims=0)
    for name, part in parts.items():
        if name == "frontend":
            nodes.add("last_row", "Slice", "preprocessor/whitened", [-1], [2**62], [0])
        for tensor, source in WIRES[name].items():
            nodes.add(f"{name}/{tensor}", "Identity", source)
        nodes.extend(part.graph.node)
    nodes.add("size", "Shape", "strain", start=2, end=3)
    nodes.add("next", "Add", "position", "size")
    nodes.add("next_column", "Unsqueeze", "next", [1])
    nodes.add("high", "Div", "next_column", [[DIGIT]])
    nodes.add("low", "Mod", "next_column", [[DIGIT]])
    nodes.add("new_whole_digits", "Concat", "high", "low", axis=1)
    nodes.add("new_digits", "Cast", "new_whole_digits", to=TensorProto.FLOAT)
    nodes.add("new_state", "Concat", "new_digits", "snapshotter/new_state", axis=1)
    nodes.add("score", "Where", "snapshotter/valid", "head/score", float("-inf"))
    nodes.add("rows", "Concat", "score", "head/delay", axis=0)
    graph = helper.make_graph(
        nodes,
        "stream_detector",
        [
            helper.make_tensor_value_info(
                "strain", TensorProto.FLOAT, ["row", ifos, "samples"]
            ),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [ifos, "values"]),
        ],
        [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, [2, "strides"]),
            helper.make_tensor_value_info(
                "new_state", TensorProto.FLOAT, [ifos, "new_values"]
            ),
        ],
        initializer=[t for part in parts.values() for t in part.graph.initializer],
    )
    return _model(graph, parts["snapshotter"])


def _model(graph: onnx.GraphProto, like: onnx.ModelProto) -> onnx.ModelProto:
    model = helper.make_model(
        graph, opset_imports=like.opset_import, ir_version=like.ir_version
    )
    onnx.checker.check_model(model)
    return model


def _read(repository: Path, name: str) -> pb.ModelConfig:
    text = (repository / name / "config.pbtxt").read_text()
    return text_format.Parse(text, pb.ModelConfig())


def _write(
    repository: Path, config: pb.ModelConfig, model: onnx.ModelProto | None = None
) -> None:
    version = repository / config.name / "1"
    version.mkdir(parents=True)
    path = repository / config.name / "config.pbtxt"
    path.write_text(text_format.MessageToString(config))
    if model is None:
        (version / "README.txt").write_text("An ensemble has no model file.\n")
    else:
        onnx.save(model, str(version / "model.onnx"))
