"""Answers about injections: found and missed, efficiency, volume, run by run."""

from typing import Annotated

from pydantic import Field

from chirpwatch.api.contract.answers import (
    Answer,
    AppliedVetoes,
    BackgroundLivetime,
    EventAnswer,
    FarPerYear,
    ModelDigest,
)

RequestedFar = Annotated[
    float, Field(description="The requested false-alarm rate, per Julian year")
]
Threshold = Annotated[
    float | None,
    Field(
        description="Smallest statistic with at most that false-alarm rate; null: "
        "every event passes"
    ),
]


class Recovered(Answer):
    """An injection and the event that was matched to it."""

    time_ns: int = Field(description="GPS time of the injected merger, integer ns")
    time: float = Field(description="The same time in GPS s, to a microsecond")
    set: str = Field(description="Name of the injection set")
    snr: float = Field(description="Network SNR")
    parameters: dict[str, float] = Field(description="Parameters as they were sent")
    event: EventAnswer | None = Field(description="The matched event; null: none")
    reason: str = Field(
        description="`found`; `below_threshold`: the event is too quiet; `no_event`: "
        "no event within the matching window; `not_analysed`: no valid score at the "
        "injection's time"
    )


class EfficiencyBinAnswer(Answer):
    """Injections found in one bin of a parameter."""

    low_edge: float = Field(description="Lower edge, inclusive")
    high_edge: float | None = Field(
        description="Upper edge, exclusive; null: unbounded"
    )
    injections: int = Field(description="Injections in the bin, found or missed")
    found: int = Field(description="Injections found")
    not_analysed: int = Field(
        description="Injections without a valid score, which count as missed"
    )
    efficiency: float | None = Field(description="found / injections; null: empty bin")
    low: float = Field(description="Lower end of the 68 % Wilson interval")
    high: float = Field(description="Upper end of the 68 % Wilson interval")


class InjectionsAnswer(Answer):
    """Injections found and missed at a false-alarm rate."""

    far_per_year: RequestedFar
    threshold: Threshold
    background_livetime: BackgroundLivetime
    window: float = Field(
        description="Largest time difference between an injection and its event, s"
    )
    total: int = Field(description="Injections found or missed, listed or not")
    pending: int = Field(
        description="Injections whose data a running run has not analysed yet; not "
        "counted elsewhere. 0 once the run is complete or failed"
    )
    vetoed: int = Field(description="Injections in vetoed time; not counted elsewhere")
    found: list[Recovered] = Field(
        description="Found injections on the requested page, in order of time"
    )
    missed: list[Recovered] = Field(
        description="Missed injections on the requested page, in order of time"
    )
    efficiency: list[EfficiencyBinAnswer] = Field(
        description="Efficiency in bins of network SNR"
    )
    parameters: list[str] = Field(
        description="Parameters that all injections have, which `/efficiency` accepts"
    )
    drawn_in_volume: bool = Field(
        description="Whether `/volume` can answer: all injections declare the same "
        "population"
    )
    vetoes: AppliedVetoes
    model: ModelDigest


class EfficiencyAnswer(Answer):
    """Efficiency in bins of a parameter: the fraction of injections found."""

    by: str = Field(description="The parameter")
    unit: str = Field(description="The parameter's unit; empty: dimensionless")
    far_per_year: RequestedFar
    threshold: Threshold
    background_livetime: BackgroundLivetime
    bins: list[EfficiencyBinAnswer] = Field(
        description="Bins, ascending in the parameter"
    )
    vetoes: AppliedVetoes
    model: ModelDigest


class VolumeAnswer(Answer):
    """Sensitive volume for one pair of masses at one false-alarm rate."""

    far_per_year: FarPerYear
    threshold: Threshold
    mass_1: float = Field(
        description="Centre of the heavier mass's log-normal distribution (width "
        "0.1), solar masses, source frame"
    )
    mass_2: float = Field(
        description="Centre of the lighter mass's log-normal distribution (width "
        "0.1), solar masses, source frame"
    )
    volume: float = Field(
        description="Sensitive comoving volume, weighted by 1 / (1 + redshift) for "
        "time dilation, Mpc^3. Times livetime and source-frame rate density it is the "
        "expected number of detections"
    )
    volume_error: float = Field(description="Standard error of the volume, Mpc^3")
    distance: float = Field(description="Radius of a ball of that volume, Mpc")
    distance_error: float | None = Field(
        description="Standard error of the distance, Mpc; null: nothing was found"
    )
    found: int = Field(description="Injections found")
    effective: float = Field(
        description="Effective number of found injections, (Σw)² / Σw² for their "
        "importance weights w"
    )
    covered: float = Field(
        description="Fraction of the pair's population that lies within the masses "
        "drawn; below 1, the volume is too small by about this factor"
    )


class VolumesAnswer(Answer):
    """Sensitive volumes, from importance weights of the run's injections."""

    volumes: list[VolumeAnswer] = Field(
        description="One for each requested rate and pair of masses"
    )
    injections: int = Field(description="Injections in analysed time, found or missed")
    not_analysed: int = Field(
        description="Injections without a valid score at their time; left out, as "
        "that time is left out of livetime"
    )
    rejected: int = Field(
        description="Draws that were too faint to be injected, all sets together"
    )
    draws: float = Field(
        description="Number of draws that the volumes are normalised by: `injections` "
        "and their share of `rejected`"
    )
    max_redshift: float = Field(description="Largest redshift of the draws")
    background_livetime: BackgroundLivetime
    vetoes: AppliedVetoes
    model: ModelDigest


class ComparedRun(Answer):
    """One of several runs that are compared."""

    id: str = Field(description="The run's identifier")
    name: str = Field(description="The run's name, free text")
    model: ModelDigest
    geometry_digest: str = Field(description="Digest of the geometry")
    data: str = Field(description="What was analysed, free text")
    zero_lag_livetime: float = Field(description="Zero-lag livetime, s")
    background_livetime: BackgroundLivetime
    lowest_far_per_year: float | None = Field(
        description="1 / background livetime, per Julian year; null: no livetime"
    )
    loudest: float | None = Field(
        description="Largest zero-lag statistic; null: no events"
    )
    loudest_far_per_year: float | None = Field(
        description="False-alarm rate of the loudest zero-lag event, by this run's "
        "background, per Julian year; null: no event or no background"
    )
    threshold: float | None = Field(
        description="Smallest statistic with at most the requested false-alarm rate; "
        "null: every event passes, or the background is too short for the rate"
    )
    reached: bool = Field(
        description="Whether the background is long enough for the requested rate"
    )
    injections: int = Field(description="Injections, found or missed")
    found: int | None = Field(
        description="Injections found at that rate; null: `reached` is false"
    )
    efficiency: list[EfficiencyBinAnswer] = Field(
        description="Efficiency in bins of network SNR; empty if `reached` is false"
    )
    vetoes: AppliedVetoes


class Comparison(Answer):
    """Several runs at one false-alarm rate, each by its own background."""

    far_per_year: RequestedFar
    same_model: bool = Field(description="Whether all runs used the same model")
    same_geometry: bool = Field(description="Whether all runs used the same geometry")
    runs: list[ComparedRun] = Field(description="The runs, in the requested order")
