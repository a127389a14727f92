"""The connection of the migrations: as the owner, one runner at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text

from shared import conninfo


@contextmanager
def transaction() -> Iterator[Connection]:
    """A transaction on the database that DATABASE_URL (or libpq's own variables) names.

    A second runner (a Job that was retried, another machine) waits here until the first has committed.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo.load()), poolclass=NullPool
    )
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))"))
        yield connection
