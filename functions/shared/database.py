"""How a function reaches PostgreSQL."""

from typing import Any

from shared import settings

DEADLINE = 10
"""Seconds a request may wait for the database before it is answered 503."""


def connection() -> dict[str, Any]:
    """The arguments of psycopg's `connect` for this process.

    DATABASE_URL is any libpq connection string. Without it libpq's own variables count (PGHOST, PGUSER, PGPASSWORD ...).
    """
    return {
        "conninfo": settings.text("DATABASE_URL"),
        "autocommit": True,
        "connect_timeout": 3,
        # A peer that vanished without a word is given up as soon as the request is.
        "keepalives_idle": DEADLINE,
        "tcp_user_timeout": DEADLINE * 1000,
        # The database stops what nobody waits for any more.
        "options": f"-c statement_timeout={DEADLINE * 1000}",
    }
