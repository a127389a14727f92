"""Group commit: requests that arrive while others are being committed share the next statement and its commit."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter

import psycopg

from ingest import arrays
from shared.database import Database
from shared.problems import Problem, unavailable
from shared.readings import Reading

log = logging.getLogger("ingest")

INSERT = """
    INSERT INTO temperatures (building_id, room_id, timestamp, temperature)
    SELECT * FROM unnest(%b, %b, %b, %b) AS reading (building_id, room_id, timestamp, temperature)
    -- One order for all: writers that meet on the same readings wait for each other and never deadlock.
    ORDER BY building_id COLLATE "C", room_id COLLATE "C", timestamp, temperature
    ON CONFLICT DO NOTHING
"""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to reach the database; the pause doubles."""


@dataclass(slots=True, eq=False)
class _Request:
    readings: Sequence[Reading]
    duplicates: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Writer:
    """Stores readings, each request all or nothing, and reports only what is committed.

    Each connection to the database commits up to `batch` readings at a time. More than `queue` readings waiting are
    refused. It belongs to the event loop in which it was made.
    """

    def __init__(self, database: Database, *, batch: int, queue: int) -> None:
        self._database = database
        self._batch = batch
        self._limit = queue
        self._waiting = 0
        self._requests: asyncio.Queue[_Request] = asyncio.Queue()
        self._writers = [asyncio.create_task(self._write()) for _ in range(database.connections)]

    async def store(self, readings: Sequence[Reading]) -> int:
        """Store the readings and return how many of them were stored already.

        Raises Problem 503 if they are not known to be committed within the deadline, or if the queue is full. They may
        still be stored then; sending them again stores nothing twice.
        """
        if self._waiting and self._waiting + len(readings) > self._limit:
            raise unavailable("Too many readings are waiting to be stored; send them again in a second")
        request = _Request(readings)
        self._waiting += len(readings)
        self._requests.put_nowait(request)
        try:
            async with asyncio.timeout(self._database.deadline):
                return await request.duplicates
        except TimeoutError:
            # It may stand in the queue for as long as the database is away, and must not fill the memory there.
            request.readings = ()
            raise unavailable("The database did not answer in time; send the readings again", 5) from None
        finally:
            self._waiting -= len(readings)

    async def _next(self) -> list[_Request]:
        """Wait for requests and take as many as one statement should hold."""
        requests: list[_Request] = []
        room = self._batch
        while not requests or (room > 0 and not self._requests.empty()):
            request = await self._requests.get()
            if not request.duplicates.done():
                requests.append(request)
                room -= len(request.readings)
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
                            await _commit(connection, requests)
                        pause = FIRST_PAUSE
                        requests = await self._next()
            except (psycopg.Error, TimeoutError) as error:
                log.warning("storing readings failed, trying again: %r", error)
                for request in requests:
                    self._requests.put_nowait(request)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:
                log.exception("storing readings failed")
                for request in requests:
                    _fail(request)


class _DuplicatesFound(Exception):
    """Some readings of several requests were stored already; of which requests is still to be found."""


async def _commit(connection: psycopg.AsyncConnection, requests: Sequence[_Request]) -> None:
    """Store the readings of the requests with one commit, then answer the requests.

    The writer may not read the table, so the one thing it learns of a statement is how many rows it added. As long as
    that is all of them, one statement serves all requests; otherwise each request gets its own, still in one commit.
    """
    started = perf_counter()
    counts = [len(request.readings) for request in requests]
    try:
        if len(requests) == 1:
            duplicates = [counts[0] - await _insert(connection, requests)]
        else:
            try:
                async with connection.transaction():
                    if await _insert(connection, requests) < sum(counts):
                        raise _DuplicatesFound
                duplicates = [0] * len(requests)
            except _DuplicatesFound:
                async with connection.transaction():
                    duplicates = [
                        count - await _insert(connection, [request])
                        for count, request in zip(counts, requests, strict=True)
                    ]
    except (psycopg.DataError, psycopg.IntegrityError):
        if len(requests) > 1:
            for request in requests:
                await _commit(connection, [request])
            return
        log.exception("the database refused readings that had passed validation")
        duplicates = []
        _fail(requests[0])
    for request, found in zip(requests, duplicates, strict=False):
        if not request.duplicates.done():
            request.duplicates.set_result(found)
    log.info(
        "stored %d readings, %d of them already there, for %d requests in %.1f ms",
        sum(counts),
        sum(duplicates),
        len(requests),
        1000 * (perf_counter() - started),
    )


def _fail(request: _Request) -> None:
    if not request.duplicates.done():
        request.duplicates.set_exception(
            Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The readings could not be stored; nothing of the request was")
        )


async def _insert(connection: psycopg.AsyncConnection, requests: Sequence[_Request]) -> int:
    """Insert the readings of the requests and return how many were new."""
    readings = [reading for request in requests for reading in request.readings]
    cursor = await connection.execute(
        INSERT,
        (
            arrays.TextArray.of([reading["building_id"] for reading in readings]),
            arrays.TextArray.of([reading["room_id"] for reading in readings]),
            arrays.TimestampArray.of([reading["timestamp"] for reading in readings]),
            arrays.FloatArray.of([reading["temperature"] for reading in readings]),
        ),
    )
    return cursor.rowcount
