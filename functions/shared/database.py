"""How a function reaches PostgreSQL."""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.array import ListBinaryDumper
from starlette.requests import Request
from starlette.responses import Response

from shared import answers, conninfo, edge, settings
from shared.problems import Problem, unavailable

T = TypeVar("T")

IDLE_TRANSACTION_SECONDS = 2
"""A transaction may wait so long for the function, which may be frozen and hold its locks."""
READINESS_KNOWN_SECONDS = 1
"""So long an answer of `/ready` holds."""
NOT_MIGRATED_ERRORS = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)
"""Errors of a database before the migrations have run on it, or before they have run for this role."""
EXTENSION_UPDATED_ERRORS = (psycopg.errors.DuplicateObject, psycopg.errors.FeatureNotSupported)
"""With these TimescaleDB ends sessions that have loaded another version of it than the database uses by now."""

_PARAMETER = re.compile(rb"%\((\w+)\)s")

# Work that nobody waits for. The event loop alone would let it be garbage-collected.
_given_up: set[asyncio.Task[Any]] = set()


class _Instant(Loader):
    """Reads an instant in UTC, whatever the zone of the session is.

    In one that is behind UTC, psycopg's own reader fails for the first hours of the year 1, and with it the answer.
    """

    format = Format.BINARY

    def load(self, data: Any) -> datetime:
        try:
            return POSTGRES_EPOCH + timedelta(microseconds=int.from_bytes(data, signed=True))
        except OverflowError as error:
            raise psycopg.DataError("Python has no instant that late or early") from error


class _Length(Dumper):
    """Writes a length of time without days, which PostgreSQL lets last 23 or 25 hours in the zone of the session."""

    format = Format.BINARY
    oid = types["interval"].oid

    def dump(self, obj: Any) -> bytes:
        microseconds: int = obj // timedelta(microseconds=1)
        return microseconds.to_bytes(8, signed=True) + bytes(8)


class Instants(list[datetime]):
    """An array of instants for PostgreSQL. Other lists are sent as text, which takes psycopg ten times as long."""


POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""From which PostgreSQL counts microseconds."""
psycopg.adapters.register_loader("timestamptz", _Instant)
psycopg.adapters.register_dumper(timedelta, _Length)
psycopg.adapters.register_dumper(Instants, ListBinaryDumper)


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and how much a function may ask of it."""

    url: str
    """DATABASE_URL, any libpq connection string; without it libpq's own variables count (PGHOST, PGUSER ...)."""
    connections: int
    """Connections of one process at most: POOL_SIZE."""
    pooled: bool
    """Whether a pooler such as PgBouncer lends connections for a transaction at a time: DATABASE_POOLER."""
    deadline_seconds: int
    """Seconds a request may wait for the database before it is answered 503: DEADLINE_SECONDS."""
    lock_seconds: float | None = None
    """Seconds that a statement may wait for a lock, None for as long as for anything else."""

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of psycopg's `connect` beside the URL."""
        options = {
            "autocommit": True,
            "connect_timeout": 3,
            # Whatever the variables of libpq or the role say.
            "client_encoding": "UTF8",
            # A peer that vanished without a word is given up as soon as the request is.
            "keepalives_idle": self.deadline_seconds,
            "tcp_user_timeout": self.deadline_seconds * 1000,
        }
        if self.pooled:
            # Neither prepared statements nor session settings outlive the transaction.
            return {**options, "prepare_threshold": None}
        session = {
            **self._bounds,
            # On TimescaleDB, where a statement has a part for each chunk, planning it takes longer than running it.
            # The values of its parameters call for no other plan.
            "plan_cache_mode": "force_generic_plan",
            # Who waits for a lock sees what was committed meanwhile.
            "default_transaction_isolation": r"read\ committed",
        }
        # Those of the administrator, such as a search_path, would be replaced.
        own = conninfo.own_options(self.url)
        return {
            **options,
            "prepare_threshold": 0,
            "options": " ".join(filter(None, [own, *(f"-c {name}={value}" for name, value in session.items())])),
        }

    @property
    def bounds(self) -> LiteralString | None:
        """The statement with which each transaction must begin behind a pooler, None without one.

        A pooler lets no session setting through. Settings of the role would do, but who runs the migrations may not
        make settings of another role. The level of isolation is not among them: it must be set before any statement.
        """
        return _settings(self._bounds) if self.pooled else None

    def bounds_within(self, seconds: float) -> LiteralString:
        """The statement with which a transaction must begin that may take at most so many seconds."""
        brief = {"statement_timeout": round(seconds * 1000)}
        return _settings(self._bounds | brief if self.pooled else brief)

    @property
    def _bounds(self) -> dict[str, int | str]:
        """Settings of PostgreSQL that end what nobody waits for any more, in milliseconds, and others that it takes."""
        return {
            # As text, numbers have all their digits, whatever the role says.
            "extra_float_digits": 1,
            # Ahead of the deadline, so that who waits hears why.
            "statement_timeout": self.deadline_seconds * 900,
            "idle_in_transaction_session_timeout": IDLE_TRANSACTION_SECONDS * 1000,
            # That a commit is on the primary only is a warning, which a role or database may have turned off.
            "client_min_messages": "warning",
            # Rows that a policy hides would be missing in an answer without a word.
            "row_security": "off",
            # What is sent as NULL in a list is one.
            "array_nulls": "on",
            # The parts add up to an estimate at which PostgreSQL would compile for longer than it computes.
            "jit": "off",
            # None where the function has none, whatever the role or database says: a statement ends anyway.
            "lock_timeout": round((self.lock_seconds or 0) * 1000),
        }


