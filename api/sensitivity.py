"""Injections of a run: which were found at a false-alarm rate, and which missed."""

import bisect
import itertools
import math
from dataclasses import asdict, dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.answers import EfficiencyBinAnswer, InjectionsAnswer, Recovered
from api.background import insufficient
from api.database import EventRow, InjectionRow, InjectionSetRow, RunRow, StreamRow
from api.intervals import Interval, merge, seconds
from api.queries import event_answer, vetoed
from api.scores import load_chunks, stretches, valid_flags
from api.vetoing import Vetoes, shifts_ns, vetoed_events
from chirpwatch.errors import StatisticsError
from chirpwatch.geometry import Geometry
from chirpwatch.statistics import (
    MATCH_WINDOW,
    Background,
    efficiency_by_snr,
    match_injections,
)


def found_and_missed(
    session: Session,
    run: RunRow,
    noise: Background,
    vetoes: Vetoes,
    far_per_year: float,
) -> InjectionsAnswer:
    """Every injection of a run, found or missed at `far_per_year`.

    `noise` and `vetoes` are the background and the vetoes of the same run.

    Raises:
        ProblemError: The background cannot reach this rate.
    """
    try:
        threshold = noise.threshold_at_far(far_per_year)
    except StatisticsError as error:
        raise insufficient(error) from None
    sets = session.scalars(
        select(InjectionSetRow)
        .where(InjectionSetRow.run_id == run.id)
        .order_by(InjectionSetRow.id)
    )
    recovered = sorted(
        itertools.chain.from_iterable(
            _recovered(session, run, row, threshold, vetoes) for row in sets
        ),
        key=lambda injection: injection.time_ns,
    )
    gone = sum(injection.reason == "vetoed" for injection in recovered)
    settled = [
        injection
        for injection in recovered
        if injection.reason not in {"pending", "vetoed"}
    ]
    found = [injection for injection in settled if injection.reason == "found"]
    missed = [injection for injection in settled if injection.reason != "found"]
    return InjectionsAnswer(
        far_per_year=far_per_year,
        threshold=None if math.isinf(threshold) else threshold,
        background_livetime=noise.livetime,
        window=MATCH_WINDOW,
        total=len(settled),
        pending=len(recovered) - len(settled) - gone,
        vetoed=gone,
        found=found,
        missed=missed,
        efficiency=_efficiency(settled),
        vetoes=list(vetoes.names),
        model=run.model,
    )


def _recovered(
    session: Session,
    run: RunRow,
    row: InjectionSetRow,
    threshold: float,
    vetoes: Vetoes,
) -> list[Recovered]:
    injections = session.scalars(
        select(InjectionRow)
        .where(InjectionRow.set_id == row.id)
        .order_by(InjectionRow.time_ns, InjectionRow.id)
    ).all()
    events = session.execute(
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(StreamRow.run_id == run.id, StreamRow.injection_set == row.name)
    ).all()
    if vetoes:
        lost = vetoed(events, vetoes)
        events = [one for one, gone in zip(events, lost, strict=True) if not gone]
    matched = match_injections(
        [injection.time_ns for injection in injections],
        [event.time_ns for event, _ in events],
        [event.statistic for event, _ in events],
    )
    coverage = _coverage(session, run, row.name)
    # The streams of a set have the same shifts.
    stream = session.scalars(
        select(StreamRow).where(
            StreamRow.run_id == run.id, StreamRow.injection_set == row.name
        )
    ).first()
    times = np.array([injection.time_ns for injection in injections], dtype=np.int64)
    gone = vetoed_events(times, shifts_ns(stream) if stream else {}, vetoes)
    answers = []
    for injection, index, is_gone in zip(injections, matched, gone, strict=True):
        match = events[index] if index >= 0 else None
        if is_gone:
            reason = "vetoed"
        # Found or not: to count the found ones early would flatter the efficiency.
        elif coverage.is_pending(injection.time_ns):
            reason = "pending"
        elif match is not None:
            loud = match[0].statistic >= threshold
            reason = "found" if loud else "below_threshold"
        else:
            valid = _covers(coverage.valid, injection.time_ns)
            reason = "no_event" if valid else "not_analysed"
        answers.append(
            Recovered(
                time_ns=injection.time_ns,
                time=seconds(injection.time_ns),
                set=row.name,
                snr=injection.snr,
                parameters=injection.parameters,
                event=event_answer(match[0], match[1].name) if match else None,
                reason=reason,
            )
        )
    return answers


@dataclass(frozen=True)
class _Coverage:
    """What is there of the streams that hold a set of injections.

    Attributes:
        running: Whether more may come.
        valid: Stretches with valid scores, ns.
        received: Stretches with scores, valid or not, ns.
        delay_ns: Longest time until an event has been reported, ns.
    """

    running: bool
    valid: list[Interval]
    received: list[Interval]
    delay_ns: int

    def is_pending(self, time_ns: int) -> bool:
        """Whether the event of an injection may yet come."""
        return self.running and not _covers(self.received, time_ns + self.delay_ns)


def _coverage(session: Session, run: RunRow, name: str) -> _Coverage:
    chunks = load_chunks(session, run, injection_set=name)
    clusters = session.scalar(
        select(func.max(StreamRow.cluster_length)).where(
            StreamRow.run_id == run.id, StreamRow.injection_set == name
        )
    )
    geometry = Geometry.from_json(run.geometry)
    delay = (clusters or 0.0) + geometry.kernel_length + geometry.fduration
    return _Coverage(
        running=run.state == "running",
        valid=merge(
            stretch
            for chunk in chunks
            for stretch in stretches(chunk, valid_flags(chunk))
        ),
        received=merge(
            (chunk.start_ns - chunk.stride_ns, chunk.stop_ns) for chunk in chunks
        ),
        delay_ns=round(delay * 1e9),
    )


def _covers(intervals: list[Interval], time_ns: int) -> bool:
    before = bisect.bisect_right(intervals, (time_ns, math.inf)) - 1
    return before >= 0 and time_ns <= intervals[before][1]


def _efficiency(recovered: list[Recovered]) -> list[EfficiencyBinAnswer]:
    snr = np.array([injection.snr for injection in recovered])
    found = [injection.reason == "found" for injection in recovered]
    lost = np.array(
        [injection.reason == "not_analysed" for injection in recovered], dtype=bool
    )
    bins = []
    for part in efficiency_by_snr(snr, found):
        inside = (snr >= part.snr_low) & (snr < part.snr_high)
        values = asdict(part) | {
            "snr_high": None if math.isinf(part.snr_high) else part.snr_high,
            "efficiency": part.efficiency if part.injections else None,
            "not_analysed": int(np.count_nonzero(inside[lost])),
        }
        bins.append(EfficiencyBinAnswer(**values))
    return bins
