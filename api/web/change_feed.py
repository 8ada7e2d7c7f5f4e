"""Feed of the runs that change, for live pages (server-sent events)."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping

from sqlalchemy import select

from chirpwatch.api.storage.database import Database
from chirpwatch.api.storage.tables import RunRow

POLL_INTERVAL = 0.5
"""Time between two queries while a client listens, s."""

KEEP_ALIVE_INTERVAL = 15.0
"""Keep-alive interval, s; must be below the idle time-out of any proxy in front."""

WATCHED_RUNS = 200
"""Runs that are watched: those that changed last."""


class ChangeFeed:
    """Polls the revisions of runs, and reports changes to all clients that listen.

    Args:
        database: Database with the runs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revisions: dict[str, int] = {}
        self._polled = asyncio.Condition()
        self._listeners = 0
        self._poller: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def listeners(self) -> int:
        """Number of clients that listen."""
        return self._listeners

    def close(self) -> None:
        """End all streams soon; may be called from a signal handler."""
        self._closing = True

    async def listen(self) -> AsyncIterator[Mapping[str, int]]:
        """Yield runs with their revisions: first all, then those that change.

        An empty mapping is a keep-alive.
        """
        self._listeners += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        reported: dict[str, int] = {}
        try:
            while not self._closing:
                changed = dict(self._revisions.items() - reported.items())
                reported |= changed
                yield changed
                await self._change_since(reported)
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._poller.cancel()
                self._poller = None

    async def _change_since(self, reported: Mapping[str, int]) -> None:
        """Wait until a revision differs from `reported`, or a keep-alive is due."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_INTERVAL), self._polled:
                await self._polled.wait_for(
                    lambda: self._closing or self._revisions.items() - reported.items()
                )
        except TimeoutError:
            pass

    async def _poll(self) -> None:
        while not self._closing:
            try:
                self._revisions = await asyncio.to_thread(self._read_revisions)
            except Exception as error:
                # Keep polling: the database may come back. Other requests report the
                # error to their clients.
                logging.getLogger("uvicorn.error").warning("live: %r", error)
            async with self._polled:
                self._polled.notify_all()
            await asyncio.sleep(POLL_INTERVAL)
        async with self._polled:
            self._polled.notify_all()

    def _read_revisions(self) -> dict[str, int]:
        with self._database.reading() as session:
            rows = session.execute(
                select(RunRow.id, RunRow.revision)
                .order_by(RunRow.updated.desc(), RunRow.id)
                .limit(WATCHED_RUNS)
            )
            return {row.id: row.revision for row in rows}


async def event_stream(feed: ChangeFeed) -> AsyncIterator[str]:
    """Format a feed's changes as server-sent events for one client."""
    async for changed in feed.listen():
        # The keep-alive is an event, since pages cannot see comments. It has data,
        # since browsers drop events without.
        name = "runs" if changed else "alive"
        yield f"event: {name}\ndata: {json.dumps(changed)}\n\n"
