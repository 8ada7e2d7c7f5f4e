"""Strain around a candidate: whitened, and its Q-transform (gwpy)."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.queries import required_event
from chirpwatch.api.contract.candidate_answers import (
    QTransform,
    Whitened,
)
from chirpwatch.api.contract.refusals import (
    BusyError,
    NotFoundError,
)
from chirpwatch.api.storage.tables import (
    RunRow,
    StrainRow,
)
from chirpwatch.geometry import Geometry

BEFORE, AFTER = 0.6, 0.3
"""Length of the plots before and after the merger, s."""

CONTEXT = 1.5
"""Further strain that the filters need on either side of the plots, s."""

FREQUENCIES = (20.0, 1000.0)
"""Frequencies of the Q-transform, Hz; fewer if the sample rate is low."""

Q_RANGE = (4.0, 64.0)
ROWS, COLUMNS = 96, 240
"""Size of the Q-transform's image."""

FFT_LENGTH = 2.0
"""Length of the periodograms of the PSD for whitening, s."""

CACHED_TRANSFORMS = 64
LONGEST_WAIT = 10.0
"""Longest wait for another request's transform, s."""

# A transform occupies a core. Running one at a time leaves the service able to answer
# other requests.
_transforming = threading.Lock()


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for other transforms, and let none start meanwhile.

    Raises:
        BusyError: The others take too long.
    """
    if not _transforming.acquire(timeout=LONGEST_WAIT):
        raise BusyError(
            f"waited {LONGEST_WAIT:g} s for transforms of other requests; send the "
            "request again later"
        )
    try:
        yield
    finally:
        _transforming.release()


def find_strain(session: Session, run: RunRow, time_ns: int) -> StrainRow | None:
    """Find stored strain that covers the plots around a time, GPS ns; None if none."""
    before, after = (round((part + CONTEXT) * 1e9) for part in (BEFORE, AFTER))
    return session.scalars(
        select(StrainRow)
        .where(
            StrainRow.run_id == run.id,
            StrainRow.start_ns <= time_ns - before,
            StrainRow.stop_ns >= time_ns + after,
        )
        .order_by(StrainRow.start_ns)
    ).first()


def required_strain(session: Session, run: RunRow, time_ns: int) -> StrainRow:
    """Load the strain around the zero-lag event at a time, GPS ns.

    Raises:
        NotFoundError: There is no such event, or not enough strain around it.
    """
    required_event(session, run, time_ns)
    row = find_strain(session, run, time_ns)
    if row is None:
        raise NotFoundError(
            f"strain of run {run.id!r} around {time_ns} ns: expected "
            f"{BEFORE + CONTEXT:g} s before and {AFTER + CONTEXT:g} s after it, found "
            "none; a replay sends the strain around its loudest events",
            "no-strain",
        )
    return row


def whitened(run: RunRow, row: StrainRow, time_ns: int) -> Whitened:
    """Whiten strain by its own PSD, above the run's highpass.

    Args:
        run: The run.
        row: Its strain, from `required_strain`.
        time_ns: GPS time of the merger, ns.
    """
    geometry = Geometry.from_json(run.geometry)
    with _alone():
        series = [
            _whitened(row.strain, row.size, i, row.sample_rate, geometry.highpass)
            for i in range(len(row.ifos))
        ]
    first, last = _plotted_samples(row, time_ns)
    return Whitened(
        time_ns=time_ns,
        start=(row.start_ns - time_ns) / 1e9 + first / row.sample_rate,
        sample_rate=row.sample_rate,
        strain={
            ifo: np.round(samples[first:last], 4).tolist()
            for ifo, samples in zip(row.ifos, series, strict=True)
        },
    )


def q_transform(row: StrainRow, time_ns: int, ifo: str) -> QTransform:
    """Compute the Q-transform of one detector's strain.

    Args:
        row: The strain, from `required_strain`.
        time_ns: GPS time of the merger, ns.
        ifo: The detector.

    Raises:
        NotFoundError: The detector has no strain.
    """
    if ifo not in row.ifos:
        raise NotFoundError(
            f"strain from {row.start_ns} ns: expected one of {', '.join(row.ifos)}, "
            f"found {ifo}",
            "no-strain",
        )
    offset = (time_ns - row.start_ns) / 1e9
    with _alone():
        energy, frequencies = _q_transform(
            row.strain, row.size, row.ifos.index(ifo), row.sample_rate, offset
        )
    return QTransform(
        time_ns=time_ns,
        ifo=ifo,
        start=-BEFORE,
        step=(BEFORE + AFTER) / len(energy),
        frequencies=frequencies,
        energy=energy,
    )


def _plotted_samples(row: StrainRow, time_ns: int) -> tuple[int, int]:
    """First and last sample of the plots around a time."""
    merger = (time_ns - row.start_ns) / 1e9
    first, last = (
        round((merger + part) * row.sample_rate) for part in (-BEFORE, AFTER)
    )
    return first, last


def _samples(strain: bytes, size: int, index: int) -> NDArray[np.float64]:
    """Strain of the detector number `index`, [size], from `StrainRow.strain`."""
    samples = np.frombuffer(strain, "<f4", size, 4 * index * size)
    return samples.astype(np.float64)


@lru_cache(CACHED_TRANSFORMS)
def _whitened(
    strain: bytes, size: int, index: int, rate: int, highpass: float
) -> NDArray[np.float64]:
    # The import takes two seconds, and few requests need it.
    from gwpy.timeseries import TimeSeries

    series = TimeSeries(_samples(strain, size, index), sample_rate=rate)
    white = series.whiten(fftlength=FFT_LENGTH, overlap=FFT_LENGTH / 2)
    result: NDArray[np.float64] = white.value
    return white.highpass(highpass).value if highpass > 0 else result


@lru_cache(CACHED_TRANSFORMS)
def _q_transform(
    strain: bytes, size: int, index: int, rate: int, offset: float
) -> tuple[Sequence[Sequence[float]], Sequence[float]]:
    from gwpy.timeseries import TimeSeries

    series = TimeSeries(_samples(strain, size, index), sample_rate=rate)
    low, high = FREQUENCIES
    spectrogram = series.q_transform(
        qrange=Q_RANGE,
        frange=(low, min(high, 0.4 * rate)),
        outseg=(offset - BEFORE, offset + AFTER),
        tres=(BEFORE + AFTER) / COLUMNS,
        fres=ROWS,
        logf=True,
        fftlength=FFT_LENGTH,
        overlap=FFT_LENGTH / 2,
    )
    energy = np.round(np.asarray(spectrogram.value), 2).tolist()
    return energy, np.round(spectrogram.frequencies.value, 3).tolist()
