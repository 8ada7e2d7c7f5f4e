"""What a candidate looks like in the strain: whitened, and its Q-transform (gwpy)."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.queries import needed_event
from chirpwatch.api.contract.answers import (
    QTransform,
    Whitened,
)
from chirpwatch.api.contract.refusals import (
    BusyError,
    NotFoundError,
)
from chirpwatch.api.storage.database import (
    RunRow,
    StrainRow,
)
from chirpwatch.geometry import Geometry

BEFORE, AFTER = 0.6, 0.3
"""What is shown before and after the merger, s."""

CONTEXT = 1.5
"""Strain that must be there on both sides of what is shown, s: filters need it."""

FREQUENCIES = (20.0, 1000.0)
"""Of the Q-transform, Hz; less where the sample rate has less."""

Q_RANGE = (4.0, 64.0)
ROWS, COLUMNS = 96, 240
FFT_LENGTH = 2.0
"""Length of the periodograms that strain is whitened by, s."""

KEPT = 64
LONGEST_WAIT = 10.0
"""For one's turn, s."""

# A transform takes all of a core for a moment: one after the other, so that the service
# answers the others meanwhile.
_one_at_a_time = threading.Lock()


@contextmanager
def _turn() -> Iterator[None]:
    """One's turn to compute.

    Raises:
        RefusalError: Too many ask.
    """
    if not _one_at_a_time.acquire(timeout=LONGEST_WAIT):
        raise BusyError("other transforms are being made; send it again later")
    try:
        yield
    finally:
        _one_at_a_time.release()


def find_strain(session: Session, run: RunRow, time_ns: int) -> StrainRow | None:
    """Strain that was sent around a time, GPS ns; none if there is not enough."""
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


def needed_strain(session: Session, run: RunRow, time_ns: int) -> StrainRow:
    """Strain around the zero-lag event of a time.

    Raises:
        RefusalError: There is no such event, or no strain around it.
    """
    needed_event(session, run, time_ns)
    row = find_strain(session, run, time_ns)
    if row is None:
        raise NotFoundError(
            f"strain of run {run.id!r} around {time_ns} ns: expected "
            f"{BEFORE + CONTEXT:g} s before and {AFTER + CONTEXT:g} s after it, found "
            "none; a replay sends that of its loudest events",
            "no-strain",
        )
    return row


def whitened(run: RunRow, row: StrainRow, time_ns: int) -> Whitened:
    """Strain around a time, whitened by its own spectrum and above the highpass."""
    geometry = Geometry.from_json(run.geometry)
    with _turn():
        series = [
            _whitened(row.strain, row.size, i, row.sample_rate, geometry.highpass)
            for i in range(len(row.ifos))
        ]
    first, last = _shown(row, time_ns)
    return Whitened(
        time_ns=time_ns,
        start=(row.start_ns - time_ns) / 1e9 + first / row.sample_rate,
        sample_rate=row.sample_rate,
        strain={
            ifo: np.round(one[first:last], 4).tolist()
            for ifo, one in zip(row.ifos, series, strict=True)
        },
    )


def q_transform(row: StrainRow, time_ns: int, ifo: str) -> QTransform:
    """Q-transform of one detector's strain around a time.

    Raises:
        RefusalError: There is no strain of this detector.
    """
    if ifo not in row.ifos:
        raise NotFoundError(
            f"expected one of {', '.join(row.ifos)}, found {ifo}", "no-strain"
        )
    offset = (time_ns - row.start_ns) / 1e9
    with _turn():
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


def _shown(row: StrainRow, time_ns: int) -> tuple[int, int]:
    middle = (time_ns - row.start_ns) / 1e9
    first, last = (
        round((middle + part) * row.sample_rate) for part in (-BEFORE, AFTER)
    )
    return first, last


def _one(strain: bytes, size: int, place: int) -> NDArray[np.float64]:
    part = np.frombuffer(strain, "<f4", size, 4 * place * size)
    return part.astype(np.float64)


@lru_cache(KEPT)
def _whitened(
    strain: bytes, size: int, place: int, rate: int, highpass: float
) -> NDArray[np.float64]:
    # It takes two seconds to import, and not everybody asks.
    from gwpy.timeseries import TimeSeries

    series = TimeSeries(_one(strain, size, place), sample_rate=rate)
    white = series.whiten(fftlength=FFT_LENGTH, overlap=FFT_LENGTH / 2)
    result: NDArray[np.float64] = white.value
    return white.highpass(highpass).value if highpass > 0 else result


@lru_cache(KEPT)
def _q_transform(
    strain: bytes, size: int, place: int, rate: int, offset: float
) -> tuple[Sequence[Sequence[float]], Sequence[float]]:
    from gwpy.timeseries import TimeSeries

    series = TimeSeries(_one(strain, size, place), sample_rate=rate)
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
