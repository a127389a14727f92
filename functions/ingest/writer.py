"""Group commit: requests that arrive while others are being committed share the next statement and its commit."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import LiteralString

import psycopg
from prometheus_client import Counter, Gauge, Histogram

from ingest import arrays
from shared.database import Database
from shared.metrics import SECONDS
from shared.problems import Problem, unavailable
from shared.readings import Reading

log = logging.getLogger("ingest")

INSERT = """
    INSERT INTO temperatures (building_id, room_id, timestamp, temperature)
    SELECT * FROM unnest(%b, %b, %b, %b) AS reading (building_id, room_id, timestamp, temperature)
    -- One order for all: writers that meet on the same readings wait for each other and never deadlock.
    ORDER BY building_id COLLATE "C", room_id COLLATE "C", timestamp, temperature
"""
INSERT_NEW = f"{INSERT} ON CONFLICT DO NOTHING"
CAREFUL = 300
"""Seconds after a duplicate in which readings are not taken for new: PostgreSQL logs each time that they are not."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to reach the database; the pause doubles."""
ENOUGH = 1_000
"""Readings worth a commit of their own while another connection is busy. Fewer are better off in the next group."""
PATIENCE = 0.1
"""Seconds after which a busy connection may be stuck, and others take what waits, however little."""


READINGS = Counter(
    "temperature_readings", "Readings that are stored as clients were told: now, or before as a duplicate", ["outcome"]
)
STORED, DUPLICATE = READINGS.labels("stored"), READINGS.labels("duplicate")
COMMITS = Histogram("temperature_commit_seconds", "Groups of requests, until they are committed", buckets=SECONDS)
COMMITTED = Histogram(
    "temperature_commit_readings", "Readings of a commit", buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
)
FAILURES = Counter("temperature_commit_failures", "Groups of requests that were put back after an error")
WAITING = Gauge("temperature_waiting_readings", "Readings that are not stored yet")
WAITING_LIMIT = Gauge("temperature_waiting_readings_limit", "Readings that may wait; more are refused")


@dataclass(slots=True, eq=False)
class _Request:
    readings: Sequence[Reading]
    size: int
    duplicates: asyncio.Future[int]


