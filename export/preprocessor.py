"""The model ``preprocessor``: whitens strain by matrix products.

Each whitened sample is the dot product of strain and the newest filter at its time, so
it does not depend on how strain is divided into requests. The samples in a block of 64
share a filter, whose Toeplitz matrix whitens many blocks in one matrix product. This
runs within a factor of two of the processor's peak, and needs no Fourier transform of
the strain.
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
    Counts,
    Layout,
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
    by 0. ``usable`` [ifos, frames] bool, whether each ``frame_size`` samples of strain
    are finite and not all zero in every row; the first are the oldest that the first
    kernel and its filter depend on.

    Raises:
        GeometryError: The stride, half of ``fduration`` or ``psd_refresh_length`` is
            not a multiple of 64 samples.
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
        counts = Counts.of(graph, geometry, before, size)
        strain = graph.Gather(snapshot, i, axis=1)
        filters = graph.Gather("filters", i, axis=1)
        columns.append(_whiten(graph, layout, strain, filters, counts))
    whitened = graph.Concat(*columns, axis=1)

    # The snapshot has one block more than the kernels and the filter depend on.
    extra = [layout.history_size - layout.overlap_size - geometry.filter_size]
    magnitude, finite = (
        graph.Reshape(
            graph.cut(x, extra, None, axis=2), [0, ifos, -1, geometry.frame_size]
        )
        for x in (magnitude, graph.Cast(finite, to=TensorProto.FLOAT))
    )
    finite = graph.Greater(graph.ReduceMin(finite, [3], keepdims=0), 0.5)
    # A detector that is off sends zeros.
    is_on = graph.Greater(graph.ReduceMax(magnitude, [3], keepdims=0), 0.0)
    usable = graph.Cast(graph.And(finite, is_on), to=TensorProto.INT64)
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
    graph: Graph, layout: Layout, strain: Value, filters: Value, counts: Counts
) -> Value:
    """Whiten one detector's strain: [rows, 1, samples].

    Args:
        graph: The graph to extend.
        layout: Sizes.
        strain: The detector's strain, finite, [rows, history + n].
        filters: The detector's filters, [filters, values].
        counts: The detector's counts.
    """
    geometry = layout.geometry
    window_blocks = geometry.filter_size // BLOCK_SIZE + 1
    window_size = window_blocks * BLOCK_SIZE
    middle = geometry.filter_size // 2 // BLOCK_SIZE
    overlap_blocks = layout.overlap_size // BLOCK_SIZE
    refresh_blocks = geometry.psd_refresh_size // BLOCK_SIZE

    # Blocks lie on a grid counted from the start of the detector's data, so that the
    # PSD changes only between blocks. Of the first and the last, only a part may be
    # needed.
    excess = graph.Mod(counts.samples_before, BLOCK_SIZE)
    first = graph.Sub(BLOCK_SIZE, excess)
    previous = graph.cut(strain, graph.Sub(first, 1), [-1], axis=1)
    strain = graph.cut(strain, first, None, axis=1)
    padding = graph.Mod(graph.Sub(0, excess), BLOCK_SIZE)
    ends = graph.Concat([0, 0, 0], padding, axis=0)
    strain, differences = (
        graph.Reshape(graph.Pad(x, ends), [0, -1, BLOCK_SIZE])
        for x in (strain, graph.Sub(strain, previous))
    )

    # `filter_indices[b]` is the index of the filter that whitens block b. The last
    # strain sample that block b depends on lies in the block half a filter later.
    blocks = graph.Sub(graph.size(strain, 1), window_blocks - 1)
    now = graph.Div(graph.Sub(counts.samples_before, excess), BLOCK_SIZE)
    edges = graph.Range(0, graph.Squeeze(blocks), 1)
    edges = graph.Sub(graph.Add(edges, now), overlap_blocks)
    filter_indices = counts.filter_index(graph, graph.Div(edges, refresh_blocks))
    first_index = graph.ReduceMin(filter_indices, [0])
    trips = graph.Add(graph.Sub(graph.ReduceMax(filter_indices, [0]), first_index), 1)

    def whiten(body: Graph, trip: Value) -> Value:
        index = body.Add(first_index, trip)
        begin, stop = (
            body.ReduceSum(body.Cast(flags, to=TensorProto.INT64))
            for flags in (
                body.Less(filter_indices, index),
                body.LessOrEqual(filter_indices, index),
            )
        )
        members = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        # The last block is repeated, as a matrix product with a single row may sum in
        # another order, and results must not depend on the request's length.
        twice = body.Concat(members, body.cut(members, [-1], None, axis=0), axis=0)
        windows = body.Add(body.Unsqueeze(twice, [1]), np.arange(window_blocks)[None])
        windows = body.Gather(differences, windows, axis=1)
        windows = body.Reshape(windows, [0, -1, window_size])
        filter_ = body.Squeeze(body.Gather(filters, index, axis=0), [0])
        matrix = whitening.toeplitz(body, filter_, window_size, BLOCK_SIZE)
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
    whitened = graph.cut(whitened, excess, stop, axis=1)
    column: Value = graph.Unsqueeze(whitened, [1])
    return column
