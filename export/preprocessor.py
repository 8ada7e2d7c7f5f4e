"""The preprocessor: whitening, as a matrix product.

Each whitened sample is one dot product with the filter that is newest at its time,
whatever the request's length; 64 samples at a time share a Toeplitz matrix, so that it
runs as a matrix product, which is within a factor of two of what the processor can do
and needs no Fourier transform of the strain.
"""

import numpy as np
import onnx
from onnx import TensorProto

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry
from export import whitening
from export.graph import Graph, Value
from export.layout import BLOCK_SIZE, Layout, Turn


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the preprocessor.

    Inputs, from the snapshotter: ``snapshot`` [rows, ifos, history + n], ``filters``
    [filters, ifos, values]; and ``position`` [ifos], samples of each detector's data
    before this request.

    Outputs: ``whitened`` [rows, ifos, kernel - stride + n], unit variance in noise; its
    last sample lies ``fduration / 2`` before the last one of the request. A sample is
    whitened by the newest PSD that was due when its last strain sample came in, and
    before the first PSD by that one; strain that is not finite is taken for 0.
    ``usable`` [ifos, frames], for each frame of strain from the kernel's and the
    filter's oldest one on, whether it is finite and not all zero, in every row.

    Raises:
        GeometryError: The lengths are not whole blocks of 64 samples.
    """
    layout = Layout(geometry)
    for name, size in {
        "stride": geometry.stride_size,
        "half of fduration": geometry.filter_size / 2,
        "psd_refresh_length": geometry.psd_refresh_size,
    }.items():
        if size % BLOCK_SIZE:
            raise GeometryError(
                f"{name}: expected a multiple of {BLOCK_SIZE} samples, found {size:g}"
            )
    ifos = len(geometry.ifos)
    graph = Graph()
    size = graph.Sub(graph.size("snapshot", 2), layout.history_size)
    magnitude = graph.Abs("snapshot")
    finite = graph.Less(magnitude, float("inf"))
    snapshot = graph.Where(finite, "snapshot", 0.0)
    columns = []
    for i in range(ifos):
        before = graph.cut("position", [i], [i + 1], axis=0)
        turn = Turn.of(graph, geometry, before, size)
        strain = graph.Gather(snapshot, i, axis=1)
        filters = graph.Gather("filters", i, axis=1)
        columns.append(_whiten(graph, layout, strain, filters, turn))
    whitened = graph.Concat(*columns, axis=1)

    # Beside what the kernels see, the snapshot has a block more.
    extra = [layout.history_size - layout.overlap_size - geometry.filter_size]
    magnitude, finite = (
        graph.Reshape(
            graph.cut(x, extra, None, axis=2), [0, ifos, -1, geometry.frame_size]
        )
        for x in (magnitude, graph.Cast(finite, to=TensorProto.FLOAT))
    )
    finite = graph.Greater(graph.ReduceMin(finite, [3], keepdims=0), 0.5)
    sent = graph.Greater(graph.ReduceMax(magnitude, [3], keepdims=0), 0.0)
    usable = graph.Cast(graph.And(finite, sent), to=TensorProto.INT64)
    usable = graph.Cast(graph.ReduceMin(usable, [0], keepdims=0), to=TensorProto.BOOL)
    return graph.model(
        "preprocessor",
        inputs=[
            ("snapshot", TensorProto.FLOAT, ["rows", ifos, "snapshot_samples"]),
            ("filters", TensorProto.FLOAT, ["filters", ifos, layout.filter_values]),
            ("position", TensorProto.INT64, [ifos]),
        ],
        outputs=[
            (
                "whitened",
                whitened,
                TensorProto.FLOAT,
                ["rows", ifos, "whitened_samples"],
            ),
            ("usable", usable, TensorProto.BOOL, [ifos, "strain_frames"]),
        ],
    )


def _whiten(
    graph: Graph, layout: Layout, strain: Value, filters: Value, turn: Turn
) -> Value:
    """One detector's whitened samples, [rows, 1, samples].

    Args:
        graph: Where nodes are added.
        layout: Sizes.
        strain: [rows, history + n].
        filters: [filters, values].
        turn: Where the detector stands.
    """
    geometry = layout.geometry
    reach = geometry.filter_size // BLOCK_SIZE + 1
    middle = geometry.filter_size // 2 // BLOCK_SIZE
    overlap_blocks = layout.overlap_size // BLOCK_SIZE
    refresh_blocks = geometry.psd_refresh_size // BLOCK_SIZE

    # Blocks lie on a grid that is counted from where the detector's data begin, so that
    # a PSD changes between two of them; the first and the last may be whitened in part.
    odd = graph.Mod(turn.before, BLOCK_SIZE)
    first = graph.Sub(BLOCK_SIZE, odd)
    before = graph.cut(strain, graph.Sub(first, 1), [-1], axis=1)
    strain = graph.cut(strain, first, None, axis=1)
    padding = graph.Mod(graph.Sub(0, odd), BLOCK_SIZE)
    ends = graph.Concat([0, 0, 0], padding, axis=0)
    strain, differences = (
        graph.Reshape(graph.Pad(x, ends), [0, -1, BLOCK_SIZE])
        for x in (strain, graph.Sub(strain, before))
    )

    # `turns[b]`: which filter whitens block b. Its last strain sample lies in the block
    # that is half a filter later.
    blocks = graph.Sub(graph.size(strain, 1), reach - 1)
    now = graph.Div(graph.Sub(turn.before, odd), BLOCK_SIZE)
    edges = graph.Range(0, graph.Squeeze(blocks), 1)
    edges = graph.Sub(graph.Add(edges, now), overlap_blocks)
    turns = turn.filter_index(graph, graph.Div(edges, refresh_blocks))
    first_turn = graph.ReduceMin(turns, [0])
    trips = graph.Add(graph.Sub(graph.ReduceMax(turns, [0]), first_turn), 1)

    def whiten(body: Graph, trip: Value) -> Value:
        index = body.Add(first_turn, trip)
        begin, stop = (
            body.ReduceSum(body.Cast(flags, to=TensorProto.INT64))
            for flags in (body.Less(turns, index), body.LessOrEqual(turns, index))
        )
        members = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        # Never a product of one row, which is summed in another order: the last block
        # twice.
        twice = body.Concat(members, body.cut(members, [-1], None, axis=0), axis=0)
        windows = body.Add(body.Unsqueeze(twice, [1]), np.arange(reach)[None])
        windows = body.Gather(differences, windows, axis=1)
        windows = body.Reshape(windows, [0, -1, reach * BLOCK_SIZE])
        one = body.Squeeze(body.Gather(filters, index, axis=0), [0])
        matrix = whitening.toeplitz(body, one, reach * BLOCK_SIZE, BLOCK_SIZE)
        product = body.MatMul(windows, body.Transpose(matrix, perm=[1, 0]))
        product = body.cut(product, [0], [-1], axis=1)
        centers = body.Gather(strain, body.Add(members, middle), axis=1)
        total = body.cut(one, [0], [1], axis=0)
        return body.Add(product, body.Mul(centers, total))

    nothing = graph.cut(strain, [0], [0], axis=1)
    whitened = graph.collect(graph.Squeeze(trips), nothing, 1, whiten)
    whitened = graph.Reshape(whitened, [0, -1])
    stop = graph.Sub(graph.size(whitened, 1), padding)
    whitened = graph.cut(whitened, odd, stop, axis=1)
    column: Value = graph.Unsqueeze(whitened, [1])
    return column
