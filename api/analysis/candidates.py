"""Candidates: zero-lag events with their ranking, and what lies near them in time."""

from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.candidate_strain import find_strain
from chirpwatch.api.analysis.intervals import (
    Interval,
    seconds,
)
from chirpwatch.api.analysis.odds import odds_of
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.queries import (
    event_answer,
    events_between,
    loudest_events,
    outside_vetoes,
    required_event,
)
from chirpwatch.api.analysis.ranking import ranking
from chirpwatch.api.analysis.scores import thinned_scores
from chirpwatch.api.analysis.vetoes import Vetoes
from chirpwatch.api.contract.answers import (
    EventAnswer,
    IntervalAnswer,
)
from chirpwatch.api.contract.candidate_answers import (
    Candidate,
    CandidateDetail,
    Candidates,
    NearbyVeto,
)
from chirpwatch.api.storage.tables import (
    EventRow,
    RunRow,
    StreamRow,
)

NEARBY = 64.0
"""Half-width of the time around a candidate whose data and events are described, s."""

MOST_NEIGHBOURS = 20


def list_candidates(
    session: Session,
    run: RunRow,
    cache: RunCache,
    limit: int,
    offset: int,
    between: Interval | None,
    merger_rate: float | None,
) -> Candidates:
    """List a run's candidates, loudest first, with their rates.

    Args:
        session: Database session.
        run: The run; without background its candidates have no rates.
        cache: Sums of the runs.
        limit: Most candidates to list.
        offset: Candidates to skip.
        between: Times to list candidates between, GPS ns; all times if None.
        merger_rate: Mergers per Gpc^3 and year, for the odds; no odds if None.

    Raises:
        ConflictError: The odds are not available; see `odds_of`.
    """
    background = cache.background(session, run)
    vetoes = cache.vetoes(session, run)
    zero_lag = total(session, run, "zero_lag", cache)
    odds = None if merger_rate is None else odds_of(session, run, cache, merger_rate)
    return Candidates(
        candidates=[
            Candidate(
                **dict(event),
                **asdict(ranking(background, event.statistic, zero_lag.livetime)),
                id=str(event.time_ns),
                odds=odds(event.statistic) if odds else None,
            )
            for event in loudest_events(
                session, run, "zero_lag", vetoes, limit, offset, between
            )
        ],
        total=zero_lag.events,
        vetoed=zero_lag.vetoed_events,
        livetime=zero_lag.livetime,
        background_livetime=background.livetime,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def candidate_detail(
    session: Session, run: RunRow, cache: RunCache, time_ns: int
) -> CandidateDetail:
    """Describe the candidate at a time, GPS ns, and what lies near it.

    Raises:
        NotFoundError: There is no zero-lag event at that time.
    """
    row = required_event(session, run, time_ns)
    event, stream = row
    vetoes = cache.vetoes(session, run)
    background = cache.background(session, run)
    observing_time = total(session, run, "zero_lag", cache).livetime
    nearby_ns = round(NEARBY * 1e9)
    start_ns, stop_ns = time_ns - nearby_ns, time_ns + nearby_ns
    nearby = start_ns, stop_ns
    invalid, absent = _data_quality(session, run, cache, nearby, vetoes.lag_ns)
    return CandidateDetail(
        **dict(event_answer(event, stream.name)),
        **asdict(ranking(background, event.statistic, observing_time)),
        id=str(time_ns),
        rank=_rank(session, run, event, vetoes),
        vetoed=not outside_vetoes([row], vetoes),
        background_livetime=background.livetime,
        observing_time=observing_time,
        neighbours=_neighbours(session, run, event, nearby, vetoes),
        nearby=NEARBY,
        invalid=invalid,
        absent=absent,
        vetoes_nearby=_vetoes_nearby(vetoes, nearby),
        strain=find_strain(session, run, time_ns) is not None,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def _rank(session: Session, run: RunRow, event: EventRow, vetoes: Vetoes) -> int:
    """Rank of an event among the run's zero-lag events outside vetoed time."""
    louder = (
        EventRow.run_id == run.id,
        EventRow.kind == "zero_lag",
        EventRow.statistic > event.statistic,
    )
    if not vetoes:
        return 1 + (session.scalar(select(func.count()).where(*louder)) or 0)
    rows = session.execute(
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(*louder)
    ).all()
    return 1 + len(outside_vetoes(rows, vetoes))


def _neighbours(
    session: Session, run: RunRow, event: EventRow, nearby: Interval, vetoes: Vetoes
) -> list[EventAnswer]:
    """Other zero-lag events nearby outside vetoed time, loudest first."""
    rows = session.execute(
        events_between(run, "zero_lag", *nearby)
        .where(EventRow.id != event.id)
        .order_by(EventRow.statistic.desc(), EventRow.id)
    ).all()
    return [
        event_answer(neighbour, stream.name)
        for neighbour, stream in outside_vetoes(rows, vetoes)[:MOST_NEIGHBOURS]
    ]


def _vetoes_nearby(vetoes: Vetoes, nearby: Interval) -> list[NearbyVeto]:
    """Vetoes with segments that overlap an interval, GPS ns."""
    start_ns, stop_ns = nearby
    return [
        NearbyVeto(
            name=name,
            segments=[
                IntervalAnswer(start=seconds(begin), stop=seconds(end))
                for begin, end in overlapping
            ],
        )
        for name, intervals in vetoes.by_name.items()
        if (
            overlapping := [
                interval
                for interval in intervals
                if interval[0] < stop_ns and interval[1] > start_ns
            ]
        )
    ]


def _data_quality(
    session: Session, run: RunRow, cache: RunCache, nearby: Interval, lag_ns: int
) -> tuple[list[IntervalAnswer], list[IntervalAnswer]]:
    """Intervals without valid scores, and without scores, at the windows' centres.

    Args:
        session: Database session.
        run: The run.
        cache: Sums of the runs.
        nearby: Times to look between, GPS ns.
        lag_ns: Time from the centre of a window to its score's time, ns.
    """
    start_ns, stop_ns = nearby
    scores = thinned_scores(
        session,
        run,
        cache,
        kind="zero_lag",
        stream=None,
        between=(start_ns + lag_ns, stop_ns + lag_ns),
        points=1,
    )
    lag = seconds(lag_ns)
    invalid = [
        IntervalAnswer(start=part.start - lag, stop=part.stop - lag)
        for part in scores.invalid
    ]
    edges = [
        seconds(start_ns),
        *(edge - lag for part in scores.received for edge in (part.start, part.stop)),
        seconds(stop_ns),
    ]
    absent = [
        IntervalAnswer(start=start, stop=stop)
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
        if stop > start
    ]
    return invalid, absent
