"""Discrete Fourier transforms of real data in float64, as matrix products.

ONNX Runtime's own operator, DFT, has no CUDA kernel, and on a CPU it takes several
times as long as two small matrix products.

Source: D. H. Bailey, J. Supercomputing 4, 23 (1990), for the transform in four steps.
"""

import numpy as np

from export.graph import Graph, Value


def power(graph: Graph, x: Value, size: int) -> Value:
    """Squared modulus of the bins 0 to ``size / 2`` of real data: [rows, bins].

    Args:
        graph: Where nodes are added.
        x: [rows, size], float64.
        size: Length of the data, even.
    """
    places, columns = _places(np.arange(size // 2 + 1), size)
    real, imaginary = _transform(graph, x, size, columns)
    squared = graph.Add(graph.Mul(real, real), graph.Mul(imaginary, imaginary))
    bins: Value = graph.Gather(graph.Reshape(squared, [0, -1]), places, axis=1)
    return bins


def cosine_sums(graph: Graph, x: Value, size: int, lags: int) -> Value:
    """Transform of real, even data at the lags 0 to ``lags - 1``: [rows, lags].

    Such a transform is real, and its own inverse but for a factor of ``size``.

    Args:
        graph: Where nodes are added.
        x: [rows, size], float64, ``x[n] == x[size - n]``.
        size: Length of the data, even.
        lags: Lags that are wanted, at most ``size / 2 + 1``.
    """
    places, columns = _places(np.arange(lags), size)
    real, _ = _transform(graph, x, size, columns)
    sums: Value = graph.Gather(graph.Reshape(real, [0, -1]), places, axis=1)
    return sums


def factors(size: int) -> tuple[int, int]:
    """The two factors of a size that are closest to each other, the larger first."""
    smaller = next(n for n in range(int(size**0.5), 0, -1) if size % n == 0)
    return size // smaller, smaller


def _transform(
    graph: Graph, x: Value, size: int, columns: np.ndarray
) -> tuple[Value, Value]:
    """Real and imaginary part of some bins: [rows, A / 2 + 1, columns] each.

    With ``size = A B``, sample ``B a + b`` and bin ``A p + q``, the transform is one of
    length A over ``a``, a phase that depends on ``b`` and ``q``, and one of length B
    over ``b``. As the data are real, ``q`` up to ``A / 2`` suffices.
    """
    a_size, b_size = factors(size)
    rows = np.arange(a_size // 2 + 1)

    def waves(n: np.ndarray, k: np.ndarray, period: int) -> np.ndarray:
        # The product modulo the period keeps the angle exact.
        return np.exp(-2j * np.pi * (np.outer(n, k) % period) / period)

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


def _places(bins: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where bins are in what :func:`_transform` returns, and the columns it must make.

    Bin ``k`` and bin ``size - k`` of real data are conjugates of each other: a bin with
    ``q`` above ``A / 2`` is found at the other one's place, with the opposite imaginary
    part.
    """
    a_size, _ = factors(size)
    mirrored = bins % a_size > a_size // 2
    found = np.where(mirrored, size - bins, bins)
    columns, index = np.unique(found // a_size, return_inverse=True)
    return found % a_size * len(columns) + index, columns
