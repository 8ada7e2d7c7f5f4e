"""What Alembic runs to bring a database up to date; see `database.migrate`."""

from alembic import context

from chirpwatch.api.storage.database import (
    Base,
    migration_options,
)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    **migration_options(),
)
with context.begin_transaction():
    context.run_migrations()
