"""Connections to the database: reading sessions, and atomic writing sessions.

SQLite by default. Only the pragmas are specific to SQLite, so a PostgreSQL URL works as
well.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

import chirpwatch
from chirpwatch.errors import ApiError

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x63686972
"""PostgreSQL advisory lock that is held during migrations."""

MAX_EXTRA_CONNECTIONS = 40
"""Connections beyond the pool's permanent ones: one for each thread that answers."""

BUSY_TIMEOUT = 15.0
"""Longest wait for another connection's lock on the SQLite file, s."""


class Database:
    """The service's database, migrated to this version's tables on opening.

    Args:
        url: SQLAlchemy URL, or the path of an SQLite file (made if missing).

    Attributes:
        folder: Folder of the SQLite file; the working directory for other databases.

    Raises:
        ApiError: The database cannot be opened, or its tables are newer than this
            version.
    """

    def __init__(self, url: str) -> None:
        self.folder = Path.cwd()
        if "://" not in url:
            url = f"sqlite:///{url}"
        # The URL may hold a password, which must not appear in a message.
        shown = url.split("://")[0] + "://…"
        try:
            parsed = make_url(url)
            shown = parsed.render_as_string(hide_password=True)
            # Otherwise a database without an encoding (SQL_ASCII) returns bytes.
            encoded = parsed.get_backend_name() == "postgresql"
            # With one connection for each thread, no thread waits for another's.
            self._engine = create_engine(
                parsed,
                pool_pre_ping=True,
                max_overflow=MAX_EXTRA_CONNECTIONS,
                connect_args={"client_encoding": "utf8"} if encoded else {},
            )
            self._reader = self._engine
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            else:
                # As in SQLite: event counts and livetime must come from one snapshot.
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
                f"{shown}: the driver for this kind of database is not installed "
                f"({error})"
            ) from None
        except (ArgumentError, ValueError):
            raise ApiError(
                f"{shown}: expected a file name or a database URL such as "
                "postgresql+psycopg://host/name"
            ) from None
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
                "check that its folder exists and is writable; is it a chirpwatch "
                "database?"
            ) from None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that reads one snapshot of the database."""
        with Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session that is committed at the end, or rolled back on an error."""
        with Session(self._writer) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def migrate(connection: Connection) -> None:
    """Create the tables, or migrate those of an earlier version.

    Raises:
        CommandError: The tables belong to a version that this one does not know.
    """
    if connection.dialect.name == "postgresql":
        # If several services start at once, one of them creates the tables.
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    config = Config()
    # Alembic's configuration takes % for the start of a variable.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migration_options() -> dict[str, Any]:
    """Alembic's options for comparing and changing the tables."""
    return {
        # Changes run in the transaction that is already open: all of them or none.
        "transactional_ddl": True,
        "render_as_batch": True,
        "compare_type": True,
    }


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin a transaction at the first write, after the reads that
    # the write depends on. _begin_sqlite begins it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_TIMEOUT)}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    # SQLite's time-out does not cover two connections that change a new file's mode
    # at once: they would deadlock, so one fails immediately.
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
    # A transaction that reads and then writes fails if another writer came between.
    # IMMEDIATE takes the write lock at the beginning, and waits for it.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
