"""GPS times that scores belong to."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chirpwatch.strain import NANOSECONDS

Stride = TypeVar("Stride", int, NDArray[Any])


def edge_ns(start_ns: int, stride_ns: int, stride: Stride) -> Stride:
    """Right edge of the strain that a score looks at, GPS ns.

    Args:
        start_ns: GPS time of the sequence's first sample, ns.
        stride_ns: Time between two scores, ns.
        stride: Stride of the sequence that the score belongs to.
    """
    return start_ns + (stride + 1) * stride_ns


def merger_ns(
    start_ns: int, stride_ns: int, stride: ArrayLike, delay: ArrayLike
) -> NDArray[np.int64]:
    """Estimated merger time at the first detector, right edge less delay, GPS ns.

    Args:
        start_ns: GPS time of the sequence's first sample, ns.
        stride_ns: Time between two scores, ns.
        stride: Strides of the scores, any shape.
        delay: Time by which each score's right edge lags the merger, s, same shape.
    """
    lag = np.rint(np.asarray(delay, np.float64) * NANOSECONDS).astype(np.int64)
    times: NDArray[np.int64] = (
        edge_ns(start_ns, stride_ns, np.asarray(stride, np.int64)) - lag
    )
    return times


def strides_until(start_ns: int, stride_ns: int, until_ns: int) -> int:
    """Strides of a sequence whose right edges are no later than a time.

    Args:
        start_ns: GPS time of the sequence's first sample, ns.
        stride_ns: Time between two scores, ns.
        until_ns: The time, GPS ns.
    """
    return max(0, (until_ns - start_ns) // stride_ns)
