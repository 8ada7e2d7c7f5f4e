"""A small builder for ONNX graphs, which are written as Python expressions.

``graph.Slice(x, [0], [4])`` adds a node and returns its output; numbers, lists and
arrays become constants; ``graph.collect`` and ``graph.map`` make a Loop from a Python
function. PyTorch's exporter writes the networks. This module writes what the exporter
cannot express: loops whose trip count depends on the request, and shapes that change
from one iteration to the next. onnxscript's ``GraphBuilder`` takes as many lines and
inlines a model with weights only by private functions; spox cannot name a node, which
``Graph.refuse`` must.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
"""Newest opset with CUDA kernels in ONNX Runtime for all operators used here."""

IR_VERSION = 10
"""Newest IR version that ONNX Runtime 1.19, shipped with Triton 24.10, can read."""

Value = str
"""The name of an edge in the graph."""


Mapped = tuple[Value, int]
"""An edge and its element type."""


class Graph:
    """An ONNX graph under construction.

    Args:
        prefix: Prefix of its edges' names; each subgraph needs its own.
    """

    def __init__(self, prefix: str = "v") -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        """A function that adds a node of this ONNX operator and returns its outputs."""
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
        """Add a node, named after its first output unless a name is given.

        ONNX Runtime derives the names of nodes that it creates from the names of the
        original nodes. Up to version 1.21, it rejects a model in which two created
        nodes get the same name.
        """
        name = name or f"{operator}_{outputs[0]}"
        self._nodes.append(
            helper.make_node(operator, inputs, outputs, name=name, **attributes)
        )

    def _edge(self) -> Value:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def value(self, x: Any) -> Value:
        """Return an edge as it is; add a number, list or array as a constant.

        Python integers become int64; floats, and arrays of floats, float32. None is an
        optional input that is left out.
        """
        if x is None:
            return ""
        if isinstance(x, str):
            return x
        array = np.asarray(x)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        return self.constant(array)

    def constant(self, array: NDArray[Any]) -> Value:
        """Add a constant of the array's own data type."""
        name = self._edge()
        self._add("Constant", [], [name], value=numpy_helper.from_array(array))
        return name

    def size(self, x: Value, axis: int) -> Value:
        """Length of one axis, int64 [1]."""
        size: Value = self.Shape(x, start=axis, end=axis + 1)
        return size

    def cut(self, x: Value, start: Any, stop: Any, axis: int) -> Value:
        """``x[start:stop]`` along one axis; a stop of ``None`` means the end."""
        end = [2**62] if stop is None else stop
        piece: Value = self.Slice(x, start, end, [axis])
        return piece

    def refuse(self, fault: Value, name: str) -> Value:
        """Return zero, int64 [1], or fail the request if ``fault`` is true.

        An ONNX model can refuse a request only through an index that is out of bounds.
        The client's error message contains the node's name. Every computation that must
        not run on a faulty request must depend on the returned zero.

        Args:
            fault: bool [1].
            name: The node's name, which states the rule that the request broke.
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
        """Concatenate ``first`` and the results of a loop over ``body(graph, trip)``.

        ``trips``, the trip count, is an int64 scalar. The pieces are float32 and may
        differ in length along ``axis``; they are concatenated once, after the loop. The
        body may use the outer graph's edges.
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
        """Stack the results of a loop over ``body(graph, trip)``.

        ``trips``, the trip count, is an int64 scalar. The body returns each result's
        edge and element type; a result has the same shape in every iteration. The body
        may use the outer graph's edges.
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
        """Copy another model's nodes into this graph, and return its outputs.

        Args:
            model: A model of the same opset, without subgraphs.
            inputs: The edge that replaces each of its inputs, by the input's name.
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
        """Return the finished model, after ONNX's full check.

        Args:
            name: Name of the graph.
            inputs: Name, element type and shape of each input.
            outputs: Name, edge, element type and shape of each output.
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
