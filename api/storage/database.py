"""Tables, and the two ways to reach them: reading, and writing whole or not at all.

SQLite by default; nothing here is SQLite's own but the pragmas, so that a PostgreSQL
URL works as well.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import Connection, Dialect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import chirpwatch
from chirpwatch.errors import ApiError

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x63686972
"""Number of PostgreSQL's lock that is held while tables are changed."""

MAX_CONNECTIONS = 40
"""As many as threads that the service answers with."""

BUSY_TIMEOUT = 15.0
"""Longest wait for an SQLite file that another connection holds, s."""

# SQLite numbers its rows in columns of type INTEGER only, which holds 64 bits there.
BigKey = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of the tables. Times are GPS nanoseconds in 64-bit integers."""

    type_annotation_map = {dict[str, Any]: JSON, float: Double, bytes: LargeBinary}  # noqa: RUF012


class UtcTime(TypeDecorator[datetime]):
    """A moment; SQLite forgets the zone, which is always UTC here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self, value: datetime | None, _dialect: Dialect
    ) -> datetime | None:
        """Give the moment its zone back, or turn it from the database's own."""
        if value is None or value.tzinfo is not None:
            return value if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class RunRow(Base):
    """A run; `revision` counts the changes of its results, `vetoing` of its vetoes.

    Its rates rest on its own background, or on that of `background_run`.
    """

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(64))
    geometry: Mapped[str] = mapped_column(Text)
    simulated: Mapped[bool] = mapped_column(Boolean)
    data: Mapped[str] = mapped_column(Text)
    planned_background: Mapped[float | None]
    background_run: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    state: Mapped[str] = mapped_column(String(16), default="running")
    message: Mapped[str | None] = mapped_column(Text)
    throughput: Mapped[float | None]
    latency_ms: Mapped[dict[str, Any] | None]
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    vetoing: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[datetime] = mapped_column(
        UtcTime, default=lambda: datetime.now(UTC)
    )
    updated: Mapped[datetime] = mapped_column(
        UtcTime,
        default=lambda: datetime.now(UTC),
        onupdate=lambda: datetime.now(UTC),
    )


class StreamRow(Base):
    """One sequence of scores of a run.

    `shifts` and `relative_shifts` (less the first detector's shift, `origin_ns`) are
    canonical JSON, to be compared: what the detectors are shifted together pairs the
    same data, only at other times.
    """

    __tablename__ = "streams"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    shifts: Mapped[str] = mapped_column(Text)
    relative_shifts: Mapped[str] = mapped_column(Text)
    origin_ns: Mapped[int] = mapped_column(BigInteger)
    segment: Mapped[str] = mapped_column(String(64))
    duration: Mapped[float]
    injection_set: Mapped[str | None] = mapped_column(String(64))
    cluster_length: Mapped[float]


class ChunkRow(Base):
    """Scores of consecutive strides, little-endian float32, and their validity bits.

    `run_id` is that of its stream, here to be looked up by. `valid_count` is what
    livetime is summed from; `lowest` and `highest` are the extremes of the valid
    scores, none without any; `arrived` is when the chunk came, Unix time, s.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("stream_id", "number"),
        Index("chunks_by_time", "stream_id", "stop_ns"),
        Index("chunks_by_arrival", "run_id", "id"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    stride_ns: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(Integer)
    valid_count: Mapped[int] = mapped_column(Integer)
    event_count: Mapped[int] = mapped_column(Integer)
    lowest: Mapped[float | None]
    highest: Mapped[float | None]
    arrived: Mapped[float] = mapped_column(default=time.time)
    last: Mapped[bool] = mapped_column(Boolean)
    digest: Mapped[str] = mapped_column(String(64))
    valid: Mapped[bytes]
    scores: Mapped[bytes]


class EventRow(Base):
    """An event; run and kind are those of its stream, here to be looked up by."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_statistic", "run_id", "kind", "statistic"),
        Index("events_by_time", "stream_id", "time_ns"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str] = mapped_column(String(16))
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunks.id"), index=True)
    time_ns: Mapped[int] = mapped_column(BigInteger)
    statistic: Mapped[float]


Columns = Row[*tuple[Any, ...]]
"""A row of some columns, whose names say what they are."""

EVENT = np.dtype(
    [("slide", "<i4"), ("stride", "<i4"), ("delay", "<f4"), ("statistic", "<f4")]
)
"""A background event in `BlockRow.events`; `slide` counts from 0, `delay` is in s."""