def _settings(values: Mapping[str, int | str]) -> LiteralString:
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())
    return f"SELECT {calls}"


async def fetch(
    connection: psycopg.AsyncConnection, bounds: LiteralString | None, statement: bytes, parameters: Mapping[str, Any]
) -> list[Any]:
    """The rows of a statement, if it has some, in a transaction of its own within the `bounds` of the Database."""
    numbered, names = _numbered(statement)
    values = [parameters[name] for name in names]
    cursor = psycopg.AsyncRawCursor(connection)
    if bounds is None:
        await cursor.execute(numbered, values, binary=True)
    else:
        # What is in a pipeline is one transaction, and one round trip.
        async with connection.pipeline():
            await connection.execute(bounds)
            await cursor.execute(numbered, values, binary=True)
    return await cursor.fetchall() if cursor.description else []


@cache
def _numbered(statement: bytes) -> tuple[bytes, list[str]]:
    """The statement with numbers for its parameters, as PostgreSQL has them, and their names in order.

    psycopg would look for the names of a long statement each time, which takes longer than to find a reading.
    """
    names = list(dict.fromkeys(name.decode() for name in _PARAMETER.findall(statement)))
    return _PARAMETER.sub(lambda found: b"$%d" % (names.index(found[1].decode()) + 1), statement), names


def unanswered(error: Exception | None, again: str) -> Problem:
    """The Problem 503 of what the database did not answer.

    `error` is what it said last, None if it said nothing; `again` is what the client may do later.
    """
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return unavailable("read_only", f"The database only reads, as a standby does; {again} when it writes too", 5)
    if isinstance(error, psycopg.errors.SerializationFailure):
        return unavailable("conflict", f"The database was changed meanwhile, again and again; {again}", 5)
    if isinstance(error, NOT_MIGRATED_ERRORS):
        return unavailable("not_set_up", f"The database lacks tables or rights until it is migrated; {again} then", 5)
    return unavailable("deadline", f"The database does not answer; {again}", 5)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work returns. Raises TimeoutError after the seconds, while the work is still being cancelled.

    This is for what psycopg does: asyncio.timeout, which everything else has, waits until the work is cancelled, and
    psycopg waits 5 more seconds for a server that hangs.
    """
    task = asyncio.create_task(work)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        return task.result()
    _leave(task)
    task.cancel()
    raise TimeoutError


@asynccontextmanager
async def connected(database: Database, options: Mapping[str, Any]) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection with these options for the context, in which each step is to be `within` the deadline.

    Raises TimeoutError or psycopg.Error if the database does not answer.
    """
    connection = await within(database.deadline_seconds, psycopg.AsyncConnection.connect(database.url, **options))
    try:
        yield connection
    except TimeoutError:
        # The step that was given up is still being cancelled, and nobody waits for that.
        _leave(asyncio.create_task(_end(connection)))
        raise
    except BaseException:
        await connection.close()
        raise
    else:
        await connection.close()


async def _end(connection: psycopg.AsyncConnection) -> None:
    async with connection:
        pass


def _leave(task: asyncio.Task[Any]) -> None:
    """Let a task go on by itself."""
    _given_up.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        # Asked for, so that asyncio does not report it.
        task.exception()


def ready(database: Database) -> edge.Function:
    """A function that answers 200 if the database answers a new connection, and raises Problem 503 otherwise.

    An answer holds for a second. So anybody may ask, as often as they like.
    """
    probe: asyncio.Task[None] | None = None
    asked = 0.0

    async def ask() -> None:
        nonlocal asked
        try:
            await within(database.deadline_seconds, _reach(database))
        finally:
            asked = asyncio.get_running_loop().time()

    async def answer(_: Request) -> Response:
        nonlocal probe
        now = asyncio.get_running_loop().time()
        if probe is None or (probe.done() and now - asked >= READINESS_KNOWN_SECONDS):
            probe = asyncio.create_task(ask())
        try:
            # It goes on where one of those who asked goes away.
            await asyncio.shield(probe)
        except (TimeoutError, psycopg.Error) as error:
            raise unavailable("not_ready", "The database does not answer") from error
        return answers.json({"status": "ok", "message": "The database answers"})

    return answer


async def _reach(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
        await connection.execute("SELECT 1")


def load(*, connections: int, lock_seconds: float | None = None) -> Database:
    """The database of this function from the environment, with `connections` unless POOL_SIZE says otherwise.

    A statement may wait `lock_seconds` for a lock.
    """
    return Database(
        url=conninfo.load(),
        connections=settings.number("POOL_SIZE", connections, least=1, most=100),
        pooled=settings.switch("DATABASE_POOLER"),
        deadline_seconds=settings.number("DEADLINE_SECONDS", 10, least=1, most=300),
        lock_seconds=lock_seconds,
    )
