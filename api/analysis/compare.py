"""Comparison of runs at one false-alarm rate."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.injections import load_injected
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.queries import loudest_events
from chirpwatch.api.analysis.ranking import ranking
from chirpwatch.api.analysis.sensitivity import Sensitivity
from chirpwatch.api.contract.fields import MAX_TIME_NS
from chirpwatch.api.contract.injection_answers import (
    ComparedRun,
    Comparison,
)
from chirpwatch.api.storage.tables import RunRow
from chirpwatch.geometry import Geometry

ALL_TIMES = (0, MAX_TIME_NS)


def compare(
    session: Session, runs: Sequence[RunRow], cache: RunCache, far_per_year: float
) -> Comparison:
    """Compare runs at a false-alarm rate, each by its own background."""
    rows = [_compared(session, run, cache, far_per_year) for run in runs]
    return Comparison(
        far_per_year=far_per_year,
        same_model=len({row.model for row in rows}) == 1,
        same_geometry=len({row.geometry_digest for row in rows}) == 1,
        runs=rows,
    )


def _compared(
    session: Session, run: RunRow, cache: RunCache, far_per_year: float
) -> ComparedRun:
    background = cache.background(session, run)
    vetoes = cache.vetoes(session, run)
    observing_time = total(session, run, "zero_lag", cache).livetime
    events = loudest_events(session, run, "zero_lag", vetoes, limit=1)
    loudest = events[0].statistic if events else None
    lowest_far = background.lowest_far_per_year
    reached = lowest_far is not None and lowest_far <= far_per_year
    answer = (
        Sensitivity.load(session, run, cache).found_and_missed(
            far_per_year, ALL_TIMES, slice(0, 0)
        )
        if reached
        else None
    )
    bins = answer.efficiency if answer else []
    return ComparedRun(
        id=run.id,
        name=run.name,
        model=run.model,
        geometry_digest=Geometry.from_json(run.geometry).digest,
        data=run.data,
        zero_lag_livetime=observing_time,
        background_livetime=background.livetime,
        lowest_far_per_year=lowest_far,
        loudest=loudest,
        loudest_far_per_year=None
        if loudest is None
        else ranking(background, loudest, observing_time).far_per_year,
        threshold=answer.threshold if answer else None,
        reached=reached,
        injections=sum(
            injection.settled for injection in load_injected(session, run, cache)
        ),
        found=sum(part.found for part in bins) if answer else None,
        efficiency=bins,
        vetoes=list(vetoes.names),
    )
