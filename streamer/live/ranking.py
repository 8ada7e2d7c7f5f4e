"""How candidates are ranked: the background, looked for now and then."""

import contextlib
import logging
import time
from pathlib import Path

import numpy as np

from chirpwatch.api.client import ApiClient
from chirpwatch.errors import ApiError, StatisticsError
from chirpwatch.streamer.live.background import BackgroundCopy, find
from chirpwatch.streamer.live.metrics import LiveMetrics
from chirpwatch.streamer.live.settings import RankingSettings

LOOK_LENGTH = 60.0
"""Time between two looks for background while there is none, s."""

REFRESH_LENGTH = 600.0
"""Time between two looks once there is some, s."""

log = logging.getLogger("chirpwatch.live")


class Ranking:
    """The background of a model, and the threshold that it gives.

    Args:
        settings: What a candidate is.
        client: The results API.
        path: File with a copy, for when the API cannot be reached.
        metrics: Where the livetime is published.
        model: Digest of the served model.
        geometry: Digest of its geometry.

    Attributes:
        background: The background; None where there is none to rank by.
        threshold: Statistic that a candidate must reach; infinite without background.
    """

    def __init__(
        self,
        settings: RankingSettings,
        client: ApiClient,
        path: Path,
        metrics: LiveMetrics,
        model: str,
        geometry: str,
    ) -> None:
        self._settings, self._client, self._path = settings, client, path
        self._metrics, self._model, self._geometry = metrics, model, geometry
        self._reported = ""
        self.background: BackgroundCopy | None = None
        self.threshold = np.inf
        self._refresh()

    def refresh_if_due(self) -> None:
        """Look for more background, if the last look was long ago."""
        pause = LOOK_LENGTH if self.background is None else REFRESH_LENGTH
        if time.monotonic() - self._looked > pause:
            self._refresh()

    def _refresh(self) -> None:
        self._looked = time.monotonic()
        background = self._find()
        self.threshold = np.inf
        state = "no background to rank candidates by"
        if background is not None:
            try:
                self.threshold = background.threshold(self._settings.far_per_year)
                state = (
                    f"candidates are ranked by {background.livetime:g} s of background "
                    f"of run {background.run}: from statistic {self.threshold:.2f} on"
                )
            except StatisticsError as error:
                # Scores go on without; candidates cannot be ranked.
                state = f"no background to rank candidates by: {error}"
                background = None
        self.background = background
        livetime = background.livetime if background else 0
        self._metrics.background.set(livetime)
        if state != self._reported:
            log.log(
                logging.INFO if background else logging.WARNING,
                "%s",
                state,
                extra={"background_s": livetime},
            )
        self._reported = state

    def _find(self) -> BackgroundCopy | None:
        """The background of the model, or the copy of an earlier one."""
        wanted = self._model, self._geometry
        try:
            found = find(self._client, *wanted, self._settings.background_run)
        except ApiError as error:
            log.warning("the API cannot be asked for background: %s", error)
            return BackgroundCopy.load(self._path, *wanted)
        if found is not None:
            with contextlib.suppress(OSError):
                found.save(self._path, *wanted)
        return found
