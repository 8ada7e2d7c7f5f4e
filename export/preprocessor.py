"""The preprocessor: whitening by one filter for each PSD, as a matrix product.

The filter is the truncated inverse spectrum: the inverse ASD, nothing below the
highpass, brought to the time domain, tapered by a Hann window to ``fduration``. Each
whitened sample is one dot product with that filter, whatever the request's length; 64
samples at a time share a Toeplitz matrix, so that it runs as a matrix product, which is
within a factor of two of what the processor can do and needs no Fourier transform of
the strain.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry
from export.graph import Graph, Value
from export.snapshotter import BLOCK_SIZE, Layout, Turn


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the preprocessor.

    Inputs, from the snapshotter: ``snapshot`` [rows, ifos, history + n], ``psd``
    [spectra, ifos, bins]; and ``position`` [ifos], samples of each detector's data
    before this request.

    Output: ``whitened`` [rows, ifos, kernel - stride + n], unit variance in noise; its
    last sample lies ``fduration / 2`` before the last one of the request. A sample is
    whitened by the newest PSD that was due when its last strain sample came in, and
    before the first PSD by that one.

    Raises:
        GeometryError: The lengths are not whole blocks of 64 samples.
    """
    layout = Layout(geometry)
    half_size = geometry.filter_size // 2
    for name, size in {
        "stride": geometry.stride_size,
        "half of fduration": half_size,
        "psd_refresh_length": geometry.psd_refresh_size,
    }.items():
        if size % BLOCK_SIZE:
            raise GeometryError(
                f"{name}: expected a multiple of {BLOCK_SIZE} samples, found {size}"
            )
    ifos = len(geometry.ifos)
    graph = Graph()
    filters = _filters(graph, geometry, "psd")
    size = graph.Sub(graph.size("snapshot", 2), layout.history_size)
    whitened = []
    for i in range(ifos):
        before = graph.cut("position", [i], [i + 1], axis=0)
        turn = Turn.of(graph, geometry, before, size)
        strain = graph.Gather("snapshot", i, axis=1)
        taps = graph.Gather(filters, i, axis=1)
        whitened.append(_whiten(graph, layout, strain, taps, turn))
    return graph.model(
        "preprocessor",
        inputs=[
            ("snapshot", TensorProto.FLOAT, ["rows", ifos, "snapshot_samples"]),
            ("psd", TensorProto.FLOAT, ["spectra", ifos, layout.bins]),
            ("position", TensorProto.INT64, [ifos]),
        ],
        outputs=[
            (
                "whitened",
                graph.Concat(*whitened, axis=1),
                TensorProto.FLOAT,
                ["rows", ifos, "whitened_samples"],
            )
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
        filters: One for each PSD, [spectra, taps].
        turn: Where the detector stands.
    """
    geometry = layout.geometry
    reach = geometry.filter_size // BLOCK_SIZE + 1
    overlap_blocks = layout.overlap_size // BLOCK_SIZE
    refresh_blocks = geometry.psd_refresh_size // BLOCK_SIZE

    # Blocks lie on a grid that is counted from where the detector's data begin, so that
    # a PSD changes between two of them; the first and the last may be whitened in part.
    odd = graph.Mod(turn.before, BLOCK_SIZE)
    strain = graph.cut(strain, graph.Sub(BLOCK_SIZE, odd), None, axis=1)
    padding = graph.Mod(graph.Sub(0, odd), BLOCK_SIZE)
    strain = graph.Pad(strain, graph.Concat([0, 0, 0], padding, axis=0))
    strain = graph.Reshape(strain, [0, -1, BLOCK_SIZE])

    # `turns[b]`: which PSD whitens block b. Its last strain sample lies in the block
    # that is half a filter later.
    blocks = graph.Sub(graph.size(strain, 1), reach - 1)
    now = graph.Div(graph.Sub(turn.before, odd), BLOCK_SIZE)
    edges = graph.Range(0, graph.Squeeze(blocks), 1)
    edges = graph.Sub(graph.Add(edges, now), overlap_blocks)
    turns = turn.spectrum(graph, graph.Div(edges, refresh_blocks))
    first_turn = graph.ReduceMin(turns, [0])
    trips = graph.Add(graph.Sub(graph.ReduceMax(turns, [0]), first_turn), 1)

    def whiten(body: Graph, trip: Value) -> Value:
        index = body.Add(first_turn, trip)
        begin, stop = (
            body.ReduceSum(body.Cast(flags, to=TensorProto.INT64))
            for flags in (body.Less(turns, index), body.LessOrEqual(turns, index))
        )
        members = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        windows = body.Add(body.Unsqueeze(members, [1]), np.arange(reach)[None])
        windows = body.Gather(strain, windows, axis=1)
        windows = body.Reshape(windows, [0, -1, reach * BLOCK_SIZE])
        one = body.Squeeze(body.Gather(filters, index, axis=0), [0])
        toeplitz = _toeplitz(body, one, reach * BLOCK_SIZE)
        return body.MatMul(windows, body.Transpose(toeplitz, perm=[1, 0]))

    nothing = graph.cut(strain, [0], [0], axis=1)
    whitened = graph.collect(graph.Squeeze(trips), nothing, 1, whiten)
    whitened = graph.Reshape(whitened, [0, -1])
    stop = graph.Sub(graph.size(whitened, 1), padding)
    whitened = graph.cut(whitened, odd, stop, axis=1)
    column: Value = graph.Unsqueeze(whitened, [1])
    return column


def _filters(graph: Graph, geometry: Geometry, psd: Value) -> Value:
    """The whitening filters, [spectra, ifos, taps]: the taps, which are symmetric.

    They are padded with zeros for :func:`_toeplitz`. A PSD that is
    not there yet (zeros) gives a filter that passes nothing.

    Source: B. Allen et al., Phys. Rev. D 85, 122006 (2012), section VII, for the
    truncation of the inverse spectrum.
    """
    size, half_size = geometry.fft_size, geometry.filter_size // 2
    bins = size // 2 + 1
    passed = np.arange(bins) >= math.ceil(geometry.highpass * geometry.fftlength)
    passed[-1] = False
    there = graph.Greater(psd, 0.0)
    safe = graph.Where(there, psd, 1.0)
    inverse = graph.Div(passed.astype(np.float32), graph.Sqrt(safe))
    inverse = graph.Mul(inverse, graph.Cast(there, to=TensorProto.FLOAT))

    # An even, real spectrum: the forward transform of its two sides is the inverse one.
    mirrored = graph.Slice(inverse, [-2], [0], [2], [-1])
    even = graph.Unsqueeze(graph.Concat(inverse, mirrored, axis=2), [3])
    even = graph.Cast(even, to=TensorProto.DOUBLE)
    response = graph.Cast(graph.DFT(even, None, 2, onesided=1), to=TensorProto.FLOAT)
    response = graph.Slice(response, [0, 0], [half_size, 1], [2, 3])
    response = graph.Squeeze(response, [3])
    lags = np.arange(half_size)
    hann = 0.5 + 0.5 * np.cos(np.pi * lags / half_size)
    response = graph.Mul(response, hann * np.sqrt(2 / geometry.sample_rate) / size)
    mirrored = graph.Slice(response, [-1], [0], [2], [-1])
    taps = graph.Concat(mirrored, response, axis=2)
    return graph.Pad(taps, [0, 0, 1, 0, 0, 2 * BLOCK_SIZE])


def _toeplitz(graph: Graph, taps: Value, window_size: int) -> Value:
    """The matrix that takes a window of strain to a block: [block, window].

    Row r holds the taps r places later than row 0 does. Copies of the taps one after
    the other, read in rows one value shorter than a copy, are just that; the zeros at
    the end of a copy fill the begin of the next row.
    """
    period = window_size + BLOCK_SIZE
    copies = graph.Tile(taps, [BLOCK_SIZE])
    copies = graph.cut(copies, [0], [BLOCK_SIZE * (period - 1)], axis=0)
    rows = graph.Reshape(copies, [BLOCK_SIZE, period - 1])
    return graph.cut(rows, [0], [window_size], axis=1)
