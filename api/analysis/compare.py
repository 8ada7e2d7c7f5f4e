"""Runs side by side."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.queries import loudest_events
from chirpwatch.api.analysis.sensitivity import (
    found_and_missed,
    load_injected,
)
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.contract.answers import (
    Compared,
    Comparison,
)
from chirpwatch.api.contract.requests import MAX_TIME_NS
from chirpwatch.api.storage.database import RunRow
from chirpwatch.geometry import Geometry

EVER = (0, MAX_TIME_NS)


def compare(
    session: Session,
    runs: Sequence[RunRow],
    accumulated: Accumulated,
    far_per_year: float,
) -> Comparison:
    """Put runs side by side, at one false-alarm rate."""
    rows = [_compared(session, run, accumulated, far_per_year) for run in runs]
    return Comparison(
        far_per_year=far_per_year,
        same_model=len({row.model for row in rows}) == 1,
        same_geometry=len({row.geometry_digest for row in rows}) == 1,
        runs=rows,
    )


def _compared(
    session: Session, run: RunRow, accumulated: Accumulated, far_per_year: float
) -> Compared:
    noise = accumulated.noise(session, run)
    vetoes = accumulated.vetoes(session, run)
    loudest = loudest_events(session, run, "zero_lag", vetoes, 1)
    injected = load_injected(session, run, accumulated)
    lowest = noise.lowest_far_per_year
    reached = lowest is not None and lowest <= far_per_year
    answer = (
        found_and_missed(injected, run, noise, vetoes, far_per_year, EVER, slice(0, 0))
        if reached
        else None
    )
    bins = answer.efficiency if answer else []
    return Compared(
        id=run.id,
        name=run.name,
        model=run.model,
        geometry_digest=Geometry.from_json(run.geometry).digest,
        data=run.data,
        zero_lag_livetime=total(session, run, "zero_lag", accumulated).livetime,
        background_livetime=noise.livetime,
        lowest_far_per_year=lowest,
        loudest=loudest[0].statistic if loudest else None,
        loudest_far_per_year=noise.far(loudest[0].statistic).far_per_year
        if loudest and noise.livetime
        else None,
        threshold=answer.threshold if answer else None,
        reached=reached,
        injections=sum(one.settled for one in injected),
        found=sum(part.found for part in bins) if answer else None,
        efficiency=bins,
        vetoes=list(vetoes.names),
    )
