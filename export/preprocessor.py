"""The preprocessor: whitening as a matrix product.

Each whitened sample is the dot product of strain and the newest filter at its time,
whatever the request's length. Blocks of 64 samples share a Toeplitz matrix, so that
whitening is a matrix product. It runs within a factor of two of the processor's peak,
and needs no Fourier transform of the strain.
"""

import numpy as np
import onnx
from onnx import TensorProto

from chirpwatch.errors import GeometryError
from chirpwatch.export import whitening
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.export.layout import (
    BLOCK_SIZE,
    Layout,
    Turn,
)
from chirpwatch.geometry import Geometry


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the preprocessor.

    Inputs, from the snapshotter: ``snapshot`` [rows, ifos, history + n], ``filters``
    [filters, ifos, values]; and ``position`` [ifos], samples of each detector's data
    before this request.

    Outputs: ``whitened`` [rows, ifos, kernel - stride + n], unit variance in noise; its
    last sample lies ``fduration / 2`` before the request's last sample. A sample is
    whitened by the newest PSD that was due when the last strain sample it depends on
    arrived, or by the first PSD if none was due. Strain that is not finite is replaced
    by 0. ``usable`` [ifos, frames], whether each frame of strain is finite and not all
    zero in every row; the first frame is the oldest that the first kernel and its
    filter reach.

    Raises:
        GeometryError: A length is not a whole number of blocks of 64 samples.
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

    # The snapshot has one block more than the kernels and the filter reach.
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
        graph: The graph to extend.
        layout: Sizes.
        strain: [rows, history + n].
        filters: [filters, values].
        turn: The detector's counts.
    """
    geometry = layout.geometry
    reach = geometry.filter_size // BLOCK_SIZE + 1
    middle = geometry.filter_size // 2 // BLOCK_SIZE
    overlap_blocks = layout.overlap_size // BLOCK_SIZE
    refresh_blocks = geometry.psd_refresh_size // BLOCK_SIZE

    # Blocks lie on a grid counted from the start of the detector's data, so that the
    # PSD changes only between blocks. The first and the last may be needed in part.
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

    # `turns[b]`: index of the filter that whitens block b. The last strain sample that
    # block b depends on lies in the block that is half a filter later.
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
        # The last block is repeated, as a product of a single row would be summed in
        # another order.
        twice = body.Concat(members, body.cut(members, [-1], None, axis=0), axis=0)
        windows = body.Add(body.Unsqueeze(twice, [1]), np.arange(reach)[None])
        windows = body.Gather(differences, windows, axis=1)
        windows = body.Reshape(windows, [0, -1, reach * BLOCK_SIZE])
        filter_ = body.Squeeze(body.Gather(filters, index, axis=0), [0])
        matrix = whitening.toeplitz(body, filter_, reach * BLOCK_SIZE, BLOCK_SIZE)
        product = body.MatMul(windows, body.Transpose(matrix, perm=[1, 0]))
        product = body.cut(product, [0], [-1], axis=1)
        centers = body.Gather(strain, body.Add(members, middle), axis=1)
        total = body.cut(filter_, [0], [1], axis=0)
        result: str = body.Add(product, body.Mul(centers, total))
        return result

    nothing = graph.cut(strain, [0], [0], axis=1)
    whitened = graph.collect(graph.Squeeze(trips), nothing, 1, whiten)
    whitened = graph.Reshape(whitened, [0, -1])
    stop = graph.Sub(graph.size(whitened, 1), padding)
    whitened = graph.cut(whitened, odd, stop, axis=1)
    column: Value = graph.Unsqueeze(whitened, [1])
    return column
