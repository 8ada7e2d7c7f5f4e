"""The models of an ensemble as one ONNX model."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import compose, helper

from export.graph import IR_VERSION, OPSET


def merge(
    name: str,
    models: Mapping[str, onnx.ModelProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """Join models by the names of their tensors, as an ensemble joins them.

    Args:
        name: Name of the graph.
        models: The models by name, each after those that make its inputs.
        inputs: Tensors that enter.
        outputs: Tensors that leave.

    Returns:
        A model of the same operators in the same order, so that its results are those
        of the ensemble to the last bit.
    """
    graph = onnx.GraphProto(name=name)
    tensors: dict[str, onnx.ValueInfoProto] = {}
    for step, model in models.items():
        # What passes between models keeps its name; the rest is each model's own.
        own = compose.add_prefix(
            model, f"{step}_", rename_inputs=False, rename_outputs=False
        ).graph
        graph.node.extend(own.node)
        graph.initializer.extend(own.initializer)
        graph.value_info.extend(own.value_info)
        tensors.update({one.name: one for one in (*own.input, *own.output)})
    graph.input.extend(tensors[one] for one in inputs)
    graph.output.extend(tensors[one] for one in outputs)
    merged = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(merged, full_check=True)
    return merged
