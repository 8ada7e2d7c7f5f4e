"""One candidate: how rare it is, and what is around it."""

from collections.abc import Sequence

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.candidate_strain import find_strain
from chirpwatch.api.analysis.intervals import seconds
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.queries import (
    event_answer,
    events_between,
    needed_event,
    vetoed,
)
from chirpwatch.api.analysis.scores import thinned
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.analysis.vetoes import Vetoes
from chirpwatch.api.contract.answers import (
    CandidateDetail,
    NearbyVeto,
    Stretch,
)
from chirpwatch.api.storage.database import (
    EventRow,
    RunRow,
    StreamRow,
)
from chirpwatch.background import false_alarm_probability, finite, significance

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
    found = needed_event(session, run, time_ns)
    event, stream = found
    vetoes = accumulated.vetoes(session, run)
    noise = accumulated.noise(session, run)
    observed = total(session, run, "zero_lag", accumulated).livetime
    rate = noise.far(event.statistic) if noise.livetime else None
    probability = false_alarm_probability(rate.far_per_year, observed) if rate else None
    near_ns = round(NEARBY * 1e9)
    begin, end = time_ns - near_ns, time_ns + near_ns
    near = session.execute(
        events_between(run, "zero_lag", begin, end)
        .where(EventRow.id != event.id)
        .order_by(EventRow.statistic.desc(), EventRow.id)
    ).all()
    neighbours = [event_answer(one, row.name) for one, row in _kept(near, vetoes)]
    louder = (
        EventRow.run_id == run.id,
        EventRow.kind == "zero_lag",
        EventRow.statistic > event.statistic,
    )
    if vetoes:
        rows = session.execute(
            select(EventRow, StreamRow)
            .join(StreamRow, StreamRow.id == EventRow.stream_id)
            .where(*louder)
        ).all()
        rank = 1 + len(_kept(rows, vetoes))
    else:
        rank = 1 + (session.scalar(select(func.count()).where(*louder)) or 0)
    invalid, absent = _quality(session, run, accumulated, begin, end, vetoes.lag_ns)
    answer = event_answer(event, stream.name)
    return CandidateDetail(
        **dict(answer),
        id=str(time_ns),
        far_per_year=rate.far_per_year if rate else None,
        ifar_years=1 / rate.far_per_year if rate else None,
        saturated=rate.saturated if rate else True,
        rank=rank,
        vetoed=not _kept([found], vetoes),
        count=rate.count if rate else None,
        background_livetime=noise.livetime,
        observing_time=observed,
        false_alarm_probability=probability,
        significance=None if probability is None else finite(significance(probability)),
        neighbours=neighbours[:NEIGHBOURS],
        nearby=NEARBY,
        invalid=invalid,
        absent=absent,
        vetoes_nearby=[
            NearbyVeto(name=name, segments=[_stretch(*part) for part in parts])
            for name, intervals in vetoes.lists.items()
            if (parts := [one for one in intervals if one[0] < end and one[1] > begin])
        ],
        strain=find_strain(session, run, time_ns) is not None,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def _kept(
    rows: Sequence[Row[EventRow, StreamRow]], vetoes: Vetoes
) -> list[Row[EventRow, StreamRow]]:
    """Those events that no veto takes."""
    return [
        row for row, lost in zip(rows, vetoed(rows, vetoes), strict=True) if not lost
    ]


def _quality(
    session: Session,
    run: RunRow,
    accumulated: Accumulated,
    begin: int,
    end: int,
    lag_ns: int,
) -> tuple[list[Stretch], list[Stretch]]:
    """What is not valid and what is not there, by the centres of the windows."""
    scores = thinned(
        session,
        run,
        accumulated,
        kind="zero_lag",
        stream=None,
        start_ns=begin + lag_ns,
        stop_ns=end + lag_ns,
        points=1,
    )
    lag = seconds(lag_ns)
    invalid = [
        Stretch(start=one.start - lag, stop=one.stop - lag) for one in scores.invalid
    ]
    edges = [
        seconds(begin),
        *(edge - lag for one in scores.received for edge in (one.start, one.stop)),
        seconds(end),
    ]
    absent = [
        Stretch(start=start, stop=stop)
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
        if stop > start
    ]
    return invalid, absent


def _stretch(start_ns: int, stop_ns: int) -> Stretch:
    return Stretch(start=seconds(start_ns), stop=seconds(stop_ns))
