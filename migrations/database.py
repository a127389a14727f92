"""The connection of the migrations: as the owner, one runner at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text

from shared import settings
from shared.confirmation import confirming


@contextmanager
def transaction() -> Iterator[Connection]:
    """A transaction on the database that DATABASE_URL (or libpq's own variables) names.

    A second runner (a Job that was retried, another machine) waits here until the first has committed. Raises
    Unconfirmed if not all that the transaction found and did is on as many copies as are promised.
    """
    raw = psycopg.connect(settings.text("DATABASE_URL"))
    confirm = confirming(raw)
    engine = create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))"))
        # The commit of a transaction that changes nothing waits for no copy: one before it may have been cut short.
        connection.execute(text("SELECT pg_logical_emit_message(true, 'temperature', '')"))
        yield connection
    confirm()
