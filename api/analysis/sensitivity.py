"""Injections of a run: which were found at a false-alarm rate, and what that says."""

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.background import insufficient
from chirpwatch.api.analysis.intervals import (
    Interval,
    merge,
    seconds,
)
from chirpwatch.api.analysis.queries import (
    event_answer,
    vetoed,
)
from chirpwatch.api.analysis.scores import (
    FLAGS,
    stretches,
    valid_flags,
)
from chirpwatch.api.analysis.summaries import Accumulated
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    shifts_ns,
    vetoed_events,
)
from chirpwatch.api.contract.answers import (
    EfficiencyAnswer,
    EfficiencyBinAnswer,
    InjectionsAnswer,
    Recovered,
    VolumeAnswer,
    VolumesAnswer,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
)
from chirpwatch.api.contract.requests import PopulationBody
from chirpwatch.api.storage.database import (
    ChunkRow,
    EventRow,
    InjectionRow,
    InjectionSetRow,
    RunRow,
    StreamRow,
)
from chirpwatch.background import Background, finite
from chirpwatch.efficiency import (
    MATCH_WINDOW,
    SNR_EDGES,
    efficiency,
    even_edges,
    match_injections,
)
from chirpwatch.errors import StatisticsError
from chirpwatch.geometry import Geometry
from chirpwatch.volume import (
    MASS_PAIRS,
    Population,
    sensitive_volume,
    volume_per_injection,
)

UNITS = {
    "snr": "",
    "distance": "Mpc",
    "redshift": "",
    "mass_1": "solar masses, detector frame",
    "mass_2": "solar masses, detector frame",
    "chirp_mass": "solar masses, detector frame",
    "total_mass": "solar masses, detector frame",
}
"""What efficiency may be asked for by, and its unit."""


@dataclass(frozen=True)
class Injected:
    """An injection and what became of it, whatever the threshold.

    Attributes:
        row: The injection.
        set: Its set.
        event: The matched event and the name of its stream, if there is one.
        fate: ``pending``, ``vetoed``, ``event``, ``no_event`` or ``not_analysed``.
    """

    row: InjectionRow
    set: InjectionSetRow
    event: tuple[EventRow, str] | None
    fate: str

    @property
    def settled(self) -> bool:
        """Whether it counts: as found or as missed."""
        return self.fate not in {"pending", "vetoed"}

    def found(self, threshold: float) -> bool:
        """Whether its event passes a threshold."""
        return (
            self.fate == "event"
            and self.event is not None
            and self.event[0].statistic >= threshold
        )


def load_injected(
    session: Session, run: RunRow, accumulated: Accumulated
) -> Sequence[Injected]:
    """Every injection of a run, in order of time."""

    def load() -> Sequence[Injected]:
        return _load(session, run, accumulated.vetoes(session, run))

    # Several questions of one page rest on it.
    return accumulated.once(run, load)


def threshold_at(noise: Background, far_per_year: float) -> float:
    """Smallest statistic that has this rate.

    Raises:
        RefusalError: The background cannot reach it.
    """
    try:
        return noise.threshold_at_far(far_per_year)
    except StatisticsError as error:
        raise insufficient(error) from None


