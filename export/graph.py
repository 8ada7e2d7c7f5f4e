"""A small way to write ONNX graphs as expressions.

``graph.Slice(x, [0], [4])`` adds a node and returns its output; numbers, lists and
arrays become constants; ``graph.loop`` makes a Loop from a Python function. PyTorch's
exporter writes the networks; this is for what it cannot express: loops whose trips
depend on the request, and shapes that differ between two trips.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
"""The newest one whose operators used here all have CUDA kernels in ONNX Runtime."""

IR_VERSION = 10
"""The newest one that ONNX Runtime 1.19 reads, which Triton 24.10 carries."""

Value = str
"""The name of an edge of the graph."""


Mapped = tuple[Value, int]
"""An edge and its element type."""


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

        def add(
            *inputs: Any, outputs: int = 1, name: str | None = None, **attributes: Any
        ) -> Any:
            names = [self._edge() for _ in range(outputs)]
            sources = [self.value(x) for x in inputs]
            self._add(operator, sources, names, name, **attributes)
            return names[0] if outputs == 1 else names

        return add

    def _add(
        self,
        operator: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        name: str | None = None,
        **attributes: Any,
    ) -> None:
        """Add a node; its name, unless one is given, is that of its first output.

        ONNX Runtime names nodes that it makes after those it made them from, and up to
        1.21 it refuses a model in which two that it made have the same name.
        """
        name = name or f"{operator}_{outputs[0]}"
        self._nodes.append(
            helper.make_node(operator, inputs, outputs, name=name, **attributes)
        )

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
        return self.constant(array)

    def constant(self, array: np.ndarray) -> Value:
        """A constant of the array's own type."""
        name = self._edge()
        self._add("Constant", [], [name], value=numpy_helper.from_array(array))
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

    def refuse(self, fault: Value, name: str) -> Value:
        """Zero, int64 [1]; or the end of the request, where there is a fault.

        The only way to refuse a request in ONNX is an index that is out of bounds. The
        error that the client gets contains the node's name. What must not be done to a
        request with a fault must depend on the result.

        Args:
            fault: bool [1].
            name: Says what a request must keep.
        """
        zero: Value = self.Gather(
            [0], self.Cast(fault, to=TensorProto.INT64), name=name
        )
        return zero

    def collect(
        self,
        trips: Value,
        first: Value,
        axis: int,
        body: "Callable[[Graph, Value], Value]",
    ) -> Value:
        """Join ``first`` and what ``body(graph, trip)`` gives in ``trips`` trips.

        ``trips`` is an int64 scalar. The pieces, float32, may differ in length along
        ``axis``, along which they are joined once, in the end. The body may use the
        outer graph's edges.
        """
        inner = Graph(prefix=f"{self._edge()}_")
        trip, condition, pieces = inner._edge(), inner._edge(), inner._edge()
        result = inner.SequenceInsert(pieces, body(inner, trip))
        go_on = inner.Identity(condition)
        graph = helper.make_graph(
            inner._nodes,
            "body",
            [
                helper.make_tensor_value_info(trip, TensorProto.INT64, []),
                helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
                helper.make_tensor_sequence_value_info(pieces, TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
                helper.make_tensor_sequence_value_info(result, TensorProto.FLOAT, None),
            ],
        )
        final = self.Loop(trips, None, self.SequenceConstruct(first), body=graph)
        joined: Value = self.ConcatFromSequence(final, axis=axis)
        return joined

    def map(
        self, trips: Value, body: "Callable[[Graph, Value], Sequence[Mapped]]"
    ) -> list[Value]:
        """Stack what ``body(graph, trip)`` gives in each of ``trips`` trips.

        ``trips`` is an int64 scalar. The body returns for each of its results the
        edge and its element type; it has the same shape in every trip. The body may
        use the outer graph's edges.
        """
        inner = Graph(prefix=f"{self._edge()}_")
        trip, condition = inner._edge(), inner._edge()
        results = body(inner, trip)
        go_on = inner.Identity(condition)
        graph = helper.make_graph(
            inner._nodes,
            "body",
            [
                helper.make_tensor_value_info(trip, TensorProto.INT64, []),
                helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
            ],
            [
                helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
                *(
                    helper.make_tensor_value_info(edge, element, None)
                    for edge, element in results
                ),
            ],
        )
        stacked = self.Loop(trips, None, outputs=len(results), body=graph)
        return list(stacked) if len(results) > 1 else [stacked]

    def inline(
        self, model: onnx.ModelProto, inputs: Mapping[str, Value]
    ) -> list[Value]:
        """The outputs of another model, its nodes copied in.

        Args:
            model: A model of the same opset, without subgraphs.
            inputs: For each of its inputs the edge that takes its place.
        """
        names = dict(inputs) | {"": ""}
        for tensor in model.graph.initializer:
            names[tensor.name] = self._edge()
            self._add("Constant", [], [names[tensor.name]], value=tensor)
        for node in model.graph.node:
            names.update({name: self._edge() for name in node.output if name})
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [names[name] for name in node.input]
            copy.output[:] = [names[name] for name in node.output]
            copy.name = f"{copy.op_type}_{copy.output[0]}"
            self._nodes.append(copy)
        return [names[output.name] for output in model.graph.output]

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
            self._add("Identity", [edge], [output])
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
