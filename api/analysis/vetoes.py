"""Vetoed time: what it takes from events, and from livetime alike.

An event is vetoed if its merger lies in a vetoed segment in any detector's own time, a
stride if the centre of its window does. Both leave together: events without their
livetime would make every rate too low.
"""

import json
from collections.abc import Mapping
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
)
from chirpwatch.api.contract.answers import (
    VetoAnswer,
    VetoDetail,
)
from chirpwatch.api.contract.refusals import (
    not_found,
)
from chirpwatch.api.storage.database import (
    ChunkRow,
    Columns,
    RunRow,
    StreamRow,
    VetoRow,
)
from chirpwatch.geometry import Geometry


@dataclass(frozen=True)
class Vetoes:
    """The vetoes of a run; false without any.

    Attributes:
        names: Of the lists of segments.
        segments: Begins and ends of each detector's vetoed time, apart, GPS ns,
            int64 [2, segments].
        lists: The segments of each list by its name, whatever the detector, GPS ns.
        lag_ns: From the centre of a window to the right edge of its strain, ns.
    """

    names: tuple[str, ...] = ()
    segments: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    lists: Mapping[str, list[Interval]] = field(default_factory=dict)
    lag_ns: int = 0

    def __bool__(self) -> bool:
        return bool(self.names)

    def vetoed(self, ifo: str, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each time of a detector, GPS ns, is vetoed."""
        begins, ends = self.segments[ifo]
        if not begins.size:
            return np.zeros(times.shape, dtype=bool)
        after = np.searchsorted(begins, times, "right")
        # Of a time before them all, the last segment's end is looked up in vain.
        inside: NDArray[np.bool_] = (after > 0) & (times < ends[after - 1])
        return inside

    def touches(self, start_ns: int, stop_ns: int) -> bool:
        """Whether anything between two times may be vetoed."""
        # Segments are in order and apart: of those that end after the start, the first.
        return any(
            (place := np.searchsorted(ends, start_ns - self.lag_ns, "right"))
            < begins.size
            and begins[place] < stop_ns
            for begins, ends in self.segments.values()
        )

    def strides(
        self, start_ns: int, stride_ns: int, size: int, shifts_ns: Mapping[str, int]
    ) -> NDArray[np.bool_]:
        """Whether each stride of a sequence is vetoed.

        Args:
            start_ns: Where the first stride begins, at no shift, GPS ns.
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
        """The same of a stretch whose detectors are read circularly."""
        length = size * stride_ns
        # Of the first strides the centre lies before the begin; none is ever valid.
        centres = np.arange(1, size + 1) * stride_ns - self.lag_ns
        vetoed = np.zeros(size, dtype=bool)
        for ifo, shift in shifts_ns.items():
            vetoed |= self.vetoed(ifo, start_ns + (centres + shift) % length)
        return vetoed


def load_vetoes(session: Session, run: RunRow) -> Vetoes:
    """The vetoes of a run."""
    rows = session.scalars(
        select(VetoRow).where(VetoRow.run_id == run.id).order_by(VetoRow.name)
    ).all()
    geometry = Geometry.from_json(run.geometry)
    segments = {}
    for ifo in geometry.ifos:
        intervals: list[Interval] = merge(
            (begin, end)
            for row in rows
            if ifo in row.ifos
            for begin, end in veto_segments(row)
        )
        segments[ifo] = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    lag = (geometry.fduration + geometry.kernel_length) / 2
    return Vetoes(
        names=tuple(row.name for row in rows),
        segments=segments,
        lists={row.name: merge(veto_segments(row)) for row in rows},
        lag_ns=round(lag * 1e9),
    )


def veto_segments(row: VetoRow) -> list[Interval]:
    """The segments of one list, GPS ns."""
    return [
        (int(begin), int(end))
        for begin, end in np.frombuffer(row.segments, "<i8").reshape(-1, 2)
    ]


def shifts_ns(stream: StreamRow) -> dict[str, int]:
    """By how much each detector of a stream is read later, ns."""
    shifts: dict[str, float] = json.loads(stream.shifts)
    return {ifo: round(shift * 1e9) for ifo, shift in shifts.items()}


def vetoed_chunk(
    chunk: ChunkRow | Columns, shifts: Mapping[str, int], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each stride of a chunk is vetoed; `shifts` are those of its stream."""
    begin = chunk.start_ns - chunk.stride_ns
    vetoed = np.zeros(chunk.size, dtype=bool)
    first, last = min(shifts.values()), max(shifts.values())
    if vetoes.touches(begin + first, chunk.stop_ns + last):
        vetoed |= vetoes.strides(begin, chunk.stride_ns, chunk.size, shifts)
    return vetoed


def vetoed_events(
    times: NDArray[np.int64], shifts: Mapping[str, int], vetoes: Vetoes
) -> NDArray[np.bool_]:
    """Whether each event of a stream, GPS ns, is vetoed."""
    vetoed = np.zeros(times.shape, dtype=bool)
    for ifo, shift in shifts.items():
        vetoed |= vetoes.vetoed(ifo, times + shift)
    return vetoed


def veto_answers(session: Session, run: RunRow) -> list[VetoAnswer]:
    """The lists of segments of a run, by name."""
    rows = session.scalars(
        select(VetoRow).where(VetoRow.run_id == run.id).order_by(VetoRow.name)
    )
    return [VetoAnswer(**_told(row, merge(veto_segments(row)))) for row in rows]


def veto_detail(session: Session, run: RunRow, name: str) -> VetoDetail:
    """One list of segments.

    Raises:
        RefusalError: There is none of this name.
    """
    row = session.scalar(
        select(VetoRow).where(VetoRow.run_id == run.id, VetoRow.name == name)
    )
    if row is None:
        raise not_found("veto", name)
    intervals = merge(veto_segments(row))
    times = [list(interval) for interval in intervals]
    return VetoDetail(**_told(row, intervals), times_ns=times)


def _told(row: VetoRow, intervals: list[Interval]) -> dict[str, Any]:
    return {
        "name": row.name,
        "ifos": row.ifos,
        "reason": row.reason,
        "segments": len(intervals),
        "duration": seconds(sum(end - begin for begin, end in intervals)),
    }
