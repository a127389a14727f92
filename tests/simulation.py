"""A clock and a database that are made up, so that hours of faults take no time and every order of events can happen.

What a function does with them is its own code; what the database does follows PostgreSQL where it matters to a writer:
transactions, locks on readings, unique keys, the wait for a synchronous standby, and a failover that loses what no
standby has.
"""

import asyncio
import random
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus

from ingest.committing import Session, Sessions
from shared.readings import Reading

T = TypeVar("T")
BEGIN = datetime(2024, 12, 1, tzinfo=UTC)


class SimulatedLoop:
    """An event loop whose time passes only where everybody waits for it. It has what Tasks need, and is fast."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._later: list[tuple[float, int, asyncio.Handle]] = []
        self._numbers = count()
        self._failed: list[Exception] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        """Those that are not done."""

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        call = asyncio.Handle(callback, args, cast(Any, self), context or _CONTEXT)
        self._ready.append(call)
        return call

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        call = asyncio.Handle(callback, args, cast(Any, self), context or _CONTEXT)
        heappush(self._later, (when, next(self._numbers), call))
        return call

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=cast(Any, self))

    def create_task(self, coro: Any, **_: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=cast(Any, self))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def end_others(self) -> None:
        """End what still runs beside the task that asks, as asyncio does at the end of a program."""
        while others := self.tasks - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # A task that is not done when a test has failed is none.
        if error := context.get("exception"):
            self._failed.append(error)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, and whatever else is to be done until its end; then end that. Raises what it raises."""
        asyncio.events._set_running_loop(cast(Any, self))
        try:
            task = self.create_task(self._whole(work))
            while not task.done():
                self._step()
            result = cast(T, task.result())
            assert not self._failed, self._failed
            return result
        finally:
            asyncio.events._set_running_loop(None)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        finally:
            await self.end_others()

    def _step(self) -> None:
        if self._ready:
            call = self._ready.popleft()
        else:
            assert self._later, "everybody waits, and nothing will happen any more"
            self._now, _, call = heappop(self._later)
        if not call.cancelled():
            call._run()


_CONTEXT = copy_context()


def reading(number: int) -> Reading:
    """The reading of a number, another one for each; a greater one comes later in the order of the keys."""
    return {
        "building_id": "B1",
        "room_id": "101",
        "timestamp": BEGIN + timedelta(microseconds=number),
        "temperature": float(number),
    }


@dataclass
class Faults:
    """What goes wrong, how often (0 to 1) for each thing that a connection does."""

    breaks: float = 0.0
    """A connection breaks, before or after the database did what was asked."""
    hangs: float = 0.0
    """Nothing is heard any more."""
    refuses: float = 0.0
    """A statement fails for a reason that is not its readings, and would not fail again."""
    slow: float = 0.0
    """What takes a millisecond takes up to a second."""


