"""A local copy of the background, so that no candidate waits for the API."""

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
"""Most background events that are copied."""

PAGE = 1000
"""Runs in a request to the API."""


def choose(
    client: ApiClient, model: str, geometry: str, name: str | None = None
) -> str | None:
    """Choose the run whose background ranks a model's candidates.

    Args:
        client: The results API.
        model: Digest of the model.
        geometry: Digest of the geometry.
        name: Identifier of a run; None: the run with the most background livetime.

    Returns:
        The run's identifier; None if no run has background of this model.

    Raises:
        ApiError: The named run has another model or geometry, or the API failed.
    """
    if name is not None:
        named = client.run(name)
        if (named.model, named.geometry_digest) != (model, geometry):
            raise ApiError(
                f"background run {name}: expected model {model} and geometry "
                f"{geometry}, found {named.model} and {named.geometry_digest}; name "
                "a run of the served model, or no run"
            )
        return name
    best, longest = None, 0.0
    offset = 0
    while True:
        page = client.runs(limit=PAGE, offset=offset)
        for run in page.runs:
            if (run.model, run.geometry_digest) != (model, geometry):
                continue
            livetime = client.run(run.id).background.livetime
            if livetime > longest:
                best, longest = run.id, livetime
        offset += len(page.runs)
        if not page.runs or offset >= page.total:
            return best


class BackgroundCopy:
    """The loudest background events of a run, and its livetime.

    Args:
        run: Identifier of the run.
        livetime: Livetime of the run's background, s.
        loud: Statistics of its loudest events.
        floor: Statistic from which on the copy is complete.
    """

    def __init__(
        self, run: str, livetime: float, loud: NDArray[Any], floor: float
    ) -> None:
        self.run, self.livetime = run, livetime
        self._loud, self._floor = loud, floor
        self._background = Background.of(loud, livetime)

    @classmethod
    def fetch(cls, client: ApiClient, run: str) -> Self:
        """Copy a run's background from the API.

        Raises:
            ApiError: The API failed.
            StatisticsError: The run has no background livetime.
        """
        curve = client.ifar(run)
        # The API stores single events only from the curve's floor on.
        limit = curve.floor
        stored = curve.events if limit is None else client.far(run, limit).count
        count = max(1, min(stored, LOUDEST))
        events = client.events(run, "background", limit=count).events
        loud = np.array([event.statistic for event in events])
        complete = loud.size >= curve.events
        floor = -np.inf if complete else float(loud.min())
        return cls(run, curve.livetime, loud, floor)

    def save(self, path: Path, model: str, geometry: str) -> None:
        """Save the copy to a file, for a search that starts while the API is down."""
        names = {"model": model, "geometry": geometry, "run": self.run}
        numbers = {"livetime": self.livetime, "floor": self._floor}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, loud=self._loud, **names, **numbers)

    @classmethod
    def load(cls, path: Path, model: str, geometry: str) -> Self | None:
        """Load a copy; None if the file has none for this model and geometry."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if (str(arrays["model"]), str(arrays["geometry"])) != (model, geometry):
                    return None
                livetime, floor = float(arrays["livetime"]), float(arrays["floor"])
                return cls(str(arrays["run"]), livetime, arrays["loud"], floor)
        except (OSError, ValueError, KeyError, BadZipFile, StatisticsError):
            return None

    def threshold(self, far_per_year: float) -> float:
        """Smallest statistic with at most a false-alarm rate, per Julian year.

        Raises:
            StatisticsError: The background is too short for the rate, or the rate is
                reached below the copy's floor.
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
        """False-alarm rate of a statistic at or above a ``threshold``."""
        return self._background.far(statistic)


def find(
    client: ApiClient, model: str, geometry: str, name: str | None
) -> BackgroundCopy | None:
    """Fetch a model's background; None if no run has any, or the API refuses it.

    Args:
        client: The results API.
        model: Digest of the model.
        geometry: Digest of the geometry.
        name: See ``choose``.

    Raises:
        ApiError: See ``choose``.
    """
    try:
        run = choose(client, model, geometry, name)
        return None if run is None else BackgroundCopy.fetch(client, run)
    except (ApiRefused, StatisticsError):
        return None
