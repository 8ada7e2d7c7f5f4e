"""Reading: rates, candidates, efficiency, scores."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from chirpwatch.api.analysis import (
    background,
    candidate_strain,
    progress,
    queries,
    scores,
    sensitivity,
    vetoes,
)
from chirpwatch.api.analysis.candidate import candidate_detail
from chirpwatch.api.analysis.drift import drift
from chirpwatch.api.analysis.export import write_export
from chirpwatch.api.analysis.intervals import Interval
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.contract.answers import (
    BackgroundAnswer,
    Candidate,
    CandidateDetail,
    Candidates,
    Drift,
    EfficiencyAnswer,
    Events,
    FarAnswer,
    IfarAnswer,
    IfarPointAnswer,
    InjectionsAnswer,
    Odds,
    QTransform,
    Scores,
    VetoAnswer,
    VetoDetail,
    VolumesAnswer,
    Whitened,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import (
    MAX_TIME_NS,
    EventKind,
    Identifier,
    Ifo,
)
from chirpwatch.api.contract.status import BlockAnswer
from chirpwatch.api.storage.database import (
    RunRow,
    StreamRow,
)
from chirpwatch.api.web.problems import (
    problem_responses,
)
from chirpwatch.api.web.routes.dependencies import (
    NOT_MODIFIED,
    AccumulatedOf,
    DatabaseOf,
    Limit,
    Offset,
    RunId,
    TimePath,
    Unchanged,
    VetoName,
)
from chirpwatch.astro import astrophysical_probability
from chirpwatch.background import (
    Background,
    false_alarm_probability,
    finite,
    significance,
)
from chirpwatch.errors import StatisticsError

router = APIRouter(tags=["results"], dependencies=[Unchanged], responses=NOT_MODIFIED)
_run_errors = problem_responses(404, 422, 503)
_rate_errors = problem_responses(404, 409, 422, 503)
HDF5 = "application/x-hdf5"
MAX_LISTED = 200_000
"""Most injections that one answer lists."""
_binary = {"schema": {"type": "string", "format": "binary"}}
_file: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {HDF5: _binary}}
}

Start = Annotated[int, Query(ge=0, le=MAX_TIME_NS, description="Begin, GPS ns")]
Stop = Annotated[int, Query(ge=0, le=MAX_TIME_NS, description="End, GPS ns")]
Finite = Annotated[float, Query(allow_inf_nan=False)]
Rate = Annotated[Finite, Query(gt=0, description="False-alarm rate, per Julian year")]
Parameter = Literal[
    "snr", "distance", "redshift", "mass_1", "mass_2", "chirp_mass", "total_mass"
]


def _between(start_ns: int, stop_ns: int) -> Interval | None:
    """Two times, GPS ns; none where they are those of everything."""
    if stop_ns <= start_ns:
        raise InvalidError("stop_ns must come after start_ns")
    everything = start_ns == 0 and stop_ns == MAX_TIME_NS
    return None if everything else (start_ns, stop_ns)


@router.get("/v1/runs/{run_id}/far", responses=_rate_errors)
def get_far(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    statistic: Annotated[Finite, Query(description="Detection statistic")],
    observing_time: Annotated[
        Finite | None,
        Query(ge=0, description="Time that was searched, s; none: zero-lag livetime"),
    ] = None,
    model: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Digest of the model that gave the statistic: 409 where the "
            "run's is another",
        ),
    ] = None,
) -> FarAnswer:
    """False-alarm rate of a statistic, from this run's background alone."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        if model is not None and model != run.model:
            raise ConflictError(
                f"run {run.id!r}: expected a statistic of its model {run.model}, found "
                f"one of {model}; background of another model says nothing about it",
                "other-model",
            )
        noise = accumulated.statistics(session, run)
        rate = noise.far(statistic)
        if observing_time is None:
            observing_time = progress.total(
                session, run, "zero_lag", accumulated
            ).livetime
        probability = false_alarm_probability(rate.far_per_year, observing_time)
        sigma = significance(probability)
        return FarAnswer(
            statistic=statistic,
            ifar_years=1 / rate.far_per_year,
            floor=finite(noise.floor),
            observing_time=observing_time,
            false_alarm_probability=probability,
            significance=finite(sigma),
            vetoes=list(accumulated.vetoes(session, run).names),
            model=run.model,
            **asdict(rate),
        )


