"""How a function reaches PostgreSQL."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from shared import settings
from shared.problems import unavailable

log = logging.getLogger("database")


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and how much a function may ask of it."""

    url: str
    """DATABASE_URL, any libpq connection string; without it libpq's own variables count (PGHOST, PGUSER ...)."""
    connections: int
    """Connections of one process at most: POOL_SIZE."""
    pooled: bool
    """Whether a pooler such as PgBouncer lends connections for a transaction at a time: DATABASE_POOLER."""
    deadline: int
    """Seconds a request may wait for the database before it is answered 503: DEADLINE_SECONDS."""

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of psycopg's `connect` beside the URL."""
        options = {
            "autocommit": True,
            "connect_timeout": 3,
            # A peer that vanished without a word is given up as soon as the request is.
            "keepalives_idle": self.deadline,
            "tcp_user_timeout": self.deadline * 1000,
        }
        if self.pooled:
            # Neither prepared statements nor session settings outlive the transaction.
            return {**options, "prepare_threshold": None}
        settings = {
            # The database stops what nobody waits for any more.
            "statement_timeout": self.deadline * 1000,
            # On TimescaleDB, where a statement has a part for each chunk, planning it takes longer than running it.
            # The values of its parameters call for no other plan.
            "plan_cache_mode": "force_generic_plan",
            # The parts add up to an estimate at which PostgreSQL would compile for longer than it computes.
            "jit": "off",
        }
        return {
            **options,
            "prepare_threshold": 0,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        }


async def ready(database: Database) -> None:
    """Return if the database answers a new connection. Raises Problem 503 otherwise."""
    # Not every module that needs the settings needs the driver.
    import psycopg

    try:
        async with asyncio.timeout(database.deadline):
            async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
                await connection.execute("SELECT 1")
    except (TimeoutError, psycopg.Error) as error:
        log.warning("the database is not ready: %r", error)
        raise unavailable("The database does not answer") from None


def load(*, connections: int) -> Database:
    """The database of this function from the environment, with `connections` unless POOL_SIZE says otherwise."""
    return Database(
        url=settings.text("DATABASE_URL"),
        connections=settings.number("POOL_SIZE", connections, least=1, most=100),
        pooled=settings.switch("DATABASE_POOLER"),
        deadline=settings.number("DEADLINE_SECONDS", 10, least=1, most=300),
    )