class Writer:
    """Stores readings, each request all or nothing, and reports only what is committed.

    Each connection to the database commits up to `batch` readings at a time; all but the first are used only when
    there is enough for them. More than `queue` readings waiting are refused. It belongs to the event loop in which it
    was made.
    """

    def __init__(self, database: Database, *, batch: int, queue: int) -> None:
        self._database = database
        self._batch = batch
        self._limit = queue
        self._unanswered = 0
        self._queue: deque[_Request] = deque()
        self._queued = 0
        self._taken = 0.0
        self._careful_until = 0.0
        self._idle: list[asyncio.Future[None]] = []
        WAITING.set_function(lambda: self._unanswered)
        self._loop = asyncio.get_running_loop()
        self._writers = [asyncio.create_task(self._write()) for _ in range(database.connections)]

    def full(self, readings: int) -> bool:
        """Whether the queue has no room for so many readings. An empty one has room for any number."""
        return self._unanswered > 0 and self._unanswered + readings > self._limit

    def admit(self, readings: int) -> None:
        """Raise Problem 503 if the queue is full for so many readings."""
        if self.full(readings):
            raise unavailable("queue_full", "Too many readings are waiting to be stored; send them again in a second")

    async def store(self, readings: Sequence[Reading]) -> int:
        """Store the readings and return how many of them were stored already.

        Raises Problem 503 if they are not known to be committed within the deadline, or if the queue is full. They may
        still be stored then; sending them again stores nothing twice.
        """
        self.admit(len(readings))
        request = _Request(readings, len(readings), self._loop.create_future())
        self._unanswered += request.size
        self._put([request])
        if self._idle and self._worthwhile(len(self._writers) - len(self._idle)):
            self._idle.pop().set_result(None)
        # Several times as fast as asyncio.timeout.
        expiry = self._loop.call_later(self._database.deadline, _expire, request)
        try:
            return await request.duplicates
        finally:
            expiry.cancel()
            self._unanswered -= request.size

    def _put(self, requests: Sequence[_Request]) -> None:
        self._queue.extend(requests)
        self._queued += sum(request.size for request in requests)

    def _worthwhile(self, others: int) -> bool:
        """Whether what waits is worth a commit now, while `others` are busy with theirs."""
        return others == 0 or self._queued >= ENOUGH or self._loop.time() - self._taken > PATIENCE

    async def _next(self) -> list[_Request]:
        """Wait for requests and take as many as one statement should hold."""
        requests: list[_Request] = []
        while not requests:
            if not (self._queue and self._worthwhile(len(self._writers) - len(self._idle) - 1)):
                self._idle.append(self._loop.create_future())
                await self._idle[-1]
            room = self._batch
            while self._queue and room > 0:
                request = self._queue.popleft()
                self._queued -= request.size
                if not request.duplicates.done():
                    requests.append(request)
                    room -= request.size
        self._taken = self._loop.time()
        return requests

    async def _write(self) -> None:
        pause = FIRST_PAUSE
        while True:
            requests = await self._next()
            try:
                url, options = self._database.url, self._database.options
                async with await psycopg.AsyncConnection.connect(url, **options) as connection:
                    arrays.register(connection)
                    while True:
                        # The database's own timeout does not help where its machine is stopped.
                        async with asyncio.timeout(self._database.deadline):
                            await self._commit(connection, requests)
                        pause = FIRST_PAUSE
                        requests = await self._next()
            except (psycopg.Error, TimeoutError) as error:
                log.warning("storing readings failed, trying again: %r", error)
                FAILURES.inc()
                self._put(requests)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:
                log.exception("storing readings failed")
                for request in requests:
                    _fail(request)

    async def _commit(self, connection: psycopg.AsyncConnection, requests: Sequence[_Request]) -> None:
        """Store the readings of the requests with one commit, then answer the requests."""
        started = perf_counter()
        try:
            duplicates = await self._insert(connection, requests)
        except (psycopg.DataError, psycopg.IntegrityError):
            if len(requests) > 1:
                await connection.rollback()
                for request in requests:
                    await self._commit(connection, [request])
                return
            log.exception("the database refused readings that had passed validation")
            duplicates = []
            _fail(requests[0])
        for request, found in zip(requests, duplicates, strict=False):
            if not request.duplicates.done():
                request.duplicates.set_result(found)
        seconds = perf_counter() - started
        size, again = sum(request.size for request in requests), sum(duplicates)
        if duplicates:
            COMMITS.observe(seconds)
            COMMITTED.observe(size)
            STORED.inc(size - again)
            DUPLICATE.inc(again)
        log.info(
            "stored %d readings, %d of them already there, for %d requests in %.1f ms",
            size,
            again,
            len(requests),
            1000 * seconds,
            extra={
                "fields": {
                    "readings": size,
                    "duplicates": again,
                    "requests": len(requests),
                    "duration_ms": round(1000 * seconds, 3),
                }
            },
        )

    async def _insert(self, connection: psycopg.AsyncConnection, requests: Sequence[_Request]) -> list[int]:
        """Commit the readings of the requests, and return how many of each request were there already.

        Nearly all readings are new, and an INSERT that relies on it costs the database little more than half of one
        that does not. The writer may not read the table, so the one thing it learns of the latter is how many rows it
        added. As long as that is all of them, one statement serves all requests; otherwise each request gets its own,
        still in one commit.
        """
        if self._loop.time() >= self._careful_until:
            try:
                await _execute(connection, INSERT, requests)
                return [0] * len(requests)
            except psycopg.errors.UniqueViolation:
                self._careful_until = self._loop.time() + CAREFUL
        if len(requests) == 1:
            return [await _duplicates(connection, requests[0])]
        if await _insert_all(connection, requests):
            return [0] * len(requests)
        async with connection.transaction():
            return [await _duplicates(connection, request) for request in requests]


def _expire(request: _Request) -> None:
    # It may stand in the queue for as long as the database is away, and must not fill the memory there.
    request.readings = ()
    if not request.duplicates.done():
        request.duplicates.set_exception(
            unavailable("deadline", "The database did not answer in time; send the readings again", 5)
        )


def _fail(request: _Request) -> None:
    if not request.duplicates.done():
        request.duplicates.set_exception(
            Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The readings could not be stored; nothing of the request was")
        )


async def _insert_all(connection: psycopg.AsyncConnection, requests: Sequence[_Request]) -> bool:
    """Commit the readings of the requests if all of them are new, or none; return whether they were."""
    # The pipeline spares the round trip of the BEGIN.
    async with connection.pipeline() as pipeline:
        await connection.execute("BEGIN")
        cursor = await _execute(connection, INSERT_NEW, requests)
        await pipeline.sync()
        if new := cursor.rowcount == sum(request.size for request in requests):
            await connection.execute("COMMIT")
    if not new:
        # Not in the pipeline, at the end of which psycopg would forget to deallocate what a ROLLBACK makes it prepare
        # anew.
        await connection.rollback()
    return new


async def _duplicates(connection: psycopg.AsyncConnection, request: _Request) -> int:
    """Insert the readings of the request that are new, and return how many are not."""
    return request.size - (await _execute(connection, INSERT_NEW, [request])).rowcount


async def _execute(
    connection: psycopg.AsyncConnection, statement: LiteralString, requests: Sequence[_Request]
) -> psycopg.AsyncCursor:
    readings = [reading for request in requests for reading in request.readings]
    return await connection.execute(
        statement,
        (
            arrays.TextArray.of([reading["building_id"] for reading in readings]),
            arrays.TextArray.of([reading["room_id"] for reading in readings]),
            arrays.TimestampArray.of([reading["timestamp"] for reading in readings]),
            arrays.FloatArray.of([reading["temperature"] for reading in readings]),
        ),
    )
