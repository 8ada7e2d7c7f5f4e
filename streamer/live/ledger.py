"""Database of candidates and their deliveries, so that none is sent twice."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chirpwatch.errors import ConfigurationError

DUPLICATE_LENGTH = 1.0
"""Largest difference in time at which a candidate is a duplicate, s."""


@dataclass(frozen=True)
class Candidate:
    """A candidate, as the sinks receive it.

    Attributes:
        id: Identifier, the same at every sink.
        run: Identifier of the run in the results API.
        time_ns: GPS time of the merger at the first detector, ns.
        statistic: Detection statistic.
        far_per_year: False-alarm rate, per Julian year.
        saturated: Whether the rate is an upper limit, set by the livetime.
        background_run: Run whose background the rate rests on.
        background_livetime: Livetime of that background, s.
        model: Digest of the model.
        ifos: Detectors.
        simulated: Whether the strain is simulated.
    """

    id: str
    run: str
    time_ns: int
    statistic: float
    far_per_year: float
    saturated: bool
    background_run: str
    background_livetime: float
    model: str
    ifos: tuple[str, ...]
    simulated: bool

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON, with the additional field `time`, GPS s."""
        return asdict(self) | {"time": self.time_ns / 1e9, "ifos": list(self.ifos)}


_TABLES = """
CREATE TABLE IF NOT EXISTS candidates (
    number INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_time ON candidates (time_ns);
CREATE TABLE IF NOT EXISTS told (
    candidate INTEGER NOT NULL REFERENCES candidates (number),
    sink TEXT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (candidate, sink)
);
"""


class Ledger:
    """SQLite database of candidates and their delivery states; a context manager.

    Each candidate has a state for each sink:

    - ``waiting``: not delivered yet.
    - ``sending``: from before the request starts until its outcome is stored.
    - ``told``: delivered.
    - ``refused``: the sink rejected it.
    - ``unknown``: it was ``sending`` when the process ended, or its delivery failed in
      an unclear way. It may have arrived, and is not sent again.

    Several threads may share a ledger.

    Args:
        path: The SQLite file; created if it does not exist.
        sinks: Names of the sinks.

    Raises:
        ConfigurationError: On entry: the file cannot be opened.
    """

    def __init__(self, path: Path, sinks: tuple[str, ...]) -> None:
        self._path, self._sinks = path, sinks
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._db = sqlite3.connect(
                self._path, check_same_thread=False, isolation_level=None
            )
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            self._db.executescript(_TABLES)
            self._db.execute(
                "UPDATE told SET state = 'unknown' WHERE state = 'sending'"
            )
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"{self._path}: expected a database of candidates, but it cannot be "
                f"opened ({error}); check its permissions, or move it away to begin a "
                "new one"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    def add(self, candidate: Candidate) -> bool:
        """Store a candidate; return False if it is stored already."""
        duplicate_ns = round(DUPLICATE_LENGTH * 1e9)
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            duplicate = self._db.execute(
                "SELECT 1 FROM candidates WHERE time_ns BETWEEN ? AND ?",
                (candidate.time_ns - duplicate_ns, candidate.time_ns + duplicate_ns),
            ).fetchone()
            if duplicate:
                return False
            body = json.dumps(candidate.as_json())
            number = self._db.execute(
                "INSERT INTO candidates (time_ns, body) VALUES (?, ?)",
                (candidate.time_ns, body),
            ).lastrowid
            self._db.executemany(
                "INSERT INTO told (candidate, sink, state) VALUES (?, ?, 'waiting')",
                [(number, sink) for sink in self._sinks],
            )
        return True

    def waiting(self, sink: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and body of each candidate that waits for a sink, in order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT number, body FROM candidates JOIN told ON candidate = number "
                "WHERE sink = ? AND state = 'waiting' ORDER BY number",
                (sink,),
            ).fetchall()
        for number, body in rows:
            yield number, json.loads(body)

    def mark(self, number: int, sink: str, state: str, detail: str = "") -> None:
        """Set a candidate's delivery state at a sink."""
        with self._lock, self._db:
            self._db.execute(
                "UPDATE told SET state = ?, detail = ? "
                "WHERE candidate = ? AND sink = ?",
                (state, detail[:500], number, sink),
            )

    def states(self) -> list[tuple[str, str, int]]:
        """Number of candidates in each state, as (sink, state, count)."""
        with self._lock:
            return self._db.execute(
                "SELECT sink, state, count(*) FROM told GROUP BY sink, state"
            ).fetchall()
