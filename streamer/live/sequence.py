"""A live stretch as a sequence of requests to the served model."""

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
    OpenSequence,
    ScoreClient,
    Scores,
    since,
)

log = logging.getLogger("chirpwatch.live")

CATCH_UP_STRIDES = 512
"""Most strides in a request, when a backlog waits: 64 s."""

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""First and last back-off pause while the server is unreachable, s."""


class LiveSequence:
    """Scores strain as it arrives; a context manager.

    If the server loses the sequence or is unreachable, a new sequence is started from
    the buffered strain. It starts so early that its scores are bitwise equal to those
    of an undisturbed sequence.

    Args:
        score_client: Client of the served model.
        on_failure: Called with each failure of the server.
        wait: Waits for a time, s; returns whether to give up.
        patience: Longest time that the server may be unreachable, s.
    """

    def __init__(
        self,
        score_client: ScoreClient,
        on_failure: Callable[[ServerError], None],
        wait: Callable[[float], bool],
        patience: float = 600.0,
    ) -> None:
        self._score_client, self._on_failure = score_client, on_failure
        self._wait, self._patience = wait, patience
        ifos = len(score_client.geometry.ifos)
        self._offsets = (0,) * ifos
        self._strain = np.empty((ifos, 0), np.float32)
        self._first = 0  # stride of `_strain`'s first sample
        self._next = 0  # stride of the next score
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
            if kind is None and self._next:
                # The server keeps a sequence's state until a request marks its end.
                size = self._score_client.geometry.stride_size
                silence = np.zeros((1, len(self._offsets), size), np.float32)
                self._open.send(silence, self._next, self._next + 1, end=True)
                self._open.receive()
        self._close()

    def push(self, strain: NDArray[Any]) -> Scores:
        """Score the next strain.

        Args:
            strain: [ifos, samples], whole strides.

        Returns:
            Their scores, with one row.

        Raises:
            ServerError: The server was unreachable for too long.
            ModelError: The server now serves another model.
        """
        size = self._score_client.geometry.stride_size
        self._strain = np.concatenate([self._strain, strain], axis=1)
        stop = self._first + self._strain.shape[1] // size
        deadline = time.monotonic() + self._patience
        backoff, failures = Backoff(FIRST_PAUSE, LAST_PAUSE), 0
        while True:
            try:
                scores = self._score(stop)
            except ServerError as error:
                self._close()
                failures += 1
                if failures == 1:
                    log.warning("Triton failed, trying again: %s", error)
                self._on_failure(error)
                if self._wait(backoff.next()) or time.monotonic() > deadline:
                    raise
                with contextlib.suppress(ServerError):
                    self._score_client.check_unchanged(error)
            else:
                break
        if failures:
            log.info("Triton answers again")
        self._next = stop
        first = max(self._first, self._score_client.burn_in(stop, self._offsets))
        self._strain = self._strain[:, (first - self._first) * size :]
        self._first = first
        return scores

    def _score(self, stop: int) -> Scores:
        """Score the strides from the next one up to `stop`."""
        size = self._score_client.geometry.stride_size
        begin = self._next
        if self._open is None:
            begin = max(0, self._score_client.burn_in(self._next, self._offsets))
            self._open = OpenSequence(self._score_client, self._offsets).__enter__()
        parts = []
        while begin < stop:
            end = min(begin + CATCH_UP_STRIDES, stop)
            strain = self._strain[
                :, (begin - self._first) * size : (end - self._first) * size
            ]
            self._open.send(strain[None], begin, end)
            scores = self._open.receive()
            if end > self._next:
                parts.append(since(scores, self._next))
            begin = end
        return Scores(
            self._next,
            np.concatenate([part.score for part in parts], axis=1),
            np.concatenate([part.delay for part in parts], axis=1),
            np.concatenate([part.valid for part in parts]),
            sum(part.latency for part in parts),
        )

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None
