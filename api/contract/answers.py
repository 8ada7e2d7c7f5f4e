"""Answers of the service; every field's description gives its unit and its limits.

Answers about candidates, injections and runs are in `candidate_answers`,
`injection_answers` and `status`.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FarPerYear = Annotated[float, Field(description="False-alarm rate, per Julian year")]
BackgroundLivetime = Annotated[
    float, Field(description="Background livetime outside vetoed time, s")
]
BackgroundCount = Annotated[
    int, Field(description="Background events with at least this statistic")
]
Significance = Annotated[
    float | None,
    Field(
        description="Significance of that probability, one-sided, in standard "
        "deviations; null without background, and where it is infinite: no time was "
        "searched, or the probability rounds to 1"
    ),
]
Floor = Annotated[
    float | None,
    Field(
        description="Counts are exact from this statistic on; below it, all events of "
        "the same bin (1/128 wide) are counted. Null: exact everywhere"
    ),
]
AppliedVetoes = Annotated[list[str], Field(description="Names of the vetoes applied")]
ModelDigest = Annotated[str, Field(description="Digest of the run's model")]


class Answer(BaseModel):
    """Base class of the answers."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """An error as RFC 9457 problem details (`application/problem+json`)."""

    type: str = Field(description="Stable identifier of the kind of problem")
    title: str = Field(description="The kind of problem in words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="What was expected, what was found, what to do")
    instance: str = Field(description="Path of the request")
    errors: list[str] = Field(
        [], description="Each validation error of the request, up to 20"
    )


class FarAnswer(Answer):
    """False-alarm rate of one statistic, (count + 1) / livetime."""

    statistic: float = Field(description="The requested statistic")
    far_per_year: FarPerYear
    ifar_years: float = Field(description="Inverse false-alarm rate, Julian years")
    count: int = Field(
        description="Background events with at least this statistic; an upper limit "
        "where `uncertain` is not 0"
    )
    uncertain: int = Field(
        description="Events in `count` that may be quieter than the statistic, since "
        "events below `floor` are counted in bins (1/128 wide). The rate is then an "
        "upper limit"
    )
    floor: Floor
    livetime: BackgroundLivetime
    saturated: bool = Field(
        description="True if no background event is as loud; the rate is then an upper "
        "limit"
    )
    observing_time: float = Field(
        description="Time searched, s: as requested, or the zero-lag livetime"
    )
    false_alarm_probability: float = Field(
        description="Probability that noise alone gives an event at least this loud in "
        "the observing time, 1 - exp(-FAR time)"
    )
    significance: Significance
    vetoes: AppliedVetoes
    model: str = Field(description="Digest of the model that scored the background")


class IfarPointAnswer(Answer):
    """One point of the IFAR curve."""

    statistic: float = Field(description="Detection statistic")
    ifar_years: float = Field(description="Inverse false-alarm rate, Julian years")
    ifar_years_low: float = Field(
        description="Lower end of the Poisson interval (84 % limit), Julian years"
    )
    ifar_years_high: float | None = Field(
        description="Upper end of the Poisson interval (84 % limit), Julian years; "
        "null: unbounded"
    )
    count: BackgroundCount
    saturated: bool = Field(
        description="True if the count is 0; the IFAR is then a lower limit"
    )


class IfarAnswer(Answer):
    """IFAR against statistic, from the run's background."""

    points: list[IfarPointAnswer] = Field(
        description="At most 301 points, ascending in the statistic; the last is "
        "saturated. Empty without background events"
    )
    livetime: BackgroundLivetime
    events: int = Field(description="Background events")
    floor: Floor
    vetoes: AppliedVetoes
    model: ModelDigest


