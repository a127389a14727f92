"""The connection of the migrations: as the owner, one runner at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text

from shared import conninfo
from shared.confirmation import confirming

REVISION_TABLE = "temperature_revision"
"""Where Alembic keeps the revision of the schema; `alembic_version` may be another application's."""


def connect() -> "psycopg.Connection[tuple[object, ...]]":
    """A connection to the database that DATABASE_URL (or libpq's own variables) names."""
    return psycopg.connect(conninfo.load())


@contextmanager
def transaction() -> Iterator[Connection]:
    """A transaction on that database.

    A second runner (a Job that was retried, another machine) waits here until the first has committed. Raises
    Unconfirmed if not all that the transaction found and did is on as many copies as are promised.
    """
    raw = connect()
    confirm = confirming(raw)
    engine = create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))"))
        # The commit of a transaction that changes nothing waits for no copy: one before it may have been cut short.
        connection.execute(text("SELECT pg_logical_emit_message(true, 'temperature', '')"))
        yield connection
    confirm()


def name_revision_table(connection: Connection) -> None:
    """Give the table of revisions its own name where an earlier version of the migrations called it alembic_version.

    It is that version's where there are readings and it names one of that version's revisions.
    """
    own, found, readings = connection.execute(
        text(
            "SELECT to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL"
            " FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS wanted (name, place) ORDER BY place"
        ),
        {"names": [REVISION_TABLE, "alembic_version", "temperatures"]},
    ).scalars()
    if own or not (found and readings):
        return
    if set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) <= {"0001", "0002", "0003"}:
        connection.execute(text(f"ALTER TABLE alembic_version RENAME TO {REVISION_TABLE}"))
        connection.execute(text(f"ALTER INDEX alembic_version_pkc RENAME TO {REVISION_TABLE}_pkc"))
