"""Sensitivity of a run's search: found and missed, efficiency, sensitive volume."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.background import insufficient
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.injections import (
    Injected,
    load_injected,
)
from chirpwatch.api.analysis.intervals import (
    Interval,
    seconds,
)
from chirpwatch.api.analysis.queries import event_answer
from chirpwatch.api.analysis.vetoes import Vetoes
from chirpwatch.api.contract.injection_answers import (
    EfficiencyAnswer,
    EfficiencyBinAnswer,
    InjectionsAnswer,
    Recovered,
    VolumeAnswer,
    VolumesAnswer,
)
from chirpwatch.api.contract.injection_set import PopulationBody
from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
)
from chirpwatch.api.storage.tables import (
    InjectionRow,
    InjectionSetRow,
    RunRow,
)
from chirpwatch.background import Background, finite
from chirpwatch.efficiency import (
    MATCH_WINDOW,
    SNR_EDGES,
    efficiency,
    even_edges,
)
from chirpwatch.errors import StatisticsError
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
"""Parameters that efficiency can be binned in, and their units."""


@dataclass(frozen=True)
class Sensitivity:
    """A run's injections, to be judged against its background.

    Attributes:
        run: The run.
        injected: All its injections, in order of time.
        background: The background that gives its false-alarm rates.
        vetoes: Its vetoes.
    """

    run: RunRow
    injected: Sequence[Injected]
    background: Background
    vetoes: Vetoes

    @classmethod
    def load(cls, session: Session, run: RunRow, cache: RunCache) -> Self:
        """Load a run's injections and background.

        Raises:
            ConflictError: The background has no livetime.
        """
        return cls(
            run=run,
            background=cache.required_background(session, run),
            vetoes=cache.vetoes(session, run),
            injected=load_injected(session, run, cache),
        )

    @property
    def settled(self) -> list[Injected]:
        """Injections that count as found or missed."""
        return [injection for injection in self.injected if injection.settled]

    def threshold(self, far_per_year: float) -> float:
        """Smallest statistic with at most a false-alarm rate.

        Raises:
            ConflictError: The background is too short for the rate.
        """
        try:
            return self.background.threshold_at_far(far_per_year)
        except StatisticsError as error:
            raise insufficient(error) from None

    def found_and_missed(
        self, far_per_year: float, between: Interval, listed: slice
    ) -> InjectionsAnswer:
        """Count the injections found and missed at a false-alarm rate, and list some.

        Args:
            far_per_year: False-alarm rate, per Julian year.
            between: Times to list injections between, GPS ns; all are counted.
            listed: Which of those to list, in order of time.

        Raises:
            ConflictError: The background is too short for the rate.
        """
        threshold = self.threshold(far_per_year)
        settled = self.settled
        start_ns, stop_ns = between
        inside = [i for i in settled if start_ns <= i.row.time_ns <= stop_ns]
        recovered = [_recovered(injection, threshold) for injection in inside[listed]]
        fates = [injection.fate for injection in self.injected]
        sets = {i.set.id: i.set for i in self.injected}.values()
        populations = {_declared_population(row) for row in sets}
        return InjectionsAnswer(
            far_per_year=far_per_year,
            threshold=finite(threshold),
            background_livetime=self.background.livetime,
            window=MATCH_WINDOW,
            total=len(settled),
            pending=fates.count("pending"),
            vetoed=fates.count("vetoed"),
            found=[answer for answer in recovered if answer.reason == "found"],
            missed=[answer for answer in recovered if answer.reason != "found"],
            efficiency=_bins(settled, threshold, _values(settled, "snr"), SNR_EDGES),
            parameters=[name for name in UNITS if _all_have(settled, name)],
            drawn_in_volume=len(populations) == 1 and None not in populations,
            vetoes=list(self.vetoes.names),
            model=self.run.model,
        )

    def efficiency(self, far_per_year: float, name: str, bins: int) -> EfficiencyAnswer:
        """Compute the efficiency in bins of a parameter.

        Args:
            far_per_year: False-alarm rate, per Julian year.
            name: The parameter, a key of `UNITS`.
            bins: Number of bins; SNR has fixed bins.

        Raises:
            ConflictError: The background is too short for the rate.
            InvalidError: An injection lacks the parameter.
        """
        threshold = self.threshold(far_per_year)
        settled = self.settled
        values = _values(settled, name)
        edges = SNR_EDGES if name == "snr" else even_edges(values, bins)
        return EfficiencyAnswer(
            by=name,
            unit=UNITS[name],
            far_per_year=far_per_year,
            threshold=finite(threshold),
            background_livetime=self.background.livetime,
            bins=_bins(settled, threshold, values, edges),
            vetoes=list(self.vetoes.names),
            model=self.run.model,
        )

    def volumes(self, session: Session, rates: Sequence[float]) -> VolumesAnswer:
        """Compute the sensitive volume at each rate for each pair of `MASS_PAIRS`.

        Args:
            session: Database session.
            rates: False-alarm rates, per Julian year.

        Raises:
            ConflictError: The background is too short for a rate, or the injections do
                not declare one population drawn in volume.
        """
        population, rejected = _population(session, self.run)
        analysed, draws = _analysed(self.injected, rejected)
        return VolumesAnswer(
            volumes=[
                answer
                for rate in rates
                for answer in self._volumes_at(rate, population, analysed, draws)
            ],
            injections=len(analysed),
            not_analysed=sum(i.fate == "not_analysed" for i in self.injected),
            rejected=rejected,
            draws=draws,
            max_redshift=population.max_redshift,
            background_livetime=self.background.livetime,
            vetoes=list(self.vetoes.names),
            model=self.run.model,
        )

    def _volumes_at(
        self,
        far_per_year: float,
        population: Population,
        analysed: Sequence[Injected],
        draws: float,
    ) -> list[VolumeAnswer]:
        """Sensitive volume at one rate, for each pair of `MASS_PAIRS`."""
        threshold = self.threshold(far_per_year)
        found = [injection for injection in analysed if injection.found(threshold)]
        mass_1, mass_2, redshift = (
            _values(found, name) for name in ("mass_1", "mass_2", "redshift")
        )
        answers = []
        for pair in MASS_PAIRS:
            try:
                volume = sensitive_volume(
                    population, draws, mass_1, mass_2, redshift, pair
                )
            except StatisticsError as error:
                raise ConflictError(str(error), "no-population") from None
            answers.append(
                VolumeAnswer(
                    far_per_year=far_per_year,
                    threshold=finite(threshold),
                    mass_1=pair[0],
                    mass_2=pair[1],
                    **asdict(volume)
                    | {"distance_error": finite(volume.distance_error)},
                )
            )
        return answers


def event_volumes(
    session: Session, injected: Sequence[Injected], run: RunRow
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Statistics of the injections with events, and the volume each represents.

    Args:
        session: Database session.
        injected: The run's injections.
        run: The run.

    Returns:
        Statistics [n], and comoving volumes weighted for time dilation, Mpc^3, [n].

    Raises:
        ConflictError: The injections do not declare one population drawn in volume.
    """
    population, rejected = _population(session, run)
    analysed, draws = _analysed(injected, rejected)
    matched = [injection for injection in analysed if injection.event is not None]
    statistics = [i.event[0].statistic for i in matched if i.event is not None]
    redshift = _values(matched, "redshift")
    volumes = volume_per_injection(population, max(draws, 1.0), redshift)
    return np.array(statistics), volumes


