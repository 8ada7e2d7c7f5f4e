"""Answers about candidates: zero-lag events, ranked against background."""

from pydantic import Field

from chirpwatch.api.contract.answers import (
    Answer,
    AppliedVetoes,
    BackgroundLivetime,
    EventAnswer,
    IntervalAnswer,
    ModelDigest,
    Significance,
)


class Odds(Answer):
    """Probability of astrophysical origin, for a given merger rate."""

    p_astro: float = Field(description="Probability that the candidate is a merger")
    signals: float = Field(
        description="Rate density of mergers at the candidate's statistic, per year "
        "and unit of the statistic"
    )
    noise: float = Field(
        description="Rate density of background at the candidate's statistic, per "
        "year and unit of the statistic"
    )
    limited: bool = Field(
        description="True if no background event is as loud; `noise` is then an upper "
        "limit and `p_astro` a lower limit"
    )


class Candidate(EventAnswer):
    """A zero-lag event with its false-alarm rate."""

    id: str = Field(
        description="`time_ns` as text, since JavaScript numbers cannot hold it. The "
        "candidate's address is `/v1/runs/{run}/candidates/{id}`, its page "
        "`/runs/{run}/candidates/{id}`"
    )
    far_per_year: float | None = Field(
        description="False-alarm rate, per Julian year; null without background"
    )
    ifar_years: float | None = Field(
        description="Inverse false-alarm rate, Julian years; null without background"
    )
    false_alarm_probability: float | None = Field(
        description="p-value: probability that noise alone gives an event at least "
        "this loud in the zero-lag livetime, 1 - exp(-FAR time); null without "
        "background"
    )
    saturated: bool = Field(
        description="True if no background event is as loud; the rate is then an upper "
        "limit"
    )
    odds: Odds | None = Field(
        None, description="Merger or noise; null where no `merger_rate` was given"
    )


class NearbyVeto(Answer):
    """A veto's segments near a candidate."""

    name: str = Field(description="The veto's name")
    segments: list[IntervalAnswer] = Field(
        description="Segments that overlap the time nearby, at full length"
    )


class CandidateDetail(Candidate):
    """A candidate, and the events and data quality nearby."""

    rank: int = Field(
        description="Rank among the run's zero-lag events outside vetoed time; 1 is "
        "the loudest"
    )
    vetoed: bool = Field(description="Whether the candidate lies in vetoed time")
    count: int | None = Field(
        description="Background events with at least this statistic; null without "
        "background"
    )
    background_livetime: BackgroundLivetime
    observing_time: float = Field(description="Zero-lag livetime, s")
    significance: Significance
    neighbours: list[EventAnswer] = Field(
        description="Other zero-lag events nearby outside vetoed time, loudest first, "
        "at most 20"
    )
    nearby: float = Field(description="Half-width of the time that counts as nearby, s")
    invalid: list[IntervalAnswer] = Field(
        description="Intervals nearby with scores that are not valid, at the centres "
        "of the scores' windows"
    )
    absent: list[IntervalAnswer] = Field(
        description="Intervals nearby without zero-lag scores, at the centres of the "
        "windows"
    )
    vetoes_nearby: list[NearbyVeto] = Field(description="Vetoes with segments nearby")
    strain: bool = Field(description="Whether strain around the candidate is stored")
    vetoes: AppliedVetoes
    model: ModelDigest


class Candidates(Answer):
    """Candidates, loudest first."""

    candidates: list[Candidate] = Field(description="The requested page of candidates")
    total: int = Field(description="The run's zero-lag events outside vetoed time")
    vetoed: int = Field(
        description="The run's zero-lag events in vetoed time, which are not listed"
    )
    livetime: float = Field(description="Zero-lag livetime outside vetoed time, s")
    background_livetime: BackgroundLivetime
    vetoes: AppliedVetoes
    model: ModelDigest


class Whitened(Answer):
    """Whitened strain around a candidate."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    start: float = Field(description="Time of the first sample, s after the merger")
    sample_rate: int = Field(description="Sample rate, Hz")
    strain: dict[str, list[float]] = Field(
        description="Whitened strain of each detector, in standard deviations of its "
        "noise"
    )


class QTransform(Answer):
    """Q-transform of one detector's strain around a candidate (gwpy)."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    ifo: str = Field(description="Detector")
    start: float = Field(
        description="Left edge of the first column, s after the merger"
    )
    step: float = Field(description="Width of a column, s")
    frequencies: list[float] = Field(description="Frequency of each row, Hz")
    energy: list[list[float]] = Field(
        description="Normalised energy, column by column; the median of noise is 1"
    )
