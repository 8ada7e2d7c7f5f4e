"""The model ``head``: from feature frames to scores, delays and validity."""

import onnx
from onnx import TensorProto

from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.geometry import Geometry


def build(geometry: Geometry, head: onnx.ModelProto) -> onnx.ModelProto:
    """Build the model ``head`` around the network's head.

    Inputs: ``features`` [rows, ifos, channels, frames] from the frontend, ``usable``
    [ifos, frames] from the preprocessor, ``whole`` [strides] from the snapshotter.

    Outputs: ``score`` and ``delay`` [rows, strides], from the network's head; ``valid``
    [strides] bool, whether a stride's scores are finite in every row, all strain that
    they depend on is usable, and its kernel is whole, as defined by the models
    upstream.

    Args:
        geometry: The analysis.
        head: The network's head: ``features`` to ``score`` and ``delay``.
    """
    shape = head.graph.input[0].type.tensor_type.shape.dim
    ifos, channels = (shape[axis].dim_value for axis in (1, 2))
    graph = Graph()
    score, delay = graph.inline(head, {"features": "features"})
    strides = geometry.stride_size // geometry.frame_size
    kernels = usable_kernels(graph, geometry, "usable", 0, strides)
    kernels, rows = (
        graph.ReduceMin(graph.Cast(flags, to=TensorProto.INT64), [0], keepdims=0)
        for flags in (kernels, finite_scores(graph, score))
    )
    finite = graph.Cast(graph.Min(kernels, rows), to=TensorProto.BOOL)
    return graph.model(
        "head",
        inputs=[
            ("features", TensorProto.FLOAT, ["rows", ifos, channels, "frames"]),
            ("usable", TensorProto.BOOL, [ifos, "strain_frames"]),
            ("whole", TensorProto.BOOL, ["strides"]),
        ],
        outputs=[
            ("score", score, TensorProto.FLOAT, ["rows", "strides"]),
            ("delay", delay, TensorProto.FLOAT, ["rows", "strides"]),
            ("valid", graph.And("whole", finite), TensorProto.BOOL, ["strides"]),
        ],
    )


def finite_scores(graph: Graph, score: Value) -> Value:
    """Whether each score is finite, bool."""
    flags: Value = graph.Less(graph.Abs(score), float("inf"))
    return flags


def usable_kernels(
    graph: Graph, geometry: Geometry, usable: Value, ahead: int, step: int
) -> Value:
    """Whether all strain that a kernel depends on is usable: bool [ifos, kernels].

    Args:
        graph: The graph to extend.
        geometry: The analysis.
        usable: Whether each ``frame_size`` samples of strain are usable, bool [ifos,
            frames].
        ahead: Number of frames to add before the first; they count as usable.
        step: Frames from one kernel to the next.
    """
    ifos = len(geometry.ifos)
    frames = (geometry.kernel_size + geometry.filter_size) // geometry.frame_size
    bad = graph.Cast(graph.Not(usable), to=TensorProto.FLOAT)
    # MaxPool needs a channel axis. Its padding is minus infinity, so it counts as 0.
    bad = graph.Unsqueeze(bad, [0])
    bad = graph.MaxPool(bad, kernel_shape=[frames], strides=[step], pads=[ahead, 0])
    flags: Value = graph.Less(graph.Reshape(bad, [ifos, -1]), 0.5)
    return flags