def _analysed(
    injected: Sequence[Injected], rejected: int
) -> tuple[list[Injected], float]:
    """Injections in analysed time, and the number of draws behind them.

    The other injections leave with their share of the rejected draws: sensitive volume
    refers to livetime, which their time is not part of.
    """
    analysed = [i for i in injected if i.settled and i.fate != "not_analysed"]
    return analysed, len(analysed) * (1 + rejected / max(1, len(injected)))


def _population(session: Session, run: RunRow) -> tuple[Population, int]:
    """Population of all injections of a run, and the number of rejected draws."""
    declared = session.scalars(
        select(InjectionSetRow.population).where(InjectionSetRow.run_id == run.id)
    ).all()
    bodies = [
        PopulationBody.model_validate(body) for body in declared if body is not None
    ]
    if not bodies or len(bodies) < len(declared):
        missing = f"{len(declared) - len(bodies)} that do not" if declared else "none"
        raise ConflictError(
            f"injections of run {run.id!r}: expected sets that declare a population, "
            f"uniform in volume, found {missing}; simulate signals with --volume",
            "no-population",
        )
    populations = {body.population() for body in bodies}
    if len(populations) > 1:
        raise ConflictError(
            f"injections of run {run.id!r}: expected one population, found "
            f"{len(populations)}; a volume needs sets drawn from the same population"
        )
    return populations.pop(), sum(body.rejected for body in bodies)


def _declared_population(row: InjectionSetRow) -> Population | None:
    if row.population is None:
        return None
    return PopulationBody.model_validate(row.population).population()


def _recovered(injection: Injected, threshold: float) -> Recovered:
    if injection.found(threshold):
        reason = "found"
    else:
        reason = "below_threshold" if injection.fate == "event" else injection.fate
    return Recovered(
        time_ns=injection.row.time_ns,
        time=seconds(injection.row.time_ns),
        set=injection.set.name,
        snr=injection.row.snr,
        parameters=injection.row.parameters,
        event=None if injection.event is None else event_answer(*injection.event),
        reason=reason,
    )


def _values(injected: Sequence[Injected], name: str) -> NDArray[np.float64]:
    """A parameter of each injection, [n].

    Raises:
        InvalidError: An injection lacks the parameter.
    """
    try:
        values = [_value(injection.row, name) for injection in injected]
    except KeyError as error:
        raise InvalidError(
            f"expected injections with the parameter {error.args[0]!r}, found some "
            "without; choose another parameter"
        ) from None
    return np.array(values, dtype=np.float64)


def _all_have(injected: Sequence[Injected], name: str) -> bool:
    needed = {"mass_1", "mass_2"} if name in {"chirp_mass", "total_mass"} else {name}
    return name == "snr" or all(needed <= i.row.parameters.keys() for i in injected)


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
    """Count found injections in bins of a parameter.

    Args:
        settled: The injections, [n].
        threshold: Smallest statistic that counts as found.
        values: The parameter of each injection, [n].
        edges: Edges of the bins, ascending.
    """
    found = [injection.found(threshold) for injection in settled]
    not_analysed = np.array([i.fate == "not_analysed" for i in settled], dtype=bool)
    bins = []
    for part in efficiency(values, found, edges):
        inside = (values >= part.low_edge) & (values < part.high_edge)
        fields = asdict(part) | {
            "high_edge": finite(part.high_edge),
            "efficiency": part.efficiency if part.injections else None,
            "not_analysed": int(np.count_nonzero(inside[not_analysed])),
        }
        bins.append(EfficiencyBinAnswer(**fields))
    return bins
