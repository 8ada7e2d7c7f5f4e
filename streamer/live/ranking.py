"""Keeps the background that ranks candidates up to date."""

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
"""Time between two requests for background while none is available, s."""

REFRESH_LENGTH = 600.0
"""Time between two requests once a background is available, s."""

log = logging.getLogger("chirpwatch.live")


class LiveRanking:
    """The background of a model, and the candidates' threshold from it.

    Args:
        settings: How candidates are ranked.
        client: The results API.
        path: File for a copy, used while the API is unreachable.
        metrics: Metrics with the background's livetime.
        model: Digest of the served model.
        geometry: Digest of the model's geometry.

    Attributes:
        background: The background; None if no usable background is available.
        threshold: Smallest statistic of a candidate; infinite without background.
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
        """Fetch the background again if the last fetch was long ago."""
        pause = LOOK_LENGTH if self.background is None else REFRESH_LENGTH
        if time.monotonic() - self._refreshed > pause:
            self._refresh()

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        background = self._find()
        self.threshold = np.inf
        state = "no background: no candidates until a background run is available"
        if background is not None:
            try:
                self.threshold = background.threshold(self._settings.far_per_year)
                state = (
                    f"candidates are ranked with run {background.run}, "
                    f"{background.livetime:g} s of background: from statistic "
                    f"{self.threshold:.2f} on"
                )
            except StatisticsError as error:
                # The search still scores; candidates cannot be ranked.
                state = f"no candidates, the background does not suffice: {error}"
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
        """The model's background from the API, or the stored copy."""
        digests = self._model, self._geometry
        try:
            background = find(self._client, *digests, self._settings.background_run)
        except ApiError as error:
            log.warning("the background cannot be fetched from the API: %s", error)
            return BackgroundCopy.load(self._path, *digests)
        if background is not None:
            with contextlib.suppress(OSError):
                background.save(self._path, *digests)
        return background