class EventAnswer(Answer):
    """A valid score that no other valid score within the clustering reach exceeds."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    time: float = Field(description="The same time in GPS s, to a microsecond")
    statistic: float = Field(description="Detection statistic")
    stream: str = Field(
        description="Stream of the event; for background, `{block}/{slide}`"
    )


class Events(Answer):
    """Events of one kind, loudest first."""

    events: list[EventAnswer] = Field(description="The requested page of events")
    total: int = Field(
        description="Events of this kind in the run, outside vetoed time"
    )


class SlideAnswer(Answer):
    """Background at one set of time shifts."""

    shifts: dict[str, float] = Field(description="Time shift of each detector, s")
    blocks: int = Field(description="Blocks with these shifts")
    events: int = Field(description="Background events")
    livetime: float = Field(description="Valid time, s")
    loudest: float | None = Field(description="Largest statistic; null: no events")


class BackgroundAnswer(Answer):
    """A run's background, timeslide by timeslide."""

    events: int = Field(description="Background events")
    livetime: float = Field(description="Valid time of all timeslides together, s")
    lowest_far_per_year: float | None = Field(
        description="Lowest false-alarm rate that can be stated, 1 / livetime of the "
        "background that the run's rates use, per Julian year; null: no livetime"
    )
    slides: list[SlideAnswer] = Field(
        description="The requested page of timeslides, loudest first"
    )
    total: int = Field(description="Number of different sets of shifts in the run")
    vetoes: AppliedVetoes
    model: ModelDigest


class DriftPointAnswer(Answer):
    """Expected and observed events from one statistic on."""

    statistic: float = Field(description="Detection statistic")
    expected: float = Field(
        description="Events with at least this statistic that background predicts"
    )
    observed: int = Field(description="Zero-lag events with at least this statistic")
    p_value: float = Field(
        description="Two-sided p-value of the observed count, given both counts"
    )


class DriftAnswer(Answer):
    """Event counts of the newest zero-lag data, compared with background."""

    start: float | None = Field(description="Start of the compared data, GPS s")
    stop: float | None = Field(
        description="End of the compared data, which is the newest score, GPS s"
    )
    livetime: float = Field(description="Valid time in it outside vetoed time, s")
    events: int = Field(description="Events in it outside vetoed time")
    points: list[DriftPointAnswer] = Field(
        description="Counts at statistics spaced evenly in the logarithm of the "
        "background count, ascending; empty without livetime"
    )
    p_value: float = Field(
        description="Smallest p-value of the points, times their number (Bonferroni), "
        "at most 1; 1 without livetime"
    )
    background_livetime: BackgroundLivetime
    vetoes: AppliedVetoes
    model: ModelDigest


class VetoAnswer(Answer):
    """A veto: a named list of segments in which data are not used."""

    name: str = Field(description="The veto's name")
    ifos: list[str] = Field(description="Detectors that the veto applies to")
    reason: str | None = Field(description="Reason, free text")
    segments: int = Field(description="Number of segments; overlapping ones are merged")
    duration: float = Field(description="Total length of the merged segments, s")


class VetoDetail(VetoAnswer):
    """A veto with its segments."""

    times_ns: list[list[int]] = Field(
        description="Start and end of each merged segment, GPS ns, ascending"
    )


class IntervalAnswer(Answer):
    """An interval of time."""

    start: float = Field(description="Start, GPS s")
    stop: float = Field(description="End, GPS s")


class ScoresAnswer(Answer):
    """Scores, thinned to buckets of time that keep every peak and trough."""

    start: float = Field(
        description="Start of the buckets: the requested start, or the first scores if "
        "those are later, GPS s"
    )
    stop: float = Field(
        description="End of the buckets: the requested end, or the last scores if "
        "those are earlier, GPS s"
    )
    bucket: float = Field(description="Length of a bucket, s")
    time: list[float] = Field(
        description="For each bucket, right edge of its first stride's data, GPS s"
    )
    minimum: list[float | None] = Field(
        description="For each bucket, smallest valid score; null: no valid score"
    )
    maximum: list[float | None] = Field(
        description="For each bucket, largest valid score; null: no valid score"
    )
    invalid: list[IntervalAnswer] = Field(
        description="Intervals with scores that are not valid"
    )
    received: list[IntervalAnswer] = Field(
        description="Intervals with scores, valid or not"
    )
