"""Run by Alembic for each of its commands."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import text

from migrations import database, roles, settings, state
from migrations.schema import metadata

FIRST_WITH_SUMMARIES = "0004"


def forget(ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """Remove with the tables what is made of them and no revision knows of."""
    if not step.is_upgrade and step.up_revision_id == FIRST_WITH_SUMMARIES:
        assert ctx.connection is not None
        ctx.connection.execute(text(state.FORGET))


# Alembic's own command line brings none.
chosen = context.config.attributes.get("settings") or settings.load()
with database.transaction(chosen.url) as connection:
    # Before Alembic creates its own table.
    roles.withdraw_defaults(connection, chosen.roles)
    database.name_revision_table(connection)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=database.REVISION_TABLE,
        on_version_apply=forget,
    )
    context.run_migrations()
    database.give_revision_table_back(connection)
