"""Alembic's environment script, which `database.migrate` runs."""

from alembic import context

from chirpwatch.api.storage.database import migration_options
from chirpwatch.api.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    **migration_options(),
)
with context.begin_transaction():
    context.run_migrations()
