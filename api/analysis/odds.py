"""Probability that candidates are mergers (p_astro), by injections and background."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from chirpwatch.api.analysis.background import insufficient
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.injections import load_injected
from chirpwatch.api.analysis.sensitivity import event_volumes
from chirpwatch.api.contract.candidate_answers import Odds
from chirpwatch.api.contract.refusals import (
    ConflictError,
)
from chirpwatch.api.storage.tables import RunRow
from chirpwatch.astro import astrophysical_probability
from chirpwatch.errors import StatisticsError


def odds_of(
    session: Session, run: RunRow, cache: RunCache, merger_rate: float
) -> Callable[[float], Odds]:
    """Make the function that gives p_astro for a statistic.

    Args:
        session: Database session.
        run: The run.
        cache: Sums of the runs.
        merger_rate: Mergers of the injections' population, per Gpc^3 and year.

    Returns:
        The function; it raises a ConflictError if the run has too few injections with
        events, or too few loud background events.

    Raises:
        ConflictError: The background has no livetime, or the injections were not drawn
            in volume.
    """
    background = cache.background(session, run)
    if not background.livetime:
        raise insufficient(
            StatisticsError(
                f"p_astro, run {run.id!r}: expected background with a livetime above "
                "0 s, found 0 s; send timeslides with valid data first"
            )
        )
    statistics, volumes = event_volumes(
        session, load_injected(session, run, cache), run
    )

    def odds(statistic: float) -> Odds:
        try:
            result = astrophysical_probability(
                statistic, background, statistics, volumes, merger_rate
            )
        except StatisticsError as error:
            raise ConflictError(str(error), "insufficient-injections") from None
        return Odds(
            p_astro=result.p_astro,
            signals=result.signal_density,
            noise=result.background_density,
            limited=result.saturated,
        )

    return odds
