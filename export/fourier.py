"""Discrete Fourier transforms of real float64 data, as matrix products in ONNX graphs.

ONNX Runtime's own operator, DFT, has no CUDA kernel, and on a CPU it takes several
times as long as two small matrix products.

Source: D. H. Bailey, J. Supercomputing 4, 23 (1990), for the four-step algorithm.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.export.graph import (
    Graph,
    Value,
)


def power(graph: Graph, x: Value, size: int) -> Value:
    """Power spectrum of real data, |FFT|², bins 0 to ``size / 2``: [rows, bins].

    Args:
        graph: The graph to extend.
        x: [rows, size], float64.
        size: Length of the data, even.
    """
    places, columns = _places(np.arange(size // 2 + 1), size)
    real, imaginary = _transform(graph, x, size, columns)
    squared = graph.Add(graph.Mul(real, real), graph.Mul(imaginary, imaginary))
    bins: Value = graph.Gather(graph.Reshape(squared, [0, -1]), places, axis=1)
    return bins


def cosine_sums(graph: Graph, x: Value, size: int, lags: int) -> Value:
    """Discrete cosine sums of real, even data at lags 0 to ``lags - 1``: [rows, lags].

    This is the Fourier transform of such data. It is real, and is its own inverse up to
    a factor of ``size``.

    Args:
        graph: The graph to extend.
        x: [rows, size], float64, ``x[n] == x[size - n]``.
        size: Length of the data, even.
        lags: Number of lags to return, at most ``size / 2 + 1``.
    """
    places, columns = _places(np.arange(lags), size)
    real, _ = _transform(graph, x, size, columns)
    sums: Value = graph.Gather(graph.Reshape(real, [0, -1]), places, axis=1)
    return sums


def factors(size: int) -> tuple[int, int]:
    """Factor a size into two factors as close as possible, the larger first."""
    smaller = next(n for n in range(int(size**0.5), 0, -1) if size % n == 0)
    return size // smaller, smaller


def _transform(
    graph: Graph, x: Value, size: int, columns: NDArray[Any]
) -> tuple[Value, Value]:
    """Real and imaginary parts of the transform: [rows, A / 2 + 1, columns] each.

    With ``size = A B``, sample ``B a + b`` and bin ``A p + q``, the steps are a
    transform of length A over ``a``, a phase that depends on ``b`` and ``q``, and a
    transform of length B over ``b``. As the data are real, ``q`` up to ``A / 2``
    suffices. ``columns`` are the values of ``p`` to compute.
    """
    a_size, b_size = factors(size)
    rows = np.arange(a_size // 2 + 1)

    def waves(n: NDArray[Any], k: NDArray[Any], period: int) -> NDArray[Any]:
        # Taking the product modulo the period keeps the angle exact.
        result: NDArray[Any] = np.exp(-2j * np.pi * (np.outer(n, k) % period) / period)
        return result

    first = waves(rows, np.arange(a_size), a_size)
    shaped = graph.Reshape(x, [-1, a_size, b_size])
    real, imaginary = (
        graph.MatMul(graph.constant(part), shaped) for part in (first.real, first.imag)
    )

    phase = waves(rows, np.arange(b_size), size)
    cosine, sine = (graph.constant(part) for part in (phase.real, phase.imag))
    real, imaginary = (
        graph.Sub(graph.Mul(real, cosine), graph.Mul(imaginary, sine)),
        graph.Add(graph.Mul(real, sine), graph.Mul(imaginary, cosine)),
    )

    second = waves(np.arange(b_size), columns, b_size)
    both = graph.Concat(real, imaginary, axis=2)
    parts = (second.real, -second.imag), (second.imag, second.real)
    real, imaginary = (
        graph.MatMul(both, graph.constant(np.vstack(part))) for part in parts
    )
    return real, imaginary


def _places(bins: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bins' indices in ``_transform``'s flattened result, and the columns it needs.

    Bins ``k`` and ``size - k`` of real data are complex conjugates. So a bin with ``q``
    above ``A / 2`` is read from its mirror bin; its imaginary part has the opposite
    sign.
    """
    a_size, _ = factors(size)
    mirrored = bins % a_size > a_size // 2
    computed = np.where(mirrored, size - bins, bins)
    columns, index = np.unique(computed // a_size, return_inverse=True)
    return computed % a_size * len(columns) + index, columns