@router.get("/v1/runs/{run_id}/ifar", responses=_rate_errors)
def get_ifar(
    run_id: RunId, database: DatabaseOf, accumulated: AccumulatedOf
) -> IfarAnswer:
    """The curve of inverse false-alarm rate against statistic."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise = accumulated.statistics(session, run)
        vetoes = accumulated.vetoes(session, run)
    return IfarAnswer(
        points=[
            IfarPointAnswer(
                **asdict(point) | {"ifar_years_high": finite(point.ifar_years_high)}
            )
            for point in noise.ifar_curve()
        ],
        livetime=noise.livetime,
        events=noise.size,
        floor=finite(noise.floor),
        vetoes=list(vetoes.names),
        model=run.model,
    )


def odds_of(
    session: Session,
    run: RunRow,
    noise: Background,
    accumulated: Accumulated,
    merger_rate: float | None,
) -> Callable[[float], Odds | None]:
    """What tells the odds of a statistic; none without a rate of mergers."""
    if merger_rate is None:
        return lambda statistic: None
    if not noise.livetime:
        raise background.insufficient(
            StatisticsError("odds need background: expected a livetime above 0 s")
        )
    injected = sensitivity.load_injected(session, run, accumulated)
    found, volumes = sensitivity.signals(session, injected, run)

    def tell(statistic: float) -> Odds:
        try:
            odds = astrophysical_probability(
                statistic, noise, found, volumes, merger_rate
            )
        except StatisticsError as error:
            raise ConflictError(str(error), "insufficient-injections") from None
        return Odds(
            p_astro=odds.p_astro,
            signals=odds.signal_density,
            noise=odds.background_density,
            limited=odds.saturated,
        )

    return tell


@router.get("/v1/runs/{run_id}/candidates", responses=_rate_errors)
def get_candidates(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    limit: Limit = 50,
    offset: Offset = 0,
    merger_rate: Annotated[
        Finite | None,
        Query(
            gt=0,
            description="Mergers of the injections' population, per Gpc^3 and year: "
            "asks for `odds`",
        ),
    ] = None,
    start_ns: Start = 0,
    stop_ns: Stop = MAX_TIME_NS,
) -> Candidates:
    """Zero-lag events, loudest first, with their false-alarm rates.

    With `merger_rate` also the probability that each is a merger; 409 where the
    injections were not drawn in volume, or they or the background are too few.
    """
    between = _between(start_ns, stop_ns)
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        # A candidate is worth showing before there is anything to compare with.
        noise = accumulated.noise(session, run)
        vetoes = accumulated.vetoes(session, run)
        total = progress.total(session, run, "zero_lag", accumulated)
        candidates = []
        odds = odds_of(session, run, noise, accumulated, merger_rate)
        for event in queries.loudest_events(
            session, run, "zero_lag", vetoes, limit, offset, between
        ):
            rate = noise.far(event.statistic) if noise.livetime else None
            candidates.append(
                Candidate(
                    **dict(event),
                    id=str(event.time_ns),
                    far_per_year=rate.far_per_year if rate else None,
                    ifar_years=1 / rate.far_per_year if rate else None,
                    false_alarm_probability=false_alarm_probability(
                        rate.far_per_year, total.livetime
                    )
                    if rate
                    else None,
                    saturated=rate.saturated if rate else True,
                    odds=odds(event.statistic),
                )
            )
        return Candidates(
            candidates=candidates,
            total=total.events,
            vetoed=total.vetoed_events,
            livetime=total.livetime,
            background_livetime=noise.livetime,
            vetoes=list(vetoes.names),
            model=run.model,
        )


@router.get("/v1/runs/{run_id}/candidates/{time_ns}", responses=_run_errors)
def get_candidate(
    run_id: RunId, time_ns: TimePath, database: DatabaseOf, accumulated: AccumulatedOf
) -> CandidateDetail:
    """One zero-lag event: how rare it is, and what is around it."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        return candidate_detail(session, run, accumulated, time_ns)


