"""What the API answers. Every field says its unit, and its limit where it has one."""

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """An error, as RFC 9457 describes it (`application/problem+json`)."""

    type: str = Field(description="Kind of the problem; stable, for programs")
    title: str = Field(description="The kind in words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="What was expected, found, and what to do")
    instance: str = Field(description="Path of the request")
    errors: list[str] = Field([], description="Each fault of the request's content")


class FarAnswer(Answer):
    """False-alarm rate of one statistic, (count + 1) / livetime."""

    statistic: float = Field(description="The statistic asked about")
    far_per_year: float = Field(description="False-alarm rate, per Julian year")
    ifar_years: float = Field(description="Its inverse, Julian years")
    count: int = Field(description="Background events at least as loud; at most")
    uncertain: int = Field(
        description="How many of the count may be quieter, since below `floor` events "
        "are counted in bins of 1/128: the rate is no more than given"
    )
    floor: float | None = Field(
        description="Statistic from which the count is exact; null: everywhere"
    )
    livetime: float = Field(description="Background livetime without vetoed time, s")
    saturated: bool = Field(
        description="No background event is as loud: the rate is an upper limit"
    )
    observing_time: float = Field(
        description="Time that was searched, s: as asked for, or the zero-lag livetime"
    )
    false_alarm_probability: float = Field(
        description="Probability that noise alone gives an event as loud in that time: "
        "1 - exp(-FAR time)"
    )
    significance: float | None = Field(
        description="The same in standard deviations, one-sided; null: none, since no "
        "time was searched or such events are expected many times over"
    )
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model of this run's background")


class IfarPointAnswer(Answer):
    """One point of the IFAR curve."""

    statistic: float = Field(description="Statistic")
    ifar_years: float = Field(description="Inverse false-alarm rate, Julian years")
    ifar_years_low: float = Field(description="Lower end of the Poisson band, years")
    ifar_years_high: float | None = Field(
        description="Upper end of the band, years; null: unbounded"
    )
    count: int = Field(description="Background events at least as loud")
    saturated: bool = Field(description="Count zero: the IFAR is a lower limit")


class IfarAnswer(Answer):
    """IFAR against statistic, ascending, from background of this run."""

    points: list[IfarPointAnswer] = Field(
        description="At most 301 points, of which the last is saturated; none without "
        "events"
    )
    livetime: float = Field(description="Background livetime, s")
    events: int = Field(description="Background events")
    floor: float | None = Field(
        description="Statistic from which counts are exact; below, all events of a bin "
        "of 1/128 are counted; null: exact everywhere"
    )
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class EventAnswer(Answer):
    """An event."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    time: float = Field(description="The same in GPS s, to a microsecond")
    statistic: float = Field(description="Detection statistic")
    stream: str = Field(
        description="Stream that it was seen in; of background, `{block}/{slide}`"
    )


class Odds(Answer):
    """Whether a candidate is a merger, for a rate that was given."""

    p_astro: float = Field(description="Probability that it is a merger")
    signals: float = Field(
        description="Mergers a year for each unit of the statistic, there"
    )
    noise: float = Field(
        description="False alarms a year for each unit of the statistic, there"
    )
    limited: bool = Field(
        description="The background does not reach this statistic: `p_astro` is a "
        "lower limit"
    )


class Candidate(EventAnswer):
    """A zero-lag event and how rare it is."""

    id: str = Field(
        description="Its `time_ns` as text, which JavaScript can hold: its address is "
        "`/v1/runs/{run}/candidates/{id}`, its page `/runs/{run}/candidates/{id}`"
    )
    far_per_year: float | None = Field(
        description="False-alarm rate, per Julian year; null without background"
    )
    ifar_years: float | None = Field(
        description="Its inverse, Julian years; null without background"
    )
    false_alarm_probability: float | None = Field(
        description="p-value: probability that noise alone gives an event as loud in "
        "the zero-lag livetime, 1 - exp(-FAR time); null without background"
    )
    saturated: bool = Field(
        description="The rate is limited by the background's livetime: an upper limit"
    )
    odds: Odds | None = Field(
        None,
        description="Signal or noise, where the rate of mergers was given; else null",
    )


class Stretch(Answer):
    """A stretch of time."""

    start: float = Field(description="Begin, GPS s")
    stop: float = Field(description="End, GPS s")


class NearbyVeto(Answer):
    """What a list of vetoed segments holds of the time around a candidate."""

    name: str = Field(description="Name of the list")
    segments: list[Stretch] = Field(description="Its segments nearby, whole")


class CandidateDetail(Candidate):
    """A candidate, and what is around it."""

    rank: int = Field(
        description="Place among the run's zero-lag events that no veto takes, "
        "loudest first"
    )
    vetoed: bool = Field(description="Whether it lies in vetoed time")
    count: int | None = Field(
        description="Background events at least as loud; null without background"
    )
    background_livetime: float = Field(description="Background livetime, s")
    observing_time: float = Field(description="Zero-lag livetime, s")
    significance: float | None = Field(
        description="The p-value in standard deviations, one-sided; null: none"
    )
    neighbours: list[EventAnswer] = Field(
        description="Other zero-lag events nearby that no veto takes, loudest first, "
        "at most 20"
    )
    nearby: float = Field(description="How far nearby reaches to either side, s")
    invalid: list[Stretch] = Field(
        description="Stretches nearby that were analysed and are not valid, by the "
        "centres of their windows"
    )
    absent: list[Stretch] = Field(
        description="Stretches nearby without zero-lag scores (yet), likewise"
    )
    vetoes_nearby: list[NearbyVeto] = Field(description="Vetoes with segments nearby")
    strain: bool = Field(description="Whether its strain can be looked at")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class Whitened(Answer):
    """Whitened strain around a candidate."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    start: float = Field(description="First sample, s after the merger")
    sample_rate: int = Field(description="Rate, Hz")
    strain: dict[str, list[float]] = Field(
        description="Of each detector, in standard deviations of its noise"
    )


class QTransform(Answer):
    """Q-transform of a detector's strain around a candidate (gwpy)."""

    time_ns: int = Field(description="GPS time of the merger, integer ns")
    ifo: str = Field(description="Detector")
    start: float = Field(
        description="Left edge of the first column, s after the merger"
    )
    step: float = Field(description="Width of a column, s")
    frequencies: list[float] = Field(description="Of each row, Hz")
    energy: list[list[float]] = Field(
        description="Normalised energy, column by column; noise has a median of 1"
    )


class Candidates(Answer):
    """Zero-lag events, loudest first."""

    candidates: list[Candidate] = Field(description="The loudest, as many as asked for")
    total: int = Field(
        description="Zero-lag events of the whole run that no veto takes"
    )
    vetoed: int = Field(description="Zero-lag events in vetoed time, not listed")
    livetime: float = Field(description="Zero-lag livetime without vetoed time, s")
    background_livetime: float = Field(description="Background livetime, s")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class Events(Answer):
    """Events of one kind, loudest first."""

    events: list[EventAnswer] = Field(description="One page of events")
    total: int = Field(description="Events of this kind in the run that no veto takes")


class Slide(Answer):
    """Background of one set of shifts."""

    shifts: dict[str, float] = Field(description="Shift of each detector, s")
    blocks: int = Field(description="Blocks with these shifts")
    events: int = Field(description="Background events")
    livetime: float = Field(description="Valid time, s")
    loudest: float | None = Field(description="Largest statistic; null without events")


class BackgroundAnswer(Answer):
    """What the background of a run consists of."""

    events: int = Field(description="Background events")
    livetime: float = Field(description="Valid time of all slides together, s")
    lowest_far_per_year: float | None = Field(
        description="1 / livetime of the background that the run's rates rest on: no "
        "smaller rate can be stated, per Julian year"
    )
    slides: list[Slide] = Field(
        description="One for each set of shifts, the loudest first"
    )
    total: int = Field(description="Sets of shifts in the run")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class Recovered(Answer):
    """An injection and the event that was matched to it."""

    time_ns: int = Field(description="GPS time of the injected merger, integer ns")
    time: float = Field(description="The same in GPS s, to a microsecond")
    set: str = Field(description="Injection set")
    snr: float = Field(description="Network SNR")
    parameters: dict[str, float] = Field(description="Parameters as they were sent")
    event: EventAnswer | None = Field(description="The matched event, if there is one")
    reason: str = Field(
        description="`found`; `below_threshold`: its event is too quiet; `no_event`: "
        "no event within the window; `not_analysed`: no valid score at its time"
    )


class EfficiencyBinAnswer(Answer):
    """Injections found in one bin of a parameter."""

    low_edge: float = Field(description="Lower edge, inclusive")
    high_edge: float | None = Field(description="Upper edge, exclusive; null: none")
    injections: int = Field(description="Injections, the denominator")
    found: int = Field(description="Injections found")
    not_analysed: int = Field(
        description="Injections without a valid score; part of the denominator"
    )
    efficiency: float | None = Field(description="found / injections; null if empty")
    low: float = Field(description="Lower end of the 68 % Wilson interval")
    high: float = Field(description="Upper end of the 68 % Wilson interval")


class InjectionsAnswer(Answer):
    """Injections found and missed at a false-alarm rate."""

    far_per_year: float = Field(description="The rate asked for, per Julian year")
    threshold: float | None = Field(
        description="Smallest statistic that counts; null: every event counts"
    )
    background_livetime: float = Field(description="Livetime behind the threshold, s")
    window: float = Field(description="Most that event and injection differ, s")
    total: int = Field(description="Found and missed together: the denominator")
    pending: int = Field(
        description="Injections at times that a running run has not come to; in none "
        "of the other numbers. None are pending once the run is complete or failed"
    )
    vetoed: int = Field(
        description="Injections at vetoed times; in none of the other numbers"
    )
    found: list[Recovered] = Field(
        description="Those found of the ones that are listed, in order of time"
    )
    missed: list[Recovered] = Field(
        description="Those missed of the ones that are listed, in order of time"
    )
    efficiency: list[EfficiencyBinAnswer] = Field(description="By network SNR")
    parameters: list[str] = Field(
        description="What efficiency may be asked for by: what all injections have"
    )
    drawn_in_volume: bool = Field(
        description="Whether sensitive volume may be asked for: all injections say "
        "what one population they were drawn from"
    )
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class EfficiencyAnswer(Answer):
    """Share of the injections found in bins of a parameter."""

    by: str = Field(description="The parameter")
    unit: str = Field(description="Its unit; empty for none")
    far_per_year: float = Field(description="The rate asked for, per Julian year")
    threshold: float | None = Field(
        description="Smallest statistic that counts; null: every event counts"
    )
    background_livetime: float = Field(description="Livetime behind the threshold, s")
    bins: list[EfficiencyBinAnswer] = Field(description="In order of the parameter")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class VolumeAnswer(Answer):
    """Sensitive volume for one pair of masses at one rate."""

    far_per_year: float = Field(description="False-alarm rate, per Julian year")
    threshold: float | None = Field(
        description="Smallest statistic that counts; null: every event counts"
    )
    mass_1: float = Field(
        description="Centre of the heavier mass's log-normal distribution of width "
        "0.1, solar masses, source frame"
    )
    mass_2: float = Field(description="The same of the lighter mass")
    volume: float = Field(
        description="Comoving volume, less the dilation of the source's time, Mpc^3: "
        "times livetime and source-frame rate density it is the number found"
    )
    volume_error: float = Field(description="Its standard deviation, Mpc^3")
    distance: float = Field(description="Radius of a ball of this volume, Mpc")
    distance_error: float | None = Field(
        description="Its standard deviation, Mpc; null: nothing was found"
    )
    found: int = Field(description="Injections found")
    effective: float = Field(
        description="Found injections of the pair itself that would know it as well"
    )
    covered: float = Field(
        description="Share of the pair's population whose masses were drawn from; "
        "below 1, the volume is too small by about as much"
    )


class VolumesAnswer(Answer):
    """Sensitive volumes, by importance weights from one set of injections."""

    volumes: list[VolumeAnswer] = Field(
        description="For each rate, each pair of masses"
    )
    injections: int = Field(
        description="Injections, found or missed, in time that was analysed"
    )
    not_analysed: int = Field(
        description="Injections without a valid score at their time: they leave, as "
        "that time does from livetime"
    )
    rejected: int = Field(
        description="Draws that were too faint to be injected, exactly, of all sets"
    )
    draws: float = Field(
        description="Draws behind the volumes: the injections and their share of the "
        "rejected"
    )
    max_redshift: float = Field(description="Redshift beyond which nothing was drawn")
    background_livetime: float = Field(description="Livetime behind thresholds, s")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class DriftPoint(Answer):
    """Events of at least a statistic, expected and observed."""

    statistic: float = Field(description="Statistic")
    expected: float = Field(description="Events that background leads to expect")
    observed: int = Field(description="Events that there are")
    p_value: float = Field(
        description="Probability of a number as unlikely, two-sided, by Poisson"
    )


class Drift(Answer):
    """The newest zero-lag events against background."""

    start: float | None = Field(description="Begin of what is compared, GPS s")
    stop: float | None = Field(description="Its end: the newest score, GPS s")
    livetime: float = Field(description="Valid time of it that no veto takes, s")
    events: int = Field(description="Events in it that no veto takes")
    points: list[DriftPoint] = Field(
        description="At statistics that background events are spread over evenly in "
        "the logarithm of their number, ascending; none without livetime"
    )
    p_value: float = Field(
        description="Probability that one of the points deviates as much, where the "
        "data are those of the background. 1 without livetime"
    )
    background_livetime: float = Field(description="Livetime behind it, s")
    vetoes: list[str] = Field(description="Vetoes that were applied")
    model: str = Field(description="Digest of the model")


class Compared(Answer):
    """One run of several that are compared."""

    id: str = Field(description="The run's identifier")
    name: str = Field(description="What people call it")
    model: str = Field(description="Digest of the model")
    geometry_digest: str = Field(description="Digest of the geometry")
    data: str = Field(description="What was analysed")
    zero_lag_livetime: float = Field(description="Zero-lag livetime, s")
    background_livetime: float = Field(description="Background livetime, s")
    lowest_far_per_year: float | None = Field(
        description="1 / livetime of its background; null without any"
    )
    loudest: float | None = Field(description="Largest zero-lag statistic; null: none")
    loudest_far_per_year: float | None = Field(
        description="False-alarm rate of that, by this run's own background"
    )
    threshold: float | None = Field(
        description="Smallest statistic that has the rate asked for; null: every event "
        "has it, or the background does not reach it"
    )
    reached: bool = Field(description="Whether the background reaches that rate")
    injections: int = Field(description="Injections, found or missed")
    found: int | None = Field(
        description="Those found at that rate; null: it is not reached"
    )
    efficiency: list[EfficiencyBinAnswer] = Field(
        description="By network SNR; empty where the rate is not reached"
    )
    vetoes: list[str] = Field(description="Vetoes that were applied")


class Comparison(Answer):
    """Runs side by side; each by its own background alone."""

    far_per_year: float = Field(description="The rate asked for, per Julian year")
    same_model: bool = Field(description="Whether all have the same model")
    same_geometry: bool = Field(description="Whether all have the same geometry")
    runs: list[Compared] = Field(description="In the order they were asked for")


class VetoAnswer(Answer):
    """A list of vetoed segments."""

    name: str = Field(description="Name of the list")
    ifos: list[str] = Field(description="Detectors that it holds for")
    reason: str | None = Field(description="Why, for people to read")
    segments: int = Field(description="Segments")
    duration: float = Field(description="Their length without overlaps, s")


class VetoDetail(VetoAnswer):
    """A list of vetoed segments with all of them."""

    times_ns: list[list[int]] = Field(
        description="Begin and end of each segment, GPS ns, in order and apart"
    )


class Scores(Answer):
    """A stretch of scores, thinned so that every peak and trough is kept."""

    start: float = Field(description="Begin of the answer, GPS s")
    stop: float = Field(description="End of the answer, GPS s")
    bucket: float = Field(description="Time that one point stands for, s")
    time: list[float] = Field(
        description="Of each point, right edge of the first stride's data, GPS s"
    )
    minimum: list[float | None] = Field(description="Smallest valid score; null: none")
    maximum: list[float | None] = Field(description="Largest valid score; null: none")
    invalid: list[Stretch] = Field(
        description="Stretches that were analysed and are not valid, GPS s"
    )
    received: list[Stretch] = Field(
        description="Stretches that scores are there for, valid or not, GPS s"
    )
