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
from export.snapshotter import BLOCK_SIZE, Layout


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the preprocessor.

    Inputs, from the snapshotter: ``snapshot`` [rows, ifos, history + n], ``psd``
    [spectra, ifos, bins]; and ``step`` [1], strides before this request.

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
    reach = 2 * half_size // BLOCK_SIZE + 1
    stride_blocks = geometry.stride_size // BLOCK_SIZE
    overlap_blocks = layout.overlap_size // BLOCK_SIZE
    refresh_blocks = geometry.psd_refresh_size // BLOCK_SIZE

    graph = Graph()
    filters = _filters(graph, geometry, "psd")
    strain = graph.Transpose("snapshot", perm=[1, 0, 2])
    strain = graph.Reshape(strain, [ifos, 0, -1, BLOCK_SIZE])

    # `turns[b]`: which PSD whitens block b. Its last strain sample lies in the block
    # that is half a filter later; counted from the sequence's start in refreshes, less
    # the number of the first PSD at hand.
    blocks = graph.Sub(graph.size(strain, 2), reach - 1)
    now = graph.Mul("step", stride_blocks)
    edges = graph.Range(0, graph.Squeeze(blocks), 1)
    edges = graph.Sub(graph.Add(edges, now), overlap_blocks)
    turns = graph.Max(graph.Div(edges, refresh_blocks), [1])
    turns = graph.Add(graph.Sub(turns, graph.Div(now, refresh_blocks)), 1)
    last = graph.Sub(graph.size("psd", 0), 1)
    turns = graph.Min(turns, last)
    first_turn = graph.ReduceMin(turns, [0])
    trips = graph.Add(graph.Sub(graph.ReduceMax(turns, [0]), first_turn), 1)

    def whiten(body: Graph, trip: Value, done: Value) -> Value:
        turn = body.Add(first_turn, trip)
        begin = body.size(done, 2)
        until = body.Cast(body.LessOrEqual(turns, turn), to=TensorProto.INT64)
        count = body.Sub(body.ReduceSum(until, [0]), begin)
        members = body.Range(
            body.Squeeze(begin), body.Squeeze(body.Add(begin, count)), 1
        )
        windows = body.Add(body.Unsqueeze(members, [1]), np.arange(reach)[None])
        windows = body.Gather(strain, windows, axis=2)
        windows = body.Reshape(windows, [ifos, -1, reach * BLOCK_SIZE])
        one = body.Squeeze(body.Gather(filters, turn, axis=0), [0])
        toeplitz = _toeplitz(body, one, ifos, reach * BLOCK_SIZE)
        whitened = body.MatMul(windows, body.Transpose(toeplitz, perm=[0, 2, 1]))
        shape = body.Concat([ifos], body.size(strain, 1), count, [BLOCK_SIZE], axis=0)
        return body.Concat(done, body.Reshape(whitened, shape, allowzero=1), axis=2)

    nothing = graph.cut(strain, [0], [0], axis=2)
    whitened = graph.loop(graph.Squeeze(trips), nothing, whiten)
    whitened = graph.Reshape(whitened, [ifos, 0, -1])
    return graph.model(
        "preprocessor",
        inputs=[
            ("snapshot", TensorProto.FLOAT, ["rows", ifos, "snapshot_samples"]),
            ("psd", TensorProto.FLOAT, ["spectra", ifos, layout.bins]),
            ("step", TensorProto.INT64, [1]),
        ],
        outputs=[
            (
                "whitened",
                graph.Transpose(whitened, perm=[1, 0, 2]),
                TensorProto.FLOAT,
                ["rows", ifos, "whitened_samples"],
            )
        ],
    )


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


def _toeplitz(graph: Graph, taps: Value, ifos: int, window_size: int) -> Value:
    """The matrix that takes a window of strain to a block: [ifos, block, window].

    Row r holds the taps r places later than row 0 does. Copies of the taps one after
    the other, read in rows one value shorter than a copy, are just that; the zeros at
    the end of a copy fill the begin of the next row.
    """
    period = window_size + BLOCK_SIZE
    copies = graph.Tile(taps, [1, BLOCK_SIZE])
    copies = graph.cut(copies, [0], [BLOCK_SIZE * (period - 1)], axis=1)
    rows = graph.Reshape(copies, [ifos, BLOCK_SIZE, period - 1])
    return graph.cut(rows, [0], [window_size], axis=2)
