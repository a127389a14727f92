"""Run by Alembic for each of its commands."""

from alembic import context

from migrations import database
from migrations.schema import metadata

with database.transaction() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()