@router.get("/v1/runs/{run_id}/candidates/{time_ns}/whitened", responses=_run_errors)
def get_whitened(run_id: RunId, time_ns: TimePath, database: DatabaseOf) -> Whitened:
    """Whitened strain of all detectors around a time."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        row = candidate_strain.needed_strain(session, run, time_ns)
    # No connection is held meanwhile.
    return candidate_strain.whitened(run, row, time_ns)


@router.get(
    "/v1/runs/{run_id}/candidates/{time_ns}/q-transform/{ifo}", responses=_run_errors
)
def get_q_transform(
    run_id: RunId,
    time_ns: TimePath,
    ifo: Annotated[Ifo, Path(description="Detector")],
    database: DatabaseOf,
) -> QTransform:
    """Q-transform of one detector's strain around a time."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        row = candidate_strain.needed_strain(session, run, time_ns)
    return candidate_strain.q_transform(row, time_ns, ifo)


@router.get("/v1/runs/{run_id}/drift", responses=_rate_errors)
def get_drift(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    last: Annotated[
        Finite, Query(gt=0, le=1e8, description="Newest time that is compared, s")
    ] = 3600.0,
) -> Drift:
    """Whether the newest zero-lag events are as many and as loud as background says."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        return drift(session, run, accumulated, last)


@router.get("/v1/runs/{run_id}/background", responses=_run_errors)
def get_background(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    limit: Limit = 1000,
    offset: Offset = 0,
) -> BackgroundAnswer:
    """Counts and livetime of the background, slide by slide."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        known = accumulated.background(session, run)
        noise = accumulated.noise(session, run)
        vetoes = accumulated.vetoes(session, run)
    slides = background.slides(run, known)
    livetime = known.background.livetime
    return BackgroundAnswer(
        events=known.background.size,
        livetime=livetime,
        lowest_far_per_year=noise.lowest_far_per_year,
        slides=slides[offset : offset + limit],
        total=len(slides),
        vetoes=list(vetoes.names),
        model=run.model,
    )


@router.get("/v1/runs/{run_id}/background/blocks", responses=_run_errors)
def list_blocks(run_id: RunId, database: DatabaseOf) -> list[BlockAnswer]:
    """The blocks of background that are there: what a resumed run need not send."""
    with database.reading() as session:
        return background.blocks(session, queries.get_run(session, run_id))


@router.get("/v1/runs/{run_id}/injections", responses=_rate_errors)
def get_injections(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    far_per_year: Rate,
    limit: Annotated[
        int, Query(ge=0, le=MAX_LISTED, description="Most injections to list, of both")
    ] = 10_000,
    offset: Offset = 0,
    start_ns: Start = 0,
    stop_ns: Stop = MAX_TIME_NS,
) -> InjectionsAnswer:
    """Injections found and missed at a false-alarm rate.

    All are counted; those between two times are listed, in order of time. 409 when the
    background is too short to reach that rate.
    """
    between = _between(start_ns, stop_ns) or (0, MAX_TIME_NS)
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise = accumulated.statistics(session, run)
        vetoes = accumulated.vetoes(session, run)
        injected = sensitivity.load_injected(session, run, accumulated)
        return sensitivity.found_and_missed(
            injected,
            run,
            noise,
            vetoes,
            far_per_year,
            between,
            slice(offset, offset + limit),
        )