class SimulatedDatabase:
    """Readings by their number, on a primary and a standby."""

    def __init__(self, chance: random.Random, faults: Faults | None = None, *, lock_seconds: float = 0.2) -> None:
        self.chance = chance
        self.faults = faults or Faults()
        self.poison: set[int] = set()
        """Readings with which a statement fails, each time, for want of memory."""
        self.faulty: set[int] = set()
        """Readings that break a constraint."""
        self.visible: set[int] = set()
        self.replicated: set[int] = set()
        self.deadlocks = 0
        self.replicating = True
        self.away = False
        self.locks: dict[int, object] = {}
        """Who holds a reading that is not committed yet."""
        self.waits: dict[object, object] = {}
        self._lock_seconds = lock_seconds
        self._changed: list[asyncio.Future[None]] = []
        self.connections: list[SimulatedConnection] = []

    @asynccontextmanager
    async def connect(self, sessions: Sessions) -> AsyncIterator[Session]:
        """A session as `ingest` has it, over a connection that is made up."""
        connection = SimulatedConnection(self)
        await connection.trouble()
        self.connections.append(connection)
        try:
            yield Session(sessions, cast(Any, connection), None)
        finally:
            connection.end()
            self.connections.remove(connection)

    def connector(self) -> Callable[[], Any]:
        """What a Writer connects with."""
        sessions = Sessions(cast(Any, SimpleNamespace(options={}, bounds=None)))
        return lambda: self.connect(sessions)

    def stall(self) -> None:
        """Let the standby hear nothing any more."""
        self.replicating = False

    def resume(self) -> None:
        """Let the standby have all that it missed."""
        self.replicating = True
        self.replicated = set(self.visible)
        self.change()

    def cancel_waits(self) -> None:
        """Cancel the waits for the standby, as an administrator may."""
        for connection in self.connections:
            connection.wait_cancelled = True
        self.change()

    def fail_over(self) -> None:
        """Lose the primary, and with it whatever the standby does not have."""
        for connection in self.connections:
            connection.end()
        self.visible = set(self.replicated)
        self.replicating = True
        self.change()

    def change(self) -> None:
        """Wake whoever waits for something else to happen."""
        changed, self._changed = self._changed, []
        for each in changed:
            if not each.done():
                each.set_result(None)

    async def changed(self) -> None:
        """Wait until something happened."""
        self._changed.append(asyncio.get_running_loop().create_future())
        await self._changed[-1]

    async def lock(self, number: int, connection: object) -> None:
        """Wait until nobody else holds the reading. Raises LockNotAvailable after a while."""
        if self.locks.get(number, connection) is connection:
            return
        end = asyncio.get_running_loop().time() + self._lock_seconds
        try:
            while (holder := self.locks.get(number, connection)) is not connection:
                self.waits[connection] = holder
                self._look_for_deadlock(connection)
                try:
                    async with asyncio.timeout_at(end):
                        await self.changed()
                except TimeoutError:
                    raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout") from None
        finally:
            self.waits.pop(connection, None)

    def _look_for_deadlock(self, connection: object) -> None:
        waiting = self.waits.get(connection)
        while waiting is not None and waiting is not connection:
            waiting = self.waits.get(waiting)
        self.deadlocks += waiting is connection


@dataclass(eq=False)
class _Cursor:
    rowcount: int = 0

    async def fetchall(self) -> list[tuple[str, str]]:
        return [("on", "*")]


