"""Cache of what each run's blocks and chunks add up to.

Blocks and chunks are never changed or removed, so the sums only need those that arrived
since. A change of the run's vetoes discards them.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chirpwatch.api.analysis.background_sums import (
    RunBackground,
    add_new_blocks,
)
from chirpwatch.api.analysis.stream_sums import (
    CHUNK,
    StreamSum,
    add_chunks,
    read_chunks,
)
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    load_vetoes,
)
from chirpwatch.api.contract.refusals import (
    ConflictError,
)
from chirpwatch.api.storage.tables import (
    BlockRow,
    ChunkRow,
    RunRow,
)
from chirpwatch.background import Background

CACHED_RUNS = 64
"""Runs that are cached: those that were read last."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Sums:
    """A run's sums under its vetoes.

    Attributes:
        vetoing: `RunRow.vetoing`, which counts changes of the vetoes.
        vetoes: The vetoes.
        background: Sum of the blocks.
        chunks: Number of chunks that `streams` include.
        streams: Sum for each stream with chunks, by the stream's database key.
    """

    vetoing: int
    vetoes: Vetoes
    background: RunBackground = field(default_factory=RunBackground)
    chunks: int = 0
    streams: Mapping[int, StreamSum] = field(default_factory=dict)


class _Entry:
    """A run's entry in the cache; its locks let one thread at a time update it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sums: _Sums | None = None
        self.chunks: NDArray[np.void] = np.empty(0, CHUNK)
        self.value_lock = threading.Lock()
        self.value: tuple[int, Any] | None = None


def background_run(session: Session, run: RunRow) -> RunRow:
    """The run whose background gives a run's false-alarm rates."""
    if run.background_run is None:
        return run
    return session.get_one(RunRow, run.background_run)


class RunCache:
    """Sums of the runs that were read last; safe to share between threads.

    The cache may be ahead of the caller's transaction. Counts and livetime that are
    returned together come from one snapshot.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def vetoes(self, session: Session, run: RunRow) -> Vetoes:
        """A run's vetoes."""
        entry = self._entry(run)
        with entry.lock:
            return _current(entry, session, run).vetoes

    def own_background(self, session: Session, run: RunRow) -> RunBackground:
        """The sum of a run's own blocks; may be empty."""
        newest = session.scalar(
            select(func.max(BlockRow.id)).where(BlockRow.run_id == run.id)
        )
        entry = self._entry(run)
        with entry.lock:
            sums = _current(entry, session, run)
            if (newest or 0) > sums.background.last_id:
                background = add_new_blocks(session, run, sums.background, sums.vetoes)
                sums = replace(sums, background=background)
                entry.sums = sums
            return sums.background

    def background(self, session: Session, run: RunRow) -> Background:
        """The background that gives a run's false-alarm rates; may be empty."""
        return self.own_background(session, background_run(session, run)).background

    def required_background(self, session: Session, run: RunRow) -> Background:
        """The background that gives a run's false-alarm rates.

        Raises:
            ConflictError: It has no livetime (yet).
        """
        background = self.background(session, run)
        if not background.livetime:
            raise ConflictError(
                f"background of run {run.id!r}: expected a livetime above 0 s, found "
                "0 s; a false-alarm rate needs timeslides with valid data",
                "insufficient-background",
            )
        return background

    def streams(self, session: Session, run: RunRow) -> Mapping[int, StreamSum]:
        """Sum for each of a run's streams with chunks, by the stream's database key."""
        entry = self._entry(run)
        with entry.lock:
            sums = _current(entry, session, run)
            chunks = _chunks(entry, session, run)
            # Chunks that another session added may be invisible to this one, which
            # could not look up their streams and events.
            newest = session.scalar(
                select(func.max(ChunkRow.id)).where(ChunkRow.run_id == run.id)
            )
            chunks = chunks[: np.searchsorted(chunks["id"], newest or 0, "right")]
            if chunks.size > sums.chunks:
                new = chunks[sums.chunks :]
                streams = add_chunks(session, run, sums.streams, new, sums.vetoes)
                sums = replace(sums, chunks=chunks.size, streams=streams)
            entry.sums = sums
            return sums.streams

    def chunks(self, session: Session, run: RunRow) -> NDArray[np.void]:
        """All chunks of a run, ``CHUNK`` [n], in order of arrival."""
        entry = self._entry(run)
        with entry.lock:
            return _chunks(entry, session, run)

    def memoised(self, run: RunRow, make: Callable[[], Value]) -> Value:
        """The result of `make`, called once for each revision of a run.

        There is one such value for each run, so all calls must pass the same `make`.
        """
        entry = self._entry(run)
        with entry.value_lock:
            if entry.value is None or entry.value[0] != run.revision:
                entry.value = run.revision, make()
            value: Value = entry.value[1]
            return value

    def _entry(self, run: RunRow) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(run.id, _Entry())
            self._entries.move_to_end(run.id)
            while len(self._entries) > CACHED_RUNS:
                self._entries.popitem(last=False)
            return entry


def _current(entry: _Entry, session: Session, run: RunRow) -> _Sums:
    """A run's sums, discarded if the session sees newer vetoes than theirs."""
    if entry.sums is None or entry.sums.vetoing < run.vetoing:
        entry.sums = _Sums(run.vetoing, load_vetoes(session, run))
    return entry.sums


def _chunks(entry: _Entry, session: Session, run: RunRow) -> NDArray[np.void]:
    """All chunks of a run, after reading those that arrived since."""
    last_id = int(entry.chunks["id"][-1]) if entry.chunks.size else 0
    new = read_chunks(session, run, last_id)
    if new.size:
        entry.chunks = np.concatenate([entry.chunks, new])
    return entry.chunks