@router.get("/v1/runs/{run_id}/efficiency", responses=_rate_errors)
def get_efficiency(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    far_per_year: Rate,
    by: Annotated[
        Parameter,
        Query(description="Parameter; masses as the detectors see them"),
    ] = "snr",
    bins: Annotated[
        int, Query(ge=1, le=100, description="Bins; of SNR there are always nine")
    ] = 10,
) -> EfficiencyAnswer:
    """Share of the injections found at a false-alarm rate, in bins of a parameter."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise = accumulated.statistics(session, run)
        vetoes = accumulated.vetoes(session, run)
        injected = sensitivity.load_injected(session, run, accumulated)
        return sensitivity.efficiency_by(
            injected, run, noise, vetoes, far_per_year, by, bins
        )


@router.get("/v1/runs/{run_id}/volume", responses=_rate_errors)
def get_volume(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    far_per_year: Annotated[
        list[Rate],
        Query(
            min_length=1,
            max_length=20,
            description="False-alarm rates, per Julian year",
        ),
    ],
) -> VolumesAnswer:
    """Sensitive volume and distance for four pairs of masses.

    By importance weights from injections drawn uniformly in comoving volume, with the
    exact number of draws that were too faint. 409 where the injections do not say what
    they were drawn from, or the background is too short for a rate.
    """
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        noise = accumulated.statistics(session, run)
        vetoes = accumulated.vetoes(session, run)
        injected = sensitivity.load_injected(session, run, accumulated)
        return sensitivity.volumes(session, injected, run, noise, vetoes, far_per_year)


@router.get("/v1/runs/{run_id}/vetoes", responses=_run_errors)
def list_vetoes(run_id: RunId, database: DatabaseOf) -> list[VetoAnswer]:
    """The lists of vetoed segments, by name."""
    with database.reading() as session:
        return vetoes.veto_answers(session, queries.get_run(session, run_id))


@router.get("/v1/runs/{run_id}/vetoes/{veto}", responses=_run_errors)
def get_veto(run_id: RunId, veto: VetoName, database: DatabaseOf) -> VetoDetail:
    """One list of vetoed segments."""
    with database.reading() as session:
        return vetoes.veto_detail(session, queries.get_run(session, run_id), veto)


@router.get("/v1/runs/{run_id}/events", responses=_run_errors)
def get_events(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    kind: Annotated[EventKind, Query(description="Which kind of data")],
    limit: Limit = 1000,
    offset: Offset = 0,
) -> Events:
    """Events of one kind that no veto takes, loudest first."""
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        if kind == "background":
            return Events(
                events=background.loudest_events(
                    session, run, accumulated, limit, offset
                ),
                total=accumulated.background(session, run).background.size,
            )
        vetoes = accumulated.vetoes(session, run)
        return Events(
            events=queries.loudest_events(session, run, kind, vetoes, limit, offset),
            total=progress.total(session, run, kind, accumulated).events,
        )


@router.get(
    "/v1/runs/{run_id}/export.hdf5",
    response_class=FileResponse,
    responses=_file | _run_errors,
)
def export_run(run_id: RunId, database: DatabaseOf, response: Response) -> FileResponse:
    """The whole run as an HDF5 file: events, slides, injections, in tables."""
    folder = tempfile.mkdtemp(prefix="chirpwatch-export-")
    try:
        path = FilePath(folder) / f"{run_id}.hdf5"
        with database.reading() as session:
            run = queries.get_run(session, run_id)
            write_export(session, run, path)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        path,
        media_type=HDF5,
        filename=path.name,
        # The run's tag, in place of one of the file.
        headers={name: response.headers[name] for name in ("etag", "cache-control")},
        background=BackgroundTask(shutil.rmtree, folder),
    )


@router.get("/v1/runs/{run_id}/scores", responses=_run_errors)
def get_scores(
    run_id: RunId,
    database: DatabaseOf,
    accumulated: AccumulatedOf,
    stream: Annotated[Identifier | None, Query(description="One stream")] = None,
    kind: Annotated[
        Literal["zero_lag", "injections"],
        Query(description="All streams of a kind, where no one stream is named"),
    ] = "zero_lag",
    start_ns: Start = 0,
    stop_ns: Stop = MAX_TIME_NS,
    points: Annotated[
        int, Query(ge=1, le=20_000, description="Most points to answer, about")
    ] = 2000,
) -> Scores:
    """Scores between two times; each point holds the extremes of its bucket."""
    _between(start_ns, stop_ns)
    with database.reading() as session:
        run = queries.get_run(session, run_id)
        if stream is not None:
            known = select(StreamRow.id).where(
                StreamRow.run_id == run.id, StreamRow.name == stream
            )
            if session.scalar(known) is None:
                raise not_found("stream", stream)
        return scores.thinned(
            session,
            run,
            accumulated,
            kind=kind,
            stream=stream,
            start_ns=start_ns,
            stop_ns=stop_ns,
            points=points,
        )
