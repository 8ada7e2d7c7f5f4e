"""Routes for injections: found and missed, efficiency, sensitive volume."""

from typing import Annotated, Literal

from fastapi import Query

from chirpwatch.api.analysis.queries import get_run
from chirpwatch.api.analysis.sensitivity import Sensitivity
from chirpwatch.api.contract.fields import MAX_TIME_NS
from chirpwatch.api.contract.injection_answers import (
    EfficiencyAnswer,
    InjectionsAnswer,
    VolumesAnswer,
)
from chirpwatch.api.web.routes.dependencies import (
    RATE_ERRORS,
    CacheOf,
    DatabaseOf,
    Far,
    Offset,
    RunId,
    StartNs,
    StopNs,
    interval,
    results_router,
)

router = results_router()
MAX_LISTED = 200_000
"""Most injections that one answer lists."""

Parameter = Literal[
    "snr", "distance", "redshift", "mass_1", "mass_2", "chirp_mass", "total_mass"
]


@router.get("/v1/runs/{run_id}/injections", responses=RATE_ERRORS)
def get_injections(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    far_per_year: Far,
    limit: Annotated[
        int,
        Query(ge=0, le=MAX_LISTED, description="Most injections to list, in total"),
    ] = 10_000,
    offset: Offset = 0,
    start_ns: StartNs = 0,
    stop_ns: StopNs = MAX_TIME_NS,
) -> InjectionsAnswer:
    """Injections found and missed at a false-alarm rate.

    All injections are counted. Those between the two times are listed, in order of
    time. 409 if the background is too short for the rate.
    """
    between = interval(start_ns, stop_ns)
    with database.reading() as session:
        return Sensitivity.load(
            session, get_run(session, run_id), cache
        ).found_and_missed(far_per_year, between, slice(offset, offset + limit))


@router.get("/v1/runs/{run_id}/efficiency", responses=RATE_ERRORS)
def get_efficiency(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    far_per_year: Far,
    by: Annotated[
        Parameter, Query(description="Parameter; masses are in the detector frame")
    ] = "snr",
    bins: Annotated[
        int, Query(ge=1, le=100, description="Number of bins; SNR always has nine")
    ] = 10,
) -> EfficiencyAnswer:
    """Fraction of injections found at a false-alarm rate, in bins of a parameter."""
    with database.reading() as session:
        return Sensitivity.load(session, get_run(session, run_id), cache).efficiency(
            far_per_year, by, bins
        )


@router.get("/v1/runs/{run_id}/volume", responses=RATE_ERRORS)
def get_volume(
    run_id: RunId,
    database: DatabaseOf,
    cache: CacheOf,
    far_per_year: Annotated[
        list[Far],
        Query(
            min_length=1,
            max_length=20,
            description="False-alarm rates, per Julian year",
        ),
    ],
) -> VolumesAnswer:
    """Sensitive volume and distance for four pairs of masses.

    Estimated with importance weights from injections drawn uniformly in comoving
    volume, and the exact number of draws that were too faint to be injected. 409 if the
    injections do not declare their population, or the background is too short for a
    rate.
    """
    with database.reading() as session:
        return Sensitivity.load(session, get_run(session, run_id), cache).volumes(
            session, far_per_year
        )