def found_and_missed(
    injected: Sequence[Injected],
    run: RunRow,
    noise: Background,
    vetoes: Vetoes,
    far_per_year: float,
    between: Interval,
    listed: slice,
) -> InjectionsAnswer:
    """Injections of a run, found or missed at `far_per_year`.

    All are counted; of those between two times, GPS ns, those of the slice `listed`
    are listed, in order of time.

    Raises:
        RefusalError: The background cannot reach this rate.
    """
    threshold = threshold_at(noise, far_per_year)
    settled = [one for one in injected if one.settled]
    start_ns, stop_ns = between
    inside = [one for one in settled if start_ns <= one.row.time_ns <= stop_ns]
    recovered = [_recovered(one, threshold) for one in inside[listed]]
    fates = [one.fate for one in injected]
    sets = {one.set.id: one.set for one in injected}.values()
    populations = {_drawn_from(row) for row in sets}
    return InjectionsAnswer(
        far_per_year=far_per_year,
        threshold=finite(threshold),
        background_livetime=noise.livetime,
        window=MATCH_WINDOW,
        total=len(settled),
        pending=fates.count("pending"),
        vetoed=fates.count("vetoed"),
        found=[one for one in recovered if one.reason == "found"],
        missed=[one for one in recovered if one.reason != "found"],
        efficiency=_bins(settled, threshold, _values(settled, "snr"), SNR_EDGES),
        parameters=[name for name in UNITS if _all_have(settled, name)],
        drawn_in_volume=len(populations) == 1 and None not in populations,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def efficiency_by(
    injected: Sequence[Injected],
    run: RunRow,
    noise: Background,
    vetoes: Vetoes,
    far_per_year: float,
    name: str,
    bins: int,
) -> EfficiencyAnswer:
    """Share of the injections found in bins of a parameter, a key of `UNITS`.

    Raises:
        RefusalError: The background cannot reach this rate, or an injection lacks the
            parameter.
    """
    threshold = threshold_at(noise, far_per_year)
    settled = [one for one in injected if one.settled]
    values = _values(settled, name)
    edges = SNR_EDGES if name == "snr" else even_edges(values, bins)
    return EfficiencyAnswer(
        by=name,
        unit=UNITS[name],
        far_per_year=far_per_year,
        threshold=finite(threshold),
        background_livetime=noise.livetime,
        bins=_bins(settled, threshold, values, edges),
        vetoes=list(vetoes.names),
        model=run.model,
    )


def volumes(
    session: Session,
    injected: Sequence[Injected],
    run: RunRow,
    noise: Background,
    vetoes: Vetoes,
    rates: Sequence[float],
) -> VolumesAnswer:
    """Sensitive volume at each rate for each of `MASS_PAIRS`.

    Raises:
        RefusalError: The background cannot reach a rate, or the injections were not
            drawn in volume or from several populations.
    """
    population, rejected = _population(session, run)
    analysed, draws = _drawn(injected, rejected)
    answers = []
    for rate in rates:
        threshold = threshold_at(noise, rate)
        found = [one for one in analysed if one.found(threshold)]
        mass_1, mass_2, redshift = (
            _values(found, name) for name in ("mass_1", "mass_2", "redshift")
        )
        for pair in MASS_PAIRS:
            try:
                seen = sensitive_volume(
                    population, draws, mass_1, mass_2, redshift, pair
                )
            except StatisticsError as error:
                raise ConflictError(str(error), "no-population") from None
            answers.append(
                VolumeAnswer(
                    far_per_year=rate,
                    threshold=finite(threshold),
                    mass_1=pair[0],
                    mass_2=pair[1],
                    **asdict(seen) | {"distance_error": finite(seen.distance_error)},
                )
            )
    return VolumesAnswer(
        volumes=answers,
        injections=len(analysed),
        not_analysed=sum(one.fate == "not_analysed" for one in injected),
        rejected=rejected,
        draws=draws,
        max_redshift=population.max_redshift,
        background_livetime=noise.livetime,
        vetoes=list(vetoes.names),
        model=run.model,
    )


def signals(
    session: Session, injected: Sequence[Injected], run: RunRow
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Statistic of each injection with an event, and the volume it stands for, Mpc^3.

    Raises:
        RefusalError: The injections were not drawn in volume.
    """
    population, rejected = _population(session, run)
    analysed, draws = _drawn(injected, rejected)
    seen = [one for one in analysed if one.event is not None]
    statistics = [one.event[0].statistic for one in seen if one.event is not None]
    redshift = _values(seen, "redshift")
    volumes = volume_per_injection(population, max(draws, 1.0), redshift)
    return np.array(statistics), volumes


def _drawn(injected: Sequence[Injected], rejected: int) -> tuple[list[Injected], float]:
    """Injections in time that was analysed, and the draws behind them.

    The others leave with their share of the rejected draws: a volume is that of
    livetime, from which their time is missing too.
    """
    analysed = [one for one in injected if one.settled and one.fate != "not_analysed"]
    return analysed, len(analysed) * (1 + rejected / max(1, len(injected)))


def _population(session: Session, run: RunRow) -> tuple[Population, int]:
    """What all injections of a run were drawn from, and the exact rejected count."""
    told = session.scalars(
        select(InjectionSetRow.population).where(InjectionSetRow.run_id == run.id)
    ).all()
    bodies = [PopulationBody.model_validate(one) for one in told if one is not None]
    if not bodies or len(bodies) < len(told):
        missing = f"{len(told) - len(bodies)} that do not" if told else "none"
        raise ConflictError(
            f"injections of run {run.id!r}: expected sets that say what they were "
            f"drawn from, uniform in volume, found {missing}; simulate signals with "
            "--volume",
            "no-population",
        )
    populations = {body.population() for body in bodies}
    if len(populations) > 1:
        raise ConflictError(
            f"injections of run {run.id!r}: expected one population, found "
            f"{len(populations)}; a volume needs sets that were drawn alike"
        )
    return populations.pop(), sum(body.rejected for body in bodies)


def _load(session: Session, run: RunRow, vetoes: Vetoes) -> list[Injected]:
    sets = session.scalars(
        select(InjectionSetRow)
        .where(InjectionSetRow.run_id == run.id)
        .order_by(InjectionSetRow.id)
    ).all()
    streams = session.scalars(
        select(StreamRow)
        .where(StreamRow.run_id == run.id, StreamRow.kind == "injections")
        .order_by(StreamRow.id)
    ).all()
    injections: defaultdict[int, list[InjectionRow]] = defaultdict(list)
    for injection in session.scalars(
        select(InjectionRow)
        .join(InjectionSetRow, InjectionSetRow.id == InjectionRow.set_id)
        .where(InjectionSetRow.run_id == run.id)
        .order_by(InjectionRow.time_ns, InjectionRow.id)
    ):
        injections[injection.set_id].append(injection)
    rows = session.execute(
        select(EventRow, StreamRow)
        .join(StreamRow, StreamRow.id == EventRow.stream_id)
        .where(EventRow.run_id == run.id, EventRow.kind == "injections")
    ).all()
    events: defaultdict[str | None, list[Row[EventRow, StreamRow]]]
    events = defaultdict(list)
    for row, gone in zip(rows, vetoed(rows, vetoes), strict=True):
        if not gone:
            events[row[1].injection_set].append(row)
    coverages = _coverages(session, run)
    found: list[Injected] = []
    for one in sets:
        mine = [stream for stream in streams if stream.injection_set == one.name]
        times = np.array([row.time_ns for row in injections[one.id]], dtype=np.int64)
        # The streams of a set have the same shifts.
        shifts = shifts_ns(mine[0]) if mine else {}
        found += _fates(
            one,
            injections[one.id],
            events[one.name],
            coverages(mine),
            vetoed_events(times, shifts, vetoes),
        )
    return sorted(found, key=lambda one: one.row.time_ns)


def _fates(
    row: InjectionSetRow,
    injections: Sequence[InjectionRow],
    events: Sequence[Row[EventRow, StreamRow]],
    coverage: "_Coverage",
    lost: NDArray[np.bool_],
) -> Iterator[Injected]:
    """What became of each injection of a set."""
    matched = match_injections(
        [injection.time_ns for injection in injections],
        [event.time_ns for event, _ in events],
        [event.statistic for event, _ in events],
    )
    for injection, index, gone in zip(injections, matched, lost, strict=True):
        match = events[index] if index >= 0 else None
        if gone:
            fate = "vetoed"
        # Found or not: to count the found ones early would flatter the efficiency.
        elif coverage.is_pending(injection.time_ns):
            fate = "pending"
        elif match is not None:
            fate = "event"
        else:
            valid = _covers(coverage.valid, injection.time_ns)
            fate = "no_event" if valid else "not_analysed"
        event = None if match is None else (match[0], match[1].name)
        yield Injected(injection, row, event, fate)


def _recovered(one: Injected, threshold: float) -> Recovered:
    if one.found(threshold):
        reason = "found"
    else:
        reason = "below_threshold" if one.fate == "event" else one.fate
    return Recovered(
        time_ns=one.row.time_ns,
        time=seconds(one.row.time_ns),
        set=one.set.name,
        snr=one.row.snr,
        parameters=one.row.parameters,
        event=None if one.event is None else event_answer(*one.event),
        reason=reason,
    )


@dataclass(frozen=True)
class _Coverage:
    """What is there of the streams that hold a set of injections.

    Attributes:
        running: Whether more may come.
        valid: Stretches with valid scores, ns.
        received: Stretches with scores, valid or not, ns.
        delay_ns: Longest time until an event has been reported, ns.
    """

    running: bool
    valid: list[Interval]
    received: list[Interval]
    delay_ns: int

    def is_pending(self, time_ns: int) -> bool:
        """Whether the event of an injection may yet come."""
        return self.running and not _covers(self.received, time_ns + self.delay_ns)


def _coverages(
    session: Session, run: RunRow
) -> Callable[[Sequence[StreamRow]], _Coverage]:
    """What tells how far some of the streams with injections of a run got."""
    received: defaultdict[int, list[Interval]] = defaultdict(list)
    valid: defaultdict[int, list[Interval]] = defaultdict(list)
    mine = StreamRow.run_id == run.id, StreamRow.kind == "injections"
    for stream, start, stop, count, size in session.execute(
        select(
            ChunkRow.stream_id,
            ChunkRow.start_ns - ChunkRow.stride_ns,
            ChunkRow.stop_ns,
            ChunkRow.valid_count,
            ChunkRow.size,
        )
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*mine)
    ):
        received[stream].append((start, stop))
        if count == size:
            valid[stream].append((start, stop))
    # Flags are read only of the few chunks where some are valid and others not.
    for chunk in session.execute(
        select(ChunkRow.stream_id, *FLAGS)
        .join(StreamRow, StreamRow.id == ChunkRow.stream_id)
        .where(*mine, ChunkRow.valid_count.between(1, ChunkRow.size - 1))
    ):
        valid[chunk.stream_id] += stretches(chunk, valid_flags(chunk))
    geometry = Geometry.from_json(run.geometry)

    def of(some: Sequence[StreamRow]) -> _Coverage:
        clusters = max((stream.cluster_length for stream in some), default=0.0)
        delay = clusters + geometry.kernel_length + geometry.fduration
        return _Coverage(
            running=run.state == "running",
            valid=merge(part for one in some for part in valid[one.id]),
            received=merge(part for one in some for part in received[one.id]),
            delay_ns=round(delay * 1e9),
        )

    return of


def _covers(intervals: list[Interval], time_ns: int) -> bool:
    before = bisect.bisect_right(intervals, (time_ns, math.inf)) - 1
    return before >= 0 and time_ns <= intervals[before][1]


def _values(injected: Sequence[Injected], name: str) -> NDArray[np.float64]:
    """A parameter of each injection, [n]."""
    try:
        values = [_value(one.row, name) for one in injected]
    except KeyError as error:
        raise InvalidError(
            f"expected injections with the parameter {error.args[0]!r}, found some "
            "without"
        ) from None
    return np.array(values, dtype=np.float64)


def _all_have(injected: Sequence[Injected], name: str) -> bool:
    needed = {"mass_1", "mass_2"} if name in {"chirp_mass", "total_mass"} else {name}
    return name == "snr" or all(needed <= one.row.parameters.keys() for one in injected)


def _drawn_from(row: InjectionSetRow) -> Population | None:
    if row.population is None:
        return None
    return PopulationBody.model_validate(row.population).population()


def _value(row: InjectionRow, name: str) -> float:
    if name == "snr":
        return row.snr
    if name not in {"chirp_mass", "total_mass"}:
        return float(row.parameters[name])
    first, second = row.parameters["mass_1"], row.parameters["mass_2"]
    total = first + second
    result: float = (
        total if name == "total_mass" else (first * second) ** 0.6 / total**0.2
    )
    return result


def _bins(
    settled: Sequence[Injected],
    threshold: float,
    values: NDArray[np.float64],
    edges: Sequence[float],
) -> list[EfficiencyBinAnswer]:
    found = [one.found(threshold) for one in settled]
    lost = np.array([one.fate == "not_analysed" for one in settled], dtype=bool)
    bins = []
    for part in efficiency(values, found, edges):
        inside = (values >= part.low_edge) & (values < part.high_edge)
        told = asdict(part) | {
            "high_edge": finite(part.high_edge),
            "efficiency": part.efficiency if part.injections else None,
            "not_analysed": int(np.count_nonzero(inside[lost])),
        }
        bins.append(EfficiencyBinAnswer(**told))
    return bins
