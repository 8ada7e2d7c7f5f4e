"""Known signals added to strain, exactly, however the strain is cut."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import SignalError
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS


def signal_starts(signals: ProjectedSignals, t0_ns: int) -> NDArray[Any]:
    """Sample, counted from ``t0_ns``, at which each signal's array begins.

    The merger lands on the sample nearest to its GPS time.

    Args:
        signals: The signals.
        t0_ns: GPS time of the stretch's first sample, integer nanoseconds.

    Returns:
        int64 [n]; negative where a signal begins before the stretch.
    """
    # Integers throughout: GPS seconds as floats are good to 0.2 microseconds only.
    scaled = (signals.gps_time_ns - t0_ns) * signals.sample_rate
    merger: NDArray[Any] = (scaled + NANOSECONDS // 2) // NANOSECONDS
    return merger - signals.merger_size


def add_signals(
    strain: NDArray[Any], start: int, signals: ProjectedSignals, starts: NDArray[Any]
) -> NDArray[Any]:
    """Add every signal that overlaps a piece of strain.

    Each sample receives the signals that cover it in their order, so that a piece
    equals the same piece of the whole stretch to the last bit.

    Args:
        strain: Piece of strain, [ifos, size]; it is not changed.
        start: Sample of the stretch at which the piece begins.
        signals: The signals.
        starts: What ``signal_starts`` says, [n].

    Returns:
        float32 [ifos, size].

    Raises:
        SignalError: The signals are for another number of detectors.
    """
    if len(signals.ifos) != len(strain):
        raise SignalError(
            f"expected signals of {len(strain)} detectors, found {signals.ifos}"
        )
    size = strain.shape[1]
    injected = strain.astype(np.float64)
    first = np.searchsorted(starts, start - signals.size, side="right")
    last = np.searchsorted(starts, start + size, side="left")
    for i in range(first, last):
        offset = int(starts[i]) - start
        begin, end = max(offset, 0), min(offset + signals.size, size)
        injected[:, begin:end] += signals.strain[i, :, begin - offset : end - offset]
    return injected.astype(np.float32)
