"""Adds signals to strain, with the same result however the strain is cut."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import SignalError
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS


def signal_starts(signals: ProjectedSignals, t0_ns: int) -> NDArray[Any]:
    """Sample at which each signal's array begins, counted from ``t0_ns``.

    The merger lands on the sample nearest to its GPS time.

    Args:
        signals: The signals.
        t0_ns: GPS time of the stretch's first sample, integer nanoseconds.

    Returns:
        int64 [n]; negative where a signal begins before the stretch.
    """
    # Integers throughout: a float64 of GPS seconds resolves only 0.2 microseconds.
    scaled = (signals.gps_time_ns - t0_ns) * signals.sample_rate
    merger: NDArray[Any] = (scaled + NANOSECONDS // 2) // NANOSECONDS
    return merger - signals.merger_size


def add_signals(
    strain: NDArray[Any], start: int, signals: ProjectedSignals, starts: NDArray[Any]
) -> NDArray[Any]:
    """Add the signals that overlap a part of a stretch.

    Overlapping signals are always added in the same order, so that the parts of a
    stretch are bitwise equal to the stretch injected as a whole.

    Args:
        strain: Part of the stretch, [ifos, size]; it is not changed.
        start: The part's first sample in the stretch.
        signals: The signals, ordered by time.
        starts: First sample of each signal, from ``signal_starts``, int64 [n].

    Returns:
        float32 [ifos, size].

    Raises:
        SignalError: The signals have another number of detectors than the strain.
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
