"""How a function reaches PostgreSQL."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.postgres import types
from psycopg.pq import Format
from starlette.requests import Request
from starlette.responses import Response

from shared import conninfo, edge, settings
from shared.problems import Problem, unavailable

T = TypeVar("T")

IDLE_SECONDS = 2
"""How long a transaction may wait for a function that has nothing else to do."""
READY_SECONDS = 1
"""How long it counts as known whether the database answers."""
NOT_SET_UP = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)
"""What a database says that the migrations have not been run on, or that came before a role did."""

# Work that is being cancelled; the event loop itself would let it be collected.
_given_up: set[asyncio.Task[Any]] = set()


class _Instant(Loader):
    """Reads an instant in UTC, whatever the zone of the session is.

    In one that is behind UTC, psycopg's own reader fails for the first hours of the year 1, and with it the answer.
    """

    format = Format.BINARY

    def load(self, data: Any) -> datetime:
        try:
            return EPOCH + timedelta(microseconds=int.from_bytes(data, signed=True))
        except OverflowError as error:
            raise psycopg.DataError("Python has no instant that late or early") from error


class _Length(Dumper):
    """Writes a length of time without days, which PostgreSQL lets last 23 or 25 hours in the zone of the session."""

    format = Format.BINARY
    oid = types["interval"].oid

    def dump(self, obj: Any) -> bytes:
        return (obj // timedelta(microseconds=1)).to_bytes(8, signed=True) + bytes(8)


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""From which PostgreSQL counts microseconds."""
psycopg.adapters.register_loader("timestamptz", _Instant)
psycopg.adapters.register_dumper(timedelta, _Length)


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
    idle: int = IDLE_SECONDS
    """Seconds that a transaction may wait for the function, which may be frozen and hold its locks."""
    lock: float | None = None
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
            "keepalives_idle": self.deadline,
            "tcp_user_timeout": self.deadline * 1000,
        }
        if self.pooled:
            # Neither prepared statements nor session settings outlive the transaction.
            return {**options, "prepare_threshold": None}
        settings = {
            **self._bounds,
            # On TimescaleDB, where a statement has a part for each chunk, planning it takes longer than running it.
            # The values of its parameters call for no other plan.
            "plan_cache_mode": "force_generic_plan",
            # Who waits for a lock sees what was committed meanwhile.
            "default_transaction_isolation": r"read\ committed",
        }
        # Those of the URL, such as a search_path, would be replaced.
        own = str(conninfo_to_dict(self.url).get("options") or "")
        return {
            **options,
            "prepare_threshold": 0,
            "options": " ".join(filter(None, [own, *(f"-c {name}={value}" for name, value in settings.items())])),
        }

    @property
    def bounds(self) -> LiteralString | None:
        """What a transaction has to begin with behind a pooler, which lets no session setting through.

        Role settings would do without, but nobody who runs the migrations may set those of another role. The level of
        isolation is none of them: it has to be there before the first statement.
        """
        return _settings(self._bounds) if self.pooled else None

    def within(self, seconds: float) -> LiteralString:
        """What a transaction has to begin with that may not take longer."""
        brief = {"statement_timeout": round(seconds * 1000)}
        return _settings(self._bounds | brief if self.pooled else brief)

    @property
    def _bounds(self) -> dict[str, int | str]:
        """Settings of PostgreSQL that end what nobody waits for any more, in milliseconds, and others that it takes."""
        bounds: dict[str, int | str] = {
            # As text, numbers have all their digits, whatever the role says.
            "extra_float_digits": 1,
            # Ahead of the deadline, so that who waits hears why.
            "statement_timeout": self.deadline * 900,
            "idle_in_transaction_session_timeout": self.idle * 1000,
            # That a commit is on the primary only is a warning, which a role or database may have turned off.
            "client_min_messages": "warning",
            # The parts add up to an estimate at which PostgreSQL would compile for longer than it computes.
            "jit": "off",
        }
        return bounds if self.lock is None else {**bounds, "lock_timeout": round(self.lock * 1000)}


def _settings(values: Mapping[str, int | str]) -> LiteralString:
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())
    return f"SELECT {settings}"


async def fetch(
    connection: psycopg.AsyncConnection, bounds: LiteralString | None, statement: bytes, parameters: Mapping[str, Any]
) -> list[Any]:
    """The rows of a statement, if it has some, in a transaction of its own within the `bounds` of the Database."""
    if bounds is None:
        cursor = await connection.execute(statement, parameters, binary=True)
    else:
        # What is in a pipeline is one transaction, and one round trip.
        async with connection.pipeline():
            await connection.execute(bounds)
            cursor = await connection.execute(statement, parameters, binary=True)
    return await cursor.fetchall() if cursor.description else []


def unanswered(error: Exception | None, again: str) -> Problem:
    """503: what the database said last was this error, if anything; `again` is what the client may do later."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return unavailable("read_only", f"The database only reads, as a standby does; {again} when it writes too", 5)
    if isinstance(error, psycopg.errors.SerializationFailure):
        return unavailable("conflict", f"The database was changed meanwhile, again and again; {again}", 5)
    if isinstance(error, NOT_SET_UP):
        return unavailable("not_set_up", f"The database lacks tables or rights until it is migrated; {again} then", 5)
    return unavailable("deadline", f"The database does not answer; {again}", 5)


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
    """What answers 200 if the database answers a new connection, and raises Problem 503 otherwise.

    Whoever asks meanwhile, and for a second afterwards, gets the same answer: anybody may ask, as often as they like.
    """
    probe: asyncio.Task[None] | None = None
    asked = 0.0

    async def ask() -> None:
        nonlocal asked
        try:
            await within(database.deadline, _reach(database))
        finally:
            asked = asyncio.get_running_loop().time()

    async def answer(_: Request) -> Response:
        nonlocal probe
        now = asyncio.get_running_loop().time()
        if probe is None or (probe.done() and now - asked >= READY_SECONDS):
            probe = asyncio.create_task(ask())
        try:
            # It goes on where one of those who asked goes away.
            await asyncio.shield(probe)
        except (TimeoutError, psycopg.Error) as error:
            raise unavailable("not_ready", "The database does not answer") from error
        return edge.json({"status": "ok", "message": "The database answers"})

    return answer


async def _reach(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
        await connection.execute("SELECT 1")


def load(*, connections: int, idle: int = IDLE_SECONDS, lock: float | None = None) -> Database:
    """The database of this function from the environment, with `connections` unless POOL_SIZE says otherwise.

    A transaction may wait `idle` seconds for the function, and a statement `lock` seconds for a lock.
    """
    return Database(
        url=conninfo.load(),
        connections=settings.number("POOL_SIZE", connections, least=1, most=100),
        pooled=settings.switch("DATABASE_POOLER"),
        deadline=settings.number("DEADLINE_SECONDS", 10, least=1, most=300),
        idle=idle,
        lock=lock,
    )
