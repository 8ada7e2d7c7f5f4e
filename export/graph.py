"""A small way to write ONNX graphs as expressions.

``graph.Slice(x, [0], [4])`` adds a node and returns its output; numbers, lists and
arrays become constants; ``graph.loop`` makes a Loop from a Python function. PyTorch's
exporter writes the networks; this is for what it cannot express: loops whose trips
depend on the request, and shapes that differ between two trips.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10
"""ONNX Runtime 1.19, in the Triton release that the wheel carries too, reads it."""

Value = str
"""The name of an edge of the graph."""


class Graph:
    """An ONNX graph under construction.

    Args:
        prefix: Put before the names of its edges; a subgraph needs its own.
    """

    def __init__(self, prefix: str = "v") -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        """The ONNX operator of that name, as a function of its inputs."""
        if operator.startswith("_"):
            raise AttributeError(operator)

        def add(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            names = [self._edge() for _ in range(outputs)]
            self._nodes.append(
                helper.make_node(
                    operator, [self.value(x) for x in inputs], names, **attributes
                )
            )
            return names[0] if outputs == 1 else names

        return add

    def _edge(self) -> Value:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def value(self, x: Any) -> Value:
        """The edge itself; of a number, list or array, a constant.

        Python integers become int64, Python floats and arrays of them float32.
        """
        if x is None:
            return ""
        if isinstance(x, str):
            return x
        array = np.asarray(x)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = self._edge()
        self._nodes.append(
            helper.make_node(
                "Constant", [], [name], value=numpy_helper.from_array(array)
            )
        )
        return name

    def size(self, x: Value, axis: int) -> Value:
        """Length of one axis, int64 [1]."""
        size: Value = self.Shape(x, start=axis, end=axis + 1)
        return size

    def cut(self, x: Value, start: Any, stop: Any, axis: int) -> Value:
        """``x[start:stop]`` along one axis; ``None`` as stop means the end."""
        end = [2**62] if stop is None else stop
        piece: Value = self.Slice(x, start, end, [axis])
        return piece

    def loop(
        self,
        trips: Value,
        carried: Value,
        body: "Callable[[Graph, Value, Value], Value]",
    ) -> Value:
        """Apply ``body(graph, trip, carried)`` ``trips`` times.

        ``trips`` is an int64 scalar. ``carried`` may change its shape from trip to
        trip; its final value is returned. The body may use the outer graph's edges.
        """
        inner = Graph(prefix=f"{self._edge()}_")
        trip, condition, previous = inner._edge(), inner._edge(), inner._edge()
        result = body(inner, trip, previous)
        go_on = inner.Identity(condition)
        graph = helper.make_graph(
            inner._nodes,
            "body",
            [
                helper.make_tensor_value_info(trip, TensorProto.INT64, []),
                helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
                helper.make_tensor_value_info(previous, TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
                helper.make_tensor_value_info(result, TensorProto.FLOAT, None),
            ],
        )
        final: Value = self.Loop(trips, None, carried, body=graph)
        return final

    def model(
        self,
        name: str,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        outputs: Sequence[tuple[str, Value, int, Sequence[int | str]]],
    ) -> onnx.ModelProto:
        """The finished model, checked.

        Args:
            name: Name of the graph.
            inputs: For each its name, element type and shape.
            outputs: For each its name, edge, element type and shape.
        """
        for output, edge, _, _ in outputs:
            self._nodes.append(helper.make_node("Identity", [edge], [output]))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(*spec) for spec in inputs],
            [
                helper.make_tensor_value_info(output, element, shape)
                for output, _, element, shape in outputs
            ],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
