"""The whitening filter in ONNX graphs: its design from a PSD, and its application.

The filter is the truncated inverse spectrum: the inverse ASD, set to zero below the
highpass, transformed to the time domain, and tapered to ``fduration`` with a Hann
window. It is symmetric, with taps T(-h) to T(h). It is applied to differences of
neighbouring samples instead of to samples. With ``E(l) = T(l + 1) + ... + T(h)`` and
``D`` the sum of all taps,

    sum over l of T(l) x(l) = D x(0) + sum over l >= 0 of E(l) (d(l) - d(-1 - l)),

where ``d(l) = x(l + 1) - x(l)`` belongs to the later sample. Recorded strain is loudest
below 10 Hz, by orders of magnitude; differencing attenuates those frequencies 30 to 300
times. So the rounding errors of float32 are a tenth of those of a sum over samples.

Source: B. Allen et al., Phys. Rev. D 85, 122006 (2012), section VII, for the
truncation of the inverse spectrum.
"""

import math

import numpy as np
from onnx import TensorProto

from chirpwatch.export import fourier
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.geometry import Geometry


def filter_values(geometry: Geometry) -> int:
    """Number of values that a filter is stored as: D, then E(0) to E(h - 2).

    E(h - 1) is 0, and is not stored.
    """
    return geometry.filter_size // 2


def design(graph: Graph, geometry: Geometry, psd: Value, usable: Value) -> Value:
    """Design filters from PSDs, which whiten noise to unit variance: [psds, values].

    A filter is all zeros if its PSD is not usable, or is not finite and positive above
    the highpass, as for a detector that is off.

    Args:
        graph: The graph to extend.
        geometry: The analysis.
        psd: One-sided PSDs, per Hz, [psds, bins].
        usable: Whether each PSD may be used, bool [psds].
    """
    size, half_size = geometry.fft_size, geometry.filter_size // 2
    bins = size // 2 + 1
    first_bin = math.ceil(geometry.highpass * geometry.fftlength)
    band = graph.cut(psd, [first_bin], [-1], axis=1)
    good = graph.And(graph.Greater(band, 0.0), graph.Less(band, float("inf")))
    good = graph.ReduceMin(graph.Cast(good, to=TensorProto.INT64), [1])
    good = graph.And(
        graph.Cast(good, to=TensorProto.BOOL), graph.Unsqueeze(usable, [1])
    )
    band = graph.Cast(graph.Where(good, band, 1.0), to=TensorProto.DOUBLE)
    inverse = graph.Reciprocal(graph.Sqrt(band))
    inverse = graph.Pad(inverse, [0, first_bin, 0, 1], graph.constant(np.array(0.0)))
    # Both halves of the even spectrum: the bins, then the bins reversed without the
    # first and the last.
    mirrored = graph.Slice(inverse, [bins - 2], [0], [1], [-1])
    both = graph.Concat(inverse, mirrored, axis=1)
    response = fourier.cosine_sums(graph, both, size, half_size)
    lags = np.arange(half_size)
    taper = (0.5 + 0.5 * np.cos(np.pi * lags / half_size)) / size
    taper *= np.sqrt(2 / geometry.sample_rate)
    taps = graph.Mul(response, graph.constant(taper))

    later = graph.cut(taps, [1], None, axis=1)
    sums = graph.CumSum(later, 1, reverse=1)
    total = graph.Mul(graph.cut(sums, [0], [1], axis=1), graph.constant(np.array(2.0)))
    total = graph.Add(graph.cut(taps, [0], [1], axis=1), total)
    values = graph.Cast(graph.Concat(total, sums, axis=1), to=TensorProto.FLOAT)
    filters: Value = graph.Where(good, values, 0.0)
    return filters


def nonzero(graph: Graph, filters: Value) -> Value:
    """Whether each filter is not all zeros, and so can whiten: bool [filters, ifos].

    Args:
        graph: The graph to extend.
        filters: [filters, ifos, values].
    """
    # E(0) is half the sum of all taps but the middle one; no real filter has 0 there.
    first = graph.Squeeze(graph.cut(filters, [1], [2], axis=2), [2])
    flags: Value = graph.Not(graph.Equal(first, 0.0))
    return flags


def toeplitz(graph: Graph, filter_: Value, window_size: int, block_size: int) -> Value:
    """Toeplitz matrix that maps a window of differences to a block: [block, window].

    Row r has row 0's coefficients, moved r columns to the right. To build it,
    zero-padded copies of the coefficients are laid end to end, and are read in rows one
    value shorter than a copy. A copy's trailing zeros fill the start of the next row.

    Args:
        graph: The graph to extend.
        filter_: One filter, [values].
        window_size: Number of differences in the window.
        block_size: Number of whitened samples in the block.
    """
    later = graph.cut(filter_, [1], None, axis=0)
    earlier = graph.Neg(graph.Slice(later, [-1], [-(2**62)], [0], [-1]))
    period = window_size + block_size
    both = graph.Concat(earlier, later, axis=0)
    # The window starts h samples before the first whitened sample; its first two
    # differences have coefficients of 0.
    size = graph.size(both, 0)
    padding = graph.Concat([2], graph.Sub([period - 2], size), axis=0)
    copies = graph.Tile(graph.Pad(both, padding), [block_size])
    copies = graph.cut(copies, [0], [block_size * (period - 1)], axis=0)
    rows = graph.Reshape(copies, [block_size, period - 1])
    return graph.cut(rows, [0], [window_size], axis=1)
