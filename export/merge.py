"""Merging of an ensemble's models into one ONNX model."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import compose, helper

from chirpwatch.export.graph import (
    IR_VERSION,
    OPSET,
)


def merge(
    name: str,
    models: Mapping[str, onnx.ModelProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """Connect models by the names of their tensors, as an ensemble does.

    Args:
        name: Name of the graph.
        models: The models by name, each after those that produce its inputs.
        inputs: Tensors that are inputs of the merged model.
        outputs: Tensors that are its outputs.

    Returns:
        A model with the same operators in the same order, so that its results equal the
        ensemble's to the last bit.
    """
    graph = onnx.GraphProto(name=name)
    tensors: dict[str, onnx.ValueInfoProto] = {}
    for step, model in models.items():
        # Tensors that pass between models keep their names; all others get a prefix.
        own = compose.add_prefix(
            model, f"{step}_", rename_inputs=False, rename_outputs=False
        ).graph
        graph.node.extend(own.node)
        graph.initializer.extend(own.initializer)
        graph.value_info.extend(own.value_info)
        tensors.update({value.name: value for value in (*own.input, *own.output)})
    graph.input.extend(tensors[tensor] for tensor in inputs)
    graph.output.extend(tensors[tensor] for tensor in outputs)
    merged = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(merged, full_check=True)
    return merged
