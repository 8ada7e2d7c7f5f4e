"""The background that candidates are ranked by: a copy, so that none waits for it."""

from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from chirpwatch.api.client import (
    ApiClient,
    ApiRefused,
)
from chirpwatch.atomic import replacing
from chirpwatch.background import Background, FalseAlarmRate
from chirpwatch.errors import (
    ApiError,
    StatisticsError,
)

LOUDEST = 10_000
"""Background events that are copied one by one."""

PAGE = 1000


def choose(
    client: ApiClient, model: str, geometry: str, name: str | None = None
) -> str | None:
    """The run whose background ranks events of a model.

    Args:
        client: The results API.
        model: Digest of the model.
        geometry: Digest of the geometry.
        name: The run that is wanted; none: the one with the most background.

    Returns:
        Its identifier; none where no run has background of this model.

    Raises:
        ApiError: The run that is wanted is of another model or geometry; or see
            ``ApiClient``.
    """
    if name is not None:
        run = client.run(name)
        if (run.model, run.geometry_digest) != (model, geometry):
            raise ApiError(
                f"background run {name}: expected model {model} and geometry "
                f"{geometry}, found {run.model} and {run.geometry_digest}; background "
                "of another says nothing"
            )
        return name
    best, most = None, 0.0
    offset = 0
    while True:
        page = client.runs(limit=PAGE, offset=offset)
        for one in page.runs:
            if (one.model, one.geometry_digest) != (model, geometry):
                continue
            livetime = client.run(one.id).background.livetime
            if livetime > most:
                best, most = one.id, livetime
        offset += len(page.runs)
        if not page.runs or offset >= page.total:
            return best


class BackgroundCopy:
    """The loudest background events of a run, and its livetime.

    Args:
        run: The run.
        livetime: Livetime of its background, s.
        loud: Statistics of its loudest events.
        floor: Statistic from which on all events are among them.
    """

    def __init__(
        self, run: str, livetime: float, loud: NDArray[Any], floor: float
    ) -> None:
        self.run, self.livetime = run, livetime
        self._loud, self._floor = loud, floor
        self._background = Background.of(loud, livetime)

    @classmethod
    def fetch(cls, client: ApiClient, run: str) -> Self:
        """Copy the background of a run.

        Raises:
            ApiError: See ``ApiClient``.
            StatisticsError: The run has no background livetime.
        """
        curve = client.ifar(run)
        # From the curve's floor on the service knows the events one by one.
        limit = curve.floor
        known = curve.events if limit is None else client.far(run, limit).count
        count = max(1, min(known, LOUDEST))
        events = client.events(run, "background", limit=count).events
        loud = np.array([event.statistic for event in events])
        everything = loud.size >= curve.events
        floor = -np.inf if everything else float(loud.min())
        return cls(run, curve.livetime, loud, floor)

    def save(self, path: Path, model: str, geometry: str) -> None:
        """Keep it in a file, for a search that begins while nobody can be asked."""
        known = {"model": model, "geometry": geometry, "run": self.run}
        numbers = {"livetime": self.livetime, "floor": self._floor}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, loud=self._loud, **known, **numbers)

    @classmethod
    def load(cls, path: Path, model: str, geometry: str) -> Self | None:
        """What was kept of this model and geometry; none where nothing was."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                if (str(kept["model"]), str(kept["geometry"])) != (model, geometry):
                    return None
                numbers = float(kept["livetime"]), kept["loud"], float(kept["floor"])
                return cls(str(kept["run"]), *numbers)
        except (OSError, ValueError, KeyError, BadZipFile, StatisticsError):
            return None

    def threshold(self, far_per_year: float) -> float:
        """Smallest statistic with such a rate.

        Raises:
            StatisticsError: The background is too short for the rate, or the rate is so
                high that quieter events than are known here have it.
        """
        threshold = self._background.threshold_at_far(far_per_year)
        if threshold < self._floor:
            lowest = self._background.far(self._floor).far_per_year
            raise StatisticsError(
                f"expected a false-alarm rate below {lowest:.4g} per year, that of the "
                f"{LOUDEST}th loudest background event of run {self.run}, found "
                f"{far_per_year:.4g}"
            )
        return threshold

    def far(self, statistic: float) -> FalseAlarmRate:
        """False-alarm rate of a statistic that has at most the rate of a threshold."""
        return self._background.far(statistic)


def find(
    client: ApiClient, model: str, geometry: str, name: str | None
) -> BackgroundCopy | None:
    """The background of a model; none where there is none, or none to be had now."""
    try:
        run = choose(client, model, geometry, name)
        return None if run is None else BackgroundCopy.fetch(client, run)
    except (ApiRefused, StatisticsError):
        return None
