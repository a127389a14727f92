"""A connection that stores requests. It acknowledges only what will stay stored."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from ingest import arrays
from ingest.grouping import Request
from shared.confirmation import Unconfirmed, confirming
from shared.database import Database

INSERT_ALL = """
    INSERT INTO temperatures (building_id, room_id, timestamp, temperature)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::float8[])
        AS reading (building_id, room_id, timestamp, temperature)
    -- One order for all: writers that meet on the same readings wait for each other and never deadlock.
    ORDER BY building_id COLLATE "C", room_id COLLATE "C", timestamp, temperature
"""
"""Stores readings that are all new, and fails for others."""
INSERT_MISSING = """
    INSERT INTO temperatures (building_id, room_id, timestamp, temperature)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::float8[])
        AS reading (building_id, room_id, timestamp, temperature)
    -- A transaction that adds nothing writes no WAL, and its commit waits for no disk and no standby. This has it wait
    -- until whatever it found is there too.
    WHERE (SELECT pg_logical_emit_message(true, 'temperature', '')) IS NOT NULL
    ORDER BY building_id COLLATE "C", room_id COLLATE "C", timestamp, temperature
    ON CONFLICT DO NOTHING
"""
"""Stores the readings that are new, and waits until the others are as safe as these."""
COPIES_SETTINGS = """
    SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('fsync')
"""
DUPLICATES_EXPECTED_SECONDS = 300
"""After a duplicate, readings are not taken for new for so long: PostgreSQL logs each time that they are not."""

Acknowledge = Callable[[Request, int], None]


class Failure(Enum):
    """Who is at fault, as an error says."""

    AWAY = "the connection, or the database as a whole"
    REFUSED = "a request perhaps, which may succeed later"
    FAULTY = "a request perhaps, which will never succeed"


_AWAY_SQLSTATES = ("08", "25", "28", "3D", "42", "53", "57P")
"""SQLSTATE: connections; a server that only reads; no access; no database; no schema; no place; a server that ends."""
_FAULTY_SQLSTATES = ("22", "23")
"""SQLSTATE: data, constraints."""
_OUT_OF_MEMORY_SQLSTATE = "53200"
"""Of all that there is no place for, this may be for one statement alone."""


def failure(error: Exception) -> Failure:
    """Classify what `Session.store` or a connection raised."""
    if isinstance(error, TimeoutError | OSError | Unconfirmed):
        return Failure.AWAY
    if not isinstance(error, psycopg.Error):
        return Failure.FAULTY
    state = error.sqlstate
    if state is None or (state.startswith(_AWAY_SQLSTATES) and state != _OUT_OF_MEMORY_SQLSTATE):
        return Failure.AWAY
    return Failure.FAULTY if state.startswith(_FAULTY_SQLSTATES) else Failure.REFUSED


class Sessions:
    """Connects to the database. It belongs to the event loop in which it was made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._duplicates_expected_until = 0.0

    @asynccontextmanager
    async def connect(self) -> "AsyncIterator[Session]":
        """A connection, until the end of the context. Raises what `failure` classifies."""
        async with await psycopg.AsyncConnection.connect(self._database.url, **self._database.options) as connection:
            await _check_triggers(connection)
            yield Session(self, connection, self._database.bounds)

    @property
    def expects_duplicates(self) -> bool:
        """Whether readings are not taken for new."""
        return self._loop.time() < self._duplicates_expected_until

    def expect_duplicates(self) -> None:
        """Take no readings for new for a while."""
        self._duplicates_expected_until = self._loop.time() + DUPLICATES_EXPECTED_SECONDS


