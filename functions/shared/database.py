"""How a function reaches PostgreSQL."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format
from starlette.requests import Request
from starlette.responses import Response

from shared import edge, settings
from shared.problems import unavailable

T = TypeVar("T")

# Work that is being cancelled; the event loop itself would let it be collected.
_given_up: set[asyncio.Task[Any]] = set()


class _Instant(Loader):
    """Reads an instant in UTC, whatever the zone of the session is.

    In one that is behind UTC, psycopg's own reader fails for the first hours of the year 1, and with it the answer.
    """

    format = Format.BINARY

    def load(self, data: Any) -> datetime:
        try:
            return _EPOCH + timedelta(microseconds=int.from_bytes(data, signed=True))
        except OverflowError as error:
            raise psycopg.DataError("Python has no instant that late or early") from error


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
psycopg.adapters.register_loader("timestamptz", _Instant)


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


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work returns. Raises TimeoutError after the seconds, while the work is still being cancelled.

    asyncio.timeout waits for what it cancels, and psycopg gives a server that hangs 5 more seconds.
    """
    task = asyncio.create_task(work)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        return task.result()
    _given_up.add(task)
    task.add_done_callback(_forget)
    task.cancel()
    raise TimeoutError


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        # Asked for, so that asyncio does not report it.
        task.exception()


def ready(database: Database) -> edge.Function:
    """What answers 200 if the database answers a new connection, and raises Problem 503 otherwise."""

    async def ask() -> None:
        async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
            await connection.execute("SELECT 1")

    async def answer(_: Request) -> Response:
        try:
            await within(database.deadline, ask())
        except (TimeoutError, psycopg.Error) as error:
            raise unavailable("not_ready", "The database does not answer") from error
        return edge.json({"status": "ok", "message": "The database answers"})

    return answer


def load(*, connections: int) -> Database:
    """The database of this function from the environment, with `connections` unless POOL_SIZE says otherwise."""
    return Database(
        url=settings.text("DATABASE_URL"),
        connections=settings.number("POOL_SIZE", connections, least=1, most=100),
        pooled=settings.switch("DATABASE_POOLER"),
        deadline=settings.number("DEADLINE_SECONDS", 10, least=1, most=300),
    )
