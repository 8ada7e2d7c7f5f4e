"""Ranking statistics against background: FAR, IFAR, p-value and significance."""

from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.contract.answers import (
    FarAnswer,
    IfarAnswer,
    IfarPointAnswer,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
)
from chirpwatch.api.storage.tables import RunRow
from chirpwatch.background import (
    Background,
    false_alarm_probability,
    finite,
    significance,
)


@dataclass(frozen=True)
class Ranking:
    """How rare a statistic is in noise: fields that several answers have.

    All but `saturated` are None without background livetime. The answers describe the
    fields.
    """

    far_per_year: float | None = None
    ifar_years: float | None = None
    count: int | None = None
    uncertain: int | None = None
    saturated: bool = True
    false_alarm_probability: float | None = None
    significance: float | None = None


def ranking(background: Background, statistic: float, observing_time: float) -> Ranking:
    """Rank a statistic against background.

    Args:
        background: Background of the same model; may be empty.
        statistic: Detection statistic.
        observing_time: Time searched, s, for the p-value.
    """
    if not background.livetime:
        return Ranking()
    rate = background.far(statistic)
    probability = false_alarm_probability(rate.far_per_year, observing_time)
    return Ranking(
        far_per_year=rate.far_per_year,
        ifar_years=rate.ifar_years,
        count=rate.count,
        uncertain=rate.uncertain,
        saturated=rate.saturated,
        false_alarm_probability=probability,
        significance=finite(significance(probability)),
    )


def far_answer(
    session: Session,
    run: RunRow,
    cache: RunCache,
    statistic: float,
    observing_time: float | None = None,
    model: str | None = None,
) -> FarAnswer:
    """Rank a statistic against a run's background.

    Args:
        session: Database session.
        run: The run.
        cache: Sums of the runs.
        statistic: Detection statistic.
        observing_time: Time searched, s; the run's zero-lag livetime if None.
        model: Digest of the model that gave the statistic; not checked if None.

    Raises:
        ConflictError: The run has another model, or its background no livetime.
    """
    if model is not None and model != run.model:
        raise ConflictError(
            f"run {run.id!r}: expected a statistic of its model {run.model}, found "
            f"one of {model}; background of another model says nothing about it",
            "other-model",
        )
    background = cache.required_background(session, run)
    if observing_time is None:
        observing_time = total(session, run, "zero_lag", cache).livetime
    return FarAnswer(
        statistic=statistic,
        **asdict(ranking(background, statistic, observing_time)),
        floor=finite(background.floor),
        livetime=background.livetime,
        observing_time=observing_time,
        vetoes=list(cache.vetoes(session, run).names),
        model=run.model,
    )


def ifar_answer(session: Session, run: RunRow, cache: RunCache) -> IfarAnswer:
    """Make the curve of IFAR against statistic from a run's background.

    Raises:
        ConflictError: The background has no livetime.
    """
    background = cache.required_background(session, run)
    return IfarAnswer(
        points=[
            IfarPointAnswer(
                **asdict(point) | {"ifar_years_high": finite(point.ifar_years_high)}
            )
            for point in background.ifar_curve()
        ],
        livetime=background.livetime,
        events=background.size,
        floor=finite(background.floor),
        vetoes=list(cache.vetoes(session, run).names),
        model=run.model,
    )