@dataclass(eq=False)
class SimulatedConnection:
    """What `ingest` uses of psycopg's AsyncConnection."""

    database: SimulatedDatabase
    status: TransactionStatus = TransactionStatus.IDLE
    wait_cancelled: bool = False
    _alive: bool = True
    _added: set[int] = field(default_factory=set)
    _wrote: bool = False
    _batch: list[tuple[str, Any, _Cursor]] | None = None
    _notice: Callable[[Any], None] | None = None

    @property
    def info(self) -> Any:
        return SimpleNamespace(transaction_status=self.status)

    def add_notice_handler(self, handler: Callable[[Any], None]) -> None:
        self._notice = handler

    async def execute(self, statement: str, parameters: Any = None) -> _Cursor:
        cursor = _Cursor()
        if self._batch is not None:
            self._batch.append((statement, parameters, cursor))
        else:
            await self._run([(statement, parameters, cursor)])
        return cursor

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator["SimulatedConnection"]:
        self._batch = []
        try:
            yield self
            await self.sync()
        finally:
            self._batch = None

    async def sync(self) -> None:
        assert self._batch is not None
        batch, self._batch = self._batch, []
        if batch:
            await self._run(batch)

    async def rollback(self) -> None:
        await self.trouble()
        self._abort()
        self.status = TransactionStatus.IDLE

    def end(self) -> None:
        """Break the connection."""
        self._alive = False
        self.status = TransactionStatus.UNKNOWN
        self._abort()

    async def trouble(self) -> None:
        """Take a moment, in which something may go wrong. Raises OperationalError if the connection is no more."""
        faults, chance = self.database.faults, self.database.chance
        await asyncio.sleep(chance.random() if chance.random() < faults.slow else 0.001)
        if chance.random() < faults.hangs:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                # As psycopg, which asks the server to stop, and waits for that; and the connection is of no use then.
                self.end()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(10 * chance.random())
                if chance.random() < 0.3:
                    raise psycopg.OperationalError("the server did not stop")
        if self.database.away or chance.random() < faults.breaks:
            self.end()
        if not self._alive:
            raise psycopg.OperationalError("the connection is lost")

    async def _run(self, batch: list[tuple[str, Any, _Cursor]]) -> None:
        await self.trouble()
        try:
            for statement, parameters, cursor in batch:
                await self._do(statement, parameters, cursor)
                # In which others do something.
                await asyncio.sleep(0.001 * self.database.chance.random())
            if self.status is TransactionStatus.IDLE:
                await self._commit()
        except BaseException as error:
            self._abort()
            if self.status is TransactionStatus.INTRANS:
                self.status = TransactionStatus.INERROR
            if not self._alive and isinstance(error, psycopg.Error):
                raise psycopg.OperationalError("the connection is lost") from error
            raise
        # The answer may get lost too.
        await self.trouble()

    async def _do(self, statement: str, parameters: Any, cursor: _Cursor) -> None:
        if statement == "BEGIN":
            self.status = TransactionStatus.INTRANS
        elif statement == "COMMIT":
            await self._commit()
            self.status = TransactionStatus.IDLE
        elif "INSERT INTO temperatures" in statement:
            self._wrote |= "pg_logical_emit_message(true" in statement
            cursor.rowcount = await self._insert(_numbers(parameters), skip="ON CONFLICT DO NOTHING" in statement)

    async def _insert(self, numbers: list[int], *, skip: bool) -> int:
        database = self.database
        if database.chance.random() < database.faults.refuses:
            raise psycopg.errors.QueryCanceled("canceling statement due to user request")
        added = 0
        # In the order of the statement.
        for number in sorted(numbers):
            if number in database.poison:
                raise psycopg.errors.OutOfMemory("out of memory")
            if number in database.faulty:
                raise psycopg.errors.CheckViolation("temperature_plausible")
            await database.lock(number, self)
            if not self._alive:
                raise psycopg.OperationalError("the connection is lost")
            if number in database.visible or number in self._added:
                if not skip:
                    raise psycopg.errors.UniqueViolation("temperatures_pkey")
                continue
            self._added.add(number)
            database.locks[number] = self
            added += 1
        self._wrote |= added > 0
        return added

    async def _commit(self) -> None:
        """Make what was added visible, when the standby has it or nobody waits for that any more."""
        self.wait_cancelled = False
        try:
            while self._alive and self._wrote and not self.database.replicating and not self.wait_cancelled:
                await self.database.changed()
        except asyncio.CancelledError:
            self._publish(replicated=False)
            raise
        if not self._alive:
            # It was committed on a primary that is no more.
            self._added.clear()
            raise psycopg.OperationalError("the connection is lost")
        if self._wrote and not self.database.replicating and self._notice:
            self._notice(SimpleNamespace(source_function="SyncRepWaitForLSN", message_primary="canceling wait"))
        self._publish(replicated=self.database.replicating)

    def _publish(self, *, replicated: bool) -> None:
        self.database.visible |= self._added
        if replicated:
            self.database.replicated |= self._added
        self._abort()

    def _abort(self) -> None:
        for number in self._added:
            self.database.locks.pop(number, None)
        self._added.clear()
        self._wrote = False
        self.database.change()


def _numbers(parameters: Any) -> list[int]:
    """The numbers of the readings in the arrays of a statement."""
    *_, temperatures = parameters
    elements: Iterator[tuple[int, float]] = struct.iter_unpack(">id", temperatures[20:])
    return [round(value) for _, value in elements]
