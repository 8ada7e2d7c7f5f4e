"""Vetoed time, which removes events and livetime together.

An event is vetoed if its merger lies in a vetoed segment at any detector's own time. A
score is vetoed if the centre of the strain that it depends on does. If events left
without their livetime, every false-alarm rate would be too low.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.intervals import (
    Interval,
    merge,
    seconds,
    window_lag,
)
from chirpwatch.api.contract.answers import (
    VetoAnswer,
    VetoDetail,
)
from chirpwatch.api.contract.refusals import (
    not_found,
)
from chirpwatch.api.storage.tables import (
    ChunkRow,
    Columns,
    RunRow,
    StreamRow,
    VetoRow,
)
from chirpwatch.geometry import Geometry


@dataclass(frozen=True)
class Vetoes:
    """All vetoes of a run; false if it has none.

    Attributes:
        names: Names of the vetoes.
        segments: Starts and ends of each detector's vetoed time, GPS ns, ascending and
            disjoint, int64 [2, segments].
        by_name: Merged segments of each veto, for any detector, GPS ns.
        lag_ns: Time from the centre of a score's strain to its right edge, ns.
    """

    names: tuple[str, ...] = ()
    segments: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    by_name: Mapping[str, list[Interval]] = field(default_factory=dict)
    lag_ns: int = 0

    def __bool__(self) -> bool:
        return bool(self.names)

    def vetoed(self, ifo: str, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each time at a detector, GPS ns, is vetoed, [n]."""
        starts, ends = self.segments[ifo]
        if not starts.size:
            return np.zeros(times.shape, dtype=bool)
        begun = np.searchsorted(starts, times, "right")
        # Where no segment has begun, the index -1 is harmless.
        inside: NDArray[np.bool_] = (begun > 0) & (times < ends[begun - 1])
        return inside

    def touches(self, start_ns: int, stop_ns: int) -> bool:
        """Whether a segment overlaps the strides or events between two times."""
        # Segments are ascending and disjoint: look at the first one that ends later.
        return any(
            (place := np.searchsorted(ends, start_ns - self.lag_ns, "right"))
            < starts.size
            and starts[place] < stop_ns
            for starts, ends in self.segments.values()
        )

    def strides(
        self, start_ns: int, stride_ns: int, size: int, shifts_ns: Mapping[str, int]
    ) -> NDArray[np.bool_]:
        """Whether each of consecutive strides is vetoed, [size].

        Args:
            start_ns: Start of the first stride at zero shift, GPS ns.
            stride_ns: Length of a stride, ns.
            size: Number of strides.
            shifts_ns: How much later each detector is read, ns.
        """
        centres = start_ns + np.arange(1, size + 1) * stride_ns - self.lag_ns
        vetoed = np.zeros(size, dtype=bool)
        for ifo, shift in shifts_ns.items():
            vetoed |= self.vetoed(ifo, centres + shift)
        return vetoed

    def slide_strides(
        self, start_ns: int, stride_ns: int, size: int, shifts_ns: Mapping[str, int]
    ) -> NDArray[np.bool_]:
        """Whether each stride of a timeslide is vetoed, [size].

        Arguments are those of `strides`; detectors are read circularly within the
        stretch.
        """
        length = size * stride_ns
        # The first centres lie before the stretch, but those strides are never valid.
        centres = np.arange(1, size + 1) * stride_ns - self.lag_ns
        vetoed = np.zeros(size, dtype=bool)
        for ifo, shift in shifts_ns.items():
            vetoed |= self.vetoed(ifo, start_ns + (centres + shift) % length)
        return vetoed


def load_vetoes(session: Session, run: RunRow) -> Vetoes:
    """Load the vetoes of a run."""
    rows = _veto_rows(session, run)
    geometry = Geometry.from_json(run.geometry)
    segments = {}
    for ifo in geometry.ifos:
        intervals: list[Interval] = merge(
            interval
            for row in rows
            if ifo in row.ifos
            for interval in _unpack_segments(row)
        )
        segments[ifo] = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    return Vetoes(
        names=tuple(row.name for row in rows),
        segments=segments,
        by_name={row.name: merge(_unpack_segments(row)) for row in rows},
        lag_ns=round(window_lag(geometry) * 1e9),
    )


def _veto_rows(session: Session, run: RunRow) -> Sequence[VetoRow]:
    return session.scalars(
        select(VetoRow).where(VetoRow.run_id == run.id).order_by(VetoRow.name)
    ).all()


def _unpack_segments(row: VetoRow) -> list[Interval]:
    return [
        (int(start), int(end))
        for start, end in np.frombuffer(row.segments, "<i8").reshape(-1, 2)
    ]


def shifts_ns(stream: StreamRow) -> dict[str, int]:
    """Time shift of each detector of a stream, ns."""
    shifts: dict[str, float] = json.loads(stream.shifts)
    return {ifo: round(shift * 1e9) for ifo, shift in shifts.items()}


def vetoed_chunk(
    chunk: ChunkRow | Columns, shifts: Mapping[str, int], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each stride of a chunk is vetoed, [size].

    Args:
        chunk: The chunk, or a row with its times and size.
        shifts: Time shift of each detector of its stream, ns.
        vetoes: The run's vetoes.
    """
    start_ns = chunk.start_ns - chunk.stride_ns
    vetoed = np.zeros(chunk.size, dtype=bool)
    first, last = min(shifts.values()), max(shifts.values())
    if vetoes.touches(start_ns + first, chunk.stop_ns + last):
        vetoed |= vetoes.strides(start_ns, chunk.stride_ns, chunk.size, shifts)
    return vetoed


def vetoed_events(
    times: NDArray[np.int64], shifts: Mapping[str, int], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each event of a stream is vetoed, [n].

    Args:
        times: Times of the events, GPS ns, [n].
        shifts: Time shift of each detector of their stream, ns.
        vetoes: The run's vetoes.
    """
    vetoed = np.zeros(times.shape, dtype=bool)
    for ifo, shift in shifts.items():
        vetoed |= vetoes.vetoed(ifo, times + shift)
    return vetoed


def veto_answers(session: Session, run: RunRow) -> list[VetoAnswer]:
    """Describe the vetoes of a run, by name."""
    return [
        VetoAnswer(**_description(row, merge(_unpack_segments(row))))
        for row in _veto_rows(session, run)
    ]


def veto_detail(session: Session, run: RunRow, name: str) -> VetoDetail:
    """Describe a veto with its segments.

    Raises:
        NotFoundError: The run has no such veto.
    """
    row = session.scalar(
        select(VetoRow).where(VetoRow.run_id == run.id, VetoRow.name == name)
    )
    if row is None:
        raise not_found("veto", name)
    intervals = merge(_unpack_segments(row))
    times = [list(interval) for interval in intervals]
    return VetoDetail(**_description(row, intervals), times_ns=times)


def _description(row: VetoRow, intervals: list[Interval]) -> dict[str, Any]:
    return {
        "name": row.name,
        "ifos": row.ifos,
        "reason": row.reason,
        "segments": len(intervals),
        "duration": seconds(sum(end - start for start, end in intervals)),
    }
