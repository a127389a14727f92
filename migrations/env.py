"""Run by Alembic for each of its commands."""

from alembic import context

from migrations import database, roles, settings
from migrations.schema import metadata

# Alembic's own command line brings none.
chosen = context.config.attributes.get("settings") or settings.load()
with database.transaction(chosen.url) as connection:
    # Before Alembic creates its own table.
    roles.withdraw_defaults(connection, (chosen.writer, chosen.reader, chosen.watcher, chosen.admin))
    database.name_revision_table(connection)
    context.configure(connection=connection, target_metadata=metadata, version_table=database.REVISION_TABLE)
    context.run_migrations()
