"""Migrations: tables as the models define them, made once, on both databases."""

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from chirpwatch.api.storage.database import (
    Database,
    migration_options,
)
from chirpwatch.api.storage.tables import Base
from chirpwatch.errors import ApiError


def engine_of(url):
    return create_engine(url if "://" in url else f"sqlite:///{url}")


def test_the_migrations_make_the_models_tables(new_database):
    url = new_database()
    Database(url).close()
    with engine_of(url).connect() as connection:
        context = MigrationContext.configure(connection, opts=migration_options())
        assert compare_metadata(context, Base.metadata) == []


def test_services_that_start_at_once_make_the_tables_once(new_database):
    url, faults = new_database(), []

    def start():
        try:
            Database(url).close()
        except ApiError as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_tables_of_an_unknown_version_are_not_changed(new_database):
    url = new_database()
    Database(url).close()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ApiError, match=r"or an earlier one, found others.*9999"):
        Database(url)


def test_another_programs_database_is_not_changed(new_database):
    url = new_database()
    with engine_of(url).begin() as connection:
        connection.execute(text("CREATE TABLE runs (id INTEGER)"))
    with pytest.raises(ApiError, match="is it a chirpwatch database"):
        Database(url)
    with engine_of(url).connect() as connection:
        # No partial tables are left.
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar() == 0
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() is None


def test_a_postgresql_database_without_an_encoding_holds_text(postgresql):
    """As where PostgreSQL was set up without a locale."""
    database = Database(postgresql.new_database("SQL_ASCII"))
    with database.writing() as session:
        session.execute(text("CREATE TABLE names (name TEXT)"))
        session.execute(text("INSERT INTO names VALUES ('Größe')"))
        assert session.execute(text("SELECT name FROM names")).scalar() == "Größe"
    database.close()