class BlockRow(Base):
    """Background of one stretch of strain at many timeslides.

    Packed, little-endian: for each slide `shifts` (int64, ns, one for each detector of
    the run's geometry), `valid_counts` (int32), `event_counts` (int32) and `loudest`
    (float32, NaN without events); `events` (see `EVENT`); `valid` with slide, begin and
    end of each range of strides (int32). `peak`, `floor`, `loud` (float32) and `quiet`
    (int32) are the statistics of all events as `chirpwatch.background.Background` keeps
    them, `floor` none where `loud` are all. What is asked for most stands before the
    large columns, which SQLite reads through to get to the later ones.
    """

    __tablename__ = "blocks"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        Index("blocks_by_time", "run_id", "start_ns"),
        Index("blocks_by_arrival", "run_id", "id"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    stride_ns: Mapped[int] = mapped_column(BigInteger)
    strides: Mapped[int] = mapped_column(Integer)
    slides: Mapped[int] = mapped_column(Integer)
    event_count: Mapped[int] = mapped_column(Integer)
    valid_count: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    peak: Mapped[float | None]
    floor: Mapped[float | None]
    shifts: Mapped[bytes]
    loud: Mapped[bytes]
    quiet: Mapped[bytes]
    valid_counts: Mapped[bytes]
    event_counts: Mapped[bytes]
    loudest: Mapped[bytes]
    events: Mapped[bytes]
    valid: Mapped[bytes]


class VetoRow(Base):
    """A list of vetoed segments: begins and ends, GPS ns, little-endian int64."""

    __tablename__ = "vetoes"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    ifos: Mapped[list[str]] = mapped_column(JSON)
    segments: Mapped[bytes]
    digest: Mapped[str] = mapped_column(String(64))


class StrainRow(Base):
    """Strain around an event: float32, little-endian, one detector after the other."""

    __tablename__ = "strain"
    __table_args__ = (UniqueConstraint("run_id", "start_ns"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    sample_rate: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(Integer)
    ifos: Mapped[list[str]] = mapped_column(JSON)
    digest: Mapped[str] = mapped_column(String(64))
    strain: Mapped[bytes]


class InjectionSetRow(Base):
    """A set of injections, complete from the start so that none can go missing."""

    __tablename__ = "injection_sets"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(Integer)
    population: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    digest: Mapped[str] = mapped_column(String(64))


class InjectionRow(Base):
    """One injection of a set."""

    __tablename__ = "injections"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("injection_sets.id"), index=True)
    time_ns: Mapped[int] = mapped_column(BigInteger)
    snr: Mapped[float]
    parameters: Mapped[dict[str, Any]]


class Database:
    """A database by URL or, for short, by the path of an SQLite file.

    Attributes:
        folder: Where the SQLite file is; of another database, where this process runs.

    Raises:
        ApiError: Not a database that can be opened.
    """

    def __init__(self, url: str) -> None:
        self.folder = Path.cwd()
        if "://" not in url:
            url = f"sqlite:///{url}"
        # The URL may hold a password, which no message shows.
        shown = url.split("://")[0] + "://…"
        try:
            parsed = make_url(url)
            shown = parsed.render_as_string(hide_password=True)
            # A database without an encoding (SQL_ASCII) would else give bytes.
            encoded = parsed.get_backend_name() == "postgresql"
            # One for each thread that answers: none waits for another's.
            self._engine = create_engine(
                parsed,
                pool_pre_ping=True,
                max_overflow=MAX_CONNECTIONS,
                connect_args={"client_encoding": "utf8"} if encoded else {},
            )
            self._reader = self._engine
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            else:
                # As SQLite does: events and their livetime must be of one moment.
                self._reader = self._engine.execution_options(
                    isolation_level="REPEATABLE READ"
                )
            self._writer = self._engine.execution_options(writes=True)
            file = self._engine.url.database
            if file is not None and self._engine.dialect.name == "sqlite":
                self.folder = Path(file).absolute().parent
            with self._writer.begin() as connection:
                migrate(connection)
        except ImportError as error:
            raise ApiError(
                f"{shown}: the driver of this kind of database is not installed "
                f"({error})"
            ) from None
        except (ArgumentError, ValueError):
            raise ApiError(f"{shown}: not a database URL or file name") from None
        except CommandError as error:
            raise ApiError(
                f"{shown}: expected tables of this version of chirpwatch, "
                f"{chirpwatch.__version__}, or an earlier one, found others ({error}); "
                "use the version that wrote them, or a newer one"
            ) from None
        except SQLAlchemyError as error:
            raise ApiError(
                f"{shown}: the database cannot be opened "
                f"({getattr(error, 'orig', None) or error}); "
                "is the folder there and writable, is it a chirpwatch database?"
            ) from None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database throughout."""
        with Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is committed whole at the end, or not at all."""
        with Session(self._writer) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def migrate(connection: Connection) -> None:
    """Make the tables, or bring those of an earlier version up to date.

    Raises:
        CommandError: The tables are of a version that is not known here.
    """
    if connection.dialect.name == "postgresql":
        # Of several services that start at once, one makes the tables.
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    config = Config()
    # A path may hold the sign that marks a variable there.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migration_options() -> dict[str, Any]:
    """How Alembic compares and changes the tables."""
    return {
        # In the transaction that is open already: all changes or none.
        "transactional_ddl": True,
        "render_as_batch": True,
        "compare_type": True,
    }


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions would begin at the first write, after the reads
    # that the write depends on; _begin_sqlite begins them instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_TIMEOUT)}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    # SQLite's own time-out does not hold where two connections change a new file's
    # mode at once: either would wait for the other, so one fails immediately.
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads, then writes cannot wait its turn: it fails at once
    # when another writer came in between. IMMEDIATE waits at the beginning.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
