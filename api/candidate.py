"""One candidate: how rare it is, and what is around it."""

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.accumulated import Accumulated
from api.answers import CandidateDetail, Stretch
from api.around import find_strain
from api.database import ChunkRow, EventRow, RunRow, StreamRow
from api.intervals import seconds
from api.problems import ProblemError
from api.progress import total
from api.queries import event_answer
from api.scores import stretches, valid_flags
from api.vetoing import shifts_ns, vetoed_events
from chirpwatch.statistics import false_alarm_probability, finite, significance

NEARBY = 64.0
"""How far around a candidate its data are described, s."""

NEIGHBOURS = 20


def candidate_detail(
    session: Session, run: RunRow, accumulated: Accumulated, time_ns: int
) -> CandidateDetail:
    """The zero-lag event of a run at a time.

    Raises:
        ProblemError: There is none.
    """
    mine = (EventRow.run_id == run.id, EventRow.kind == "zero_lag")
    found = session.execute(
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(*mine, EventRow.time_ns == time_ns)
    ).first()
    if found is None:
        raise ProblemError(
            404, "not-found", f"run {run.id!r} has no zero-lag event at {time_ns} ns"
        )
    event, stream = found
    vetoes = accumulated.vetoes(session, run)
    shifts = shifts_ns(stream)
    vetoed = vetoes and vetoed_events(np.array([time_ns]), shifts, vetoes)[0]
    noise = accumulated.background(session, run).background
    observed = total(session, run, "zero_lag", accumulated).livetime
    rate = noise.far(event.statistic) if noise.livetime else None
    probability = false_alarm_probability(rate.far_per_year, observed) if rate else None
    near_ns = round(NEARBY * 1e9)
    begin, end = time_ns - near_ns, time_ns + near_ns
    louder = session.scalar(
        select(func.count()).where(*mine, EventRow.statistic > event.statistic)
    )
    neighbours = session.execute(
        select(EventRow, StreamRow.name)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(
            *mine,
            EventRow.time_ns.between(begin, end),
            EventRow.id != event.id,
        )
        .order_by(EventRow.statistic.desc(), EventRow.id)
        .limit(NEIGHBOURS)
    )
    answer = event_answer(event, stream.name)
    return CandidateDetail(
        **dict(answer),
        id=str(time_ns),
        far_per_year=rate.far_per_year if rate else None,
        saturated=rate.saturated if rate else True,
        rank=1 + (louder or 0),
        vetoed=bool(vetoed),
        count=rate.count if rate else None,
        background_livetime=noise.livetime,
        observing_time=observed,
        false_alarm_probability=probability,
        significance=None if probability is None else finite(significance(probability)),
        neighbours=[event_answer(one, name) for one, name in neighbours],
        nearby=NEARBY,
        invalid=_invalid(session, stream, begin, end),
        vetoes_nearby=[
            name
            for name, intervals in vetoes.lists.items()
            if any(first < end and last > begin for first, last in intervals)
        ],
        strain=find_strain(session, run, time_ns) is not None,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def _invalid(
    session: Session, stream: StreamRow, begin: int, end: int
) -> list[Stretch]:
    """Stretches around that were analysed and are not valid."""
    chunks = session.scalars(
        select(ChunkRow)
        .where(
            ChunkRow.stream_id == stream.id,
            ChunkRow.stop_ns > begin,
            ChunkRow.start_ns - ChunkRow.stride_ns < end,
        )
        .order_by(ChunkRow.start_ns)
    )
    return [
        Stretch(start=seconds(max(first, begin)), stop=seconds(min(last, end)))
        for chunk in chunks
        for first, last in stretches(chunk, ~valid_flags(chunk))
        if last > begin and first < end
    ]
