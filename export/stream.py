"""The models of the ensemble ``stream``, for clients that use ml4gw-hermes.

Such a client treats a model as stateful only if it is an ensemble whose only input
feeds a step that declares a state, and exactly one tensor with two or more dimensions
goes from that step to exactly one later step. So all models of ``detector`` are merged
into the first step. It counts its own position, and sets scores that are not valid to
minus infinity. The second step transposes its rows into the columns that aframe's
inference reads.

Source: ``InferenceClient._build_inputs`` in ml4gw-hermes 0.3.1.
"""

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from chirpwatch.export import snapshotter
from chirpwatch.export.graph import Graph
from chirpwatch.export.merge import merge
from chirpwatch.geometry import Geometry


def build(geometry: Geometry, models: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """Build the model ``stream_detector``.

    Inputs: ``strain`` [2, ifos, n], the background and the strain to score, such as the
    background with injections; ``state``. Outputs: ``rows`` [2, strides], the scores of
    the second strain row, minus infinity where they are not valid, and their delays, s;
    ``new_state``.

    Args:
        geometry: The analysis.
        models: The exported models by name.
    """
    graph = Graph()
    score = graph.Where("valid", "score", float("-inf"))
    rows = graph.model(
        "rows",
        inputs=[
            ("score", TensorProto.FLOAT, [1, "strides"]),
            ("delay", TensorProto.FLOAT, [1, "strides"]),
            ("valid", TensorProto.BOOL, ["strides"]),
        ],
        outputs=[
            (
                "rows",
                graph.Concat(score, "delay", axis=0),
                TensorProto.FLOAT,
                [2, "strides"],
            )
        ],
    )
    steps = {
        "snapshotter": snapshotter.build(geometry, paired=True),
        **{name: models[name] for name in ("preprocessor", "frontend", "head")},
        "rows": rows,
    }
    inputs, outputs = ["strain", "state"], ["rows", "new_state"]
    return merge("stream_detector", steps, inputs, outputs)


def build_columns() -> onnx.ModelProto:
    """Build ``stream_columns``: ``rows`` [2, strides] to ``scores`` [strides, 2]."""
    graph = Graph()
    scores = graph.Transpose("rows", perm=[1, 0])
    return graph.model(
        "stream_columns",
        inputs=[("rows", TensorProto.FLOAT, [2, "strides"])],
        outputs=[("scores", scores, TensorProto.FLOAT, ["strides", 2])],
    )
