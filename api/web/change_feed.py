"""Which runs change, told to everybody who listens (server-sent events)."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping

from sqlalchemy import select

from chirpwatch.api.storage.database import (
    Database,
    RunRow,
)

INTERVAL = 0.5
"""Time between two looks at the database while somebody listens, s."""

HEARTBEAT = 15.0
"""Longest silence, s: shorter than what stands in between waits before it hangs up."""

RUNS = 200
"""Runs that are watched: those that changed last."""


class Changes:
    """Watches the revisions of runs; one look serves all who listen.

    Args:
        database: Where the runs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revisions: dict[str, int] = {}
        self._looked = asyncio.Condition()
        self._listeners = 0
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return self._listeners

    def close(self) -> None:
        """Let everybody who listens go, soon; may be called by a signal's handler."""
        self._closing = True

    async def listen(self) -> AsyncIterator[Mapping[str, int]]:
        """Revisions of the runs that changed: at first of all, then as they change.

        An empty one is a sign of life.
        """
        self._listeners += 1
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        told: dict[str, int] = {}
        try:
            while not self._closing:
                news = dict(self._revisions.items() - told.items())
                told |= news
                yield news
                await self._next(told)
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._watcher.cancel()
                self._watcher = None

    async def _next(self, told: Mapping[str, int]) -> None:
        """Wait until there is something else than what was told, or for a while."""
        try:
            async with asyncio.timeout(HEARTBEAT), self._looked:
                await self._looked.wait_for(
                    lambda: self._closing or self._revisions.items() - told.items()
                )
        except TimeoutError:
            pass

    async def _watch(self) -> None:
        while not self._closing:
            try:
                self._revisions = await asyncio.to_thread(self._look)
            except Exception as error:
                # The database may come back; who asks it for more is told the fault.
                logging.getLogger("uvicorn.error").warning("live: %r", error)
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(INTERVAL)
        async with self._looked:
            self._looked.notify_all()

    def _look(self) -> dict[str, int]:
        with self._database.reading() as session:
            rows = session.execute(
                select(RunRow.id, RunRow.revision)
                .order_by(RunRow.updated.desc(), RunRow.id)
                .limit(RUNS)
            )
            return {row.id: row.revision for row in rows}


async def event_stream(changes: Changes) -> AsyncIterator[str]:
    """What is sent to one listener."""
    async for news in changes.listen():
        # An event, for a page hears no comments; without data browsers drop it.
        yield f"event: {'runs' if news else 'alive'}\ndata: {json.dumps(news)}\n\n"