class Session:
    """One connection to the database.

    Nearly all readings are new, and an INSERT that relies on it costs the database little more than half of one that
    does not. The writer may not read the table, so the one thing it learns of the latter is how many rows it added. As
    long as that is all of them, one statement serves all requests; otherwise each request gets its own.
    """

    def __init__(self, sessions: Sessions, connection: psycopg.AsyncConnection, bounds: LiteralString | None) -> None:
        self._sessions = sessions
        self._connection = connection
        self._bounds = bounds
        self._confirm = confirming(connection)

    async def store(self, requests: Sequence[Request], acknowledge: Acknowledge) -> None:
        """Commit the readings of the requests, and acknowledge each with how many of it were there already.

        `failure` classifies what it raises. Requests that it did not acknowledge may be stored or not.
        """
        try:
            if await self._store_all_new(requests):
                for request in requests:
                    acknowledge(request, 0)
            else:
                await self._store_each(requests, acknowledge)
        except psycopg.Error:
            if self._connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                await self._connection.rollback()
            raise

    async def copies(self) -> int:
        """How many copies of a reading there are before it is acknowledged, as the database is configured now."""
        cursor = await self._connection.execute(COPIES_SETTINGS)
        [(commit, names, fsync)] = await cursor.fetchall()
        return copies(commit, names, fsync)

    async def _store_all_new(self, requests: Sequence[Request]) -> bool:
        """Commit the readings of the requests if all of them are new, otherwise none; return whether they were."""
        if self._sessions.expects_duplicates:
            # A request alone gets the statement of `_store_each` at once.
            return len(requests) > 1 and await self._store_if_new(requests)
        try:
            await self._commit(INSERT_ALL, requests)
        except psycopg.errors.UniqueViolation:
            self._sessions.expect_duplicates()
            return False
        return True

    async def _store_if_new(self, requests: Sequence[Request]) -> bool:
        # The pipeline spares the round trip of the BEGIN.
        async with self._connection.pipeline() as pipeline:
            await self._connection.execute("BEGIN")
            if self._bounds:
                await self._connection.execute(self._bounds)
            cursor = await self._execute(INSERT_MISSING, requests)
            await pipeline.sync()
            if new := cursor.rowcount == sum(request.size for request in requests):
                await self._connection.execute("COMMIT")
        if new:
            self._confirm()
        else:
            # Not in the pipeline: a ROLLBACK there has psycopg prepare statements anew, and it would not deallocate the
            # old ones.
            await self._connection.rollback()
        return new

    async def _store_each(self, requests: Sequence[Request], acknowledge: Acknowledge) -> None:
        # Each in a transaction of its own: a second statement could wait for another writer, which waits for the rooms
        # that the first one holds. A request that nobody waits for any more has no readings left.
        for request in requests:
            if request.waits:
                acknowledge(request, request.size - await self._commit(INSERT_MISSING, [request]))

    async def _commit(self, insert: LiteralString, requests: Sequence[Request]) -> int:
        """Run the statement in a transaction of its own, and return how many readings it added."""
        if self._bounds:
            # What is in a pipeline is one transaction.
            async with self._connection.pipeline():
                await self._connection.execute(self._bounds)
                cursor = await self._execute(insert, requests)
        else:
            cursor = await self._execute(insert, requests)
        self._confirm()
        return cursor.rowcount

    async def _execute(self, statement: LiteralString, requests: Sequence[Request]) -> psycopg.AsyncCursor:
        readings = [reading for request in requests for reading in request.readings]
        return await self._connection.execute(
            statement,
            (
                arrays.texts([reading["building_id"] for reading in readings]),
                arrays.texts([reading["room_id"] for reading in readings]),
                arrays.timestamps([reading["timestamp"] for reading in readings]),
                arrays.floats([reading["temperature"] for reading in readings]),
            ),
        )


async def _check_triggers(connection: psycopg.AsyncConnection) -> None:
    """Raise psycopg.OperationalError where triggers do not run: what is stored would be in no room, and no average."""
    cursor = await connection.execute("SHOW session_replication_role")
    if await cursor.fetchone() == ("replica",):
        raise psycopg.OperationalError("session_replication_role is replica: no trigger would mark what is stored")


def copies(synchronous_commit: str, synchronous_standby_names: str, fsync: str) -> int:
    """How many disks have a commit before it succeeds: 0 if not even the server's own does.

    All are settings of PostgreSQL, as it shows them.
    """
    if synchronous_commit == "off":
        return 0
    own = int(fsync == "on")
    # With remote_write a standby has it in memory only.
    if synchronous_commit in {"local", "remote_write"} or not synchronous_standby_names.strip():
        return own
    number = re.match(r"\s*(?:ANY|FIRST)?\s*(\d+)\s*\(", synchronous_standby_names, re.IGNORECASE)
    return own + int(number[1] if number else 1)
