"""One gap-free stretch of live strain through the served detector."""

import contextlib
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chirpwatch.backoff import Backoff
from chirpwatch.errors import ServerError
from chirpwatch.streamer.client import (
    Detector,
    OpenSequence,
    Scores,
    since,
)

log = logging.getLogger("chirpwatch.live")

CATCH_UP_STRIDES = 512
"""Strides in a request where much waits: 64 s."""

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Between two tries while the server is away, s."""


class LiveSequence:
    """Scores strain as it comes; a context manager.

    Where the server loses the sequence, or is away, it is begun anew from the strain
    that is kept, early enough for the scores to be those of an undisturbed one, to the
    last bit.

    Args:
        detector: The served detector.
        on_failure: Called with each failure of the server.
        wait: Waits for a time, s; true where there is no more sense in it.
        patience: Longest time that the server may be away, s.
    """

    def __init__(
        self,
        detector: Detector,
        on_failure: Callable[[ServerError], None],
        wait: Callable[[float], bool],
        patience: float = 600.0,
    ) -> None:
        self._detector, self._on_failure = detector, on_failure
        self._wait, self._patience = wait, patience
        ifos = len(detector.geometry.ifos)
        self._offsets = (0,) * ifos
        self._kept = np.empty((ifos, 0), np.float32)
        self._first = 0  # stride of `_kept`'s first sample
        self._wanted = 0  # stride whose score comes next
        self._open: OpenSequence | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open is None:
            return
        with contextlib.suppress(ServerError):
            if kind is None and self._wanted:
                # The server keeps a sequence until it is told that it ended.
                size = self._detector.geometry.stride_size
                nothing = np.zeros((1, len(self._offsets), size), np.float32)
                self._open.send(nothing, self._wanted, self._wanted + 1, end=True)
                self._open.receive()
        self._close()

    def push(self, strain: NDArray[Any]) -> Scores:
        """Score the next strain.

        Args:
            strain: [ifos, samples], whole strides.

        Raises:
            ServerError: The server was away for too long.
            ModelError: It came back with another model.
        """
        size = self._detector.geometry.stride_size
        self._kept = np.concatenate([self._kept, strain], axis=1)
        stop = self._first + self._kept.shape[1] // size
        deadline = time.monotonic() + self._patience
        backoff, failures = Backoff(FIRST_PAUSE, LAST_PAUSE), 0
        while True:
            try:
                scores = self._score(stop)
            except ServerError as error:
                self._close()
                failures += 1
                if failures == 1:
                    log.warning("Triton failed and is asked again: %s", error)
                self._on_failure(error)
                if self._wait(backoff.next()) or time.monotonic() > deadline:
                    raise
                with contextlib.suppress(ServerError):
                    self._detector.check_unchanged(error)
            else:
                break
        if failures:
            log.info("Triton answers again")
        self._wanted = stop
        first = max(self._first, self._detector.burn_in(stop, self._offsets))
        self._kept = self._kept[:, (first - self._first) * size :]
        self._first = first
        return scores

    def _score(self, stop: int) -> Scores:
        """Scores of the strides that are wanted up to `stop`."""
        size = self._detector.geometry.stride_size
        begin = self._wanted
        if self._open is None:
            begin = max(0, self._detector.burn_in(self._wanted, self._offsets))
            self._open = OpenSequence(self._detector, self._offsets).__enter__()
        parts = []
        while begin < stop:
            end = min(begin + CATCH_UP_STRIDES, stop)
            strain = self._kept[
                :, (begin - self._first) * size : (end - self._first) * size
            ]
            self._open.send(strain[None], begin, end)
            scores = self._open.receive()
            if end > self._wanted:
                parts.append(since(scores, self._wanted))
            begin = end
        return Scores(
            self._wanted,
            np.concatenate([part.score for part in parts], axis=1),
            np.concatenate([part.delay for part in parts], axis=1),
            np.concatenate([part.valid for part in parts]),
            sum(part.latency for part in parts),
        )

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None
