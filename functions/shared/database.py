"""How a function reaches PostgreSQL."""

from typing import Any

from shared import settings

DEADLINE = 10
"""Seconds a request may wait for the database before it is answered 503."""


OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": 3,
    # A peer that vanished without a word is given up as soon as the request is.
    "keepalives_idle": DEADLINE,
    "tcp_user_timeout": DEADLINE * 1000,
    # The database stops what nobody waits for any more.
    "options": f"-c statement_timeout={DEADLINE * 1000}",
}
"""How psycopg connects."""


def url() -> str:
    """Where to: DATABASE_URL, any libpq connection string; without it libpq's own variables count (PGHOST, PGUSER ...)."""
    return settings.text("DATABASE_URL")
