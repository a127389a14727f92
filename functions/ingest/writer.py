"""Group commit: requests that arrive while others are being committed share the next statement and its commit."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from math import inf, nan
from time import perf_counter
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from ingest.admission import Admission
from ingest.committing import Acknowledge, Failure, failure
from ingest.grouping import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Group, Groups, Request
from shared.backoff import Backoff
from shared.database import unanswered
from shared.metrics import HISTOGRAM_SECONDS
from shared.problems import Problem
from shared.readings import Reading

log = logging.getLogger("ingest")

COPIES_KNOWN_SECONDS = 15
"""For so long the database is not asked again for its copies."""
COPIES_SHOWN_SECONDS = 600
"""For so long they are told, while nothing is stored: devices may send once in a while."""

READINGS = Counter(
    "temperature_readings", "Readings that are stored as clients were told: now, or before as a duplicate", ["outcome"]
)
STORED, DUPLICATE = READINGS.labels("stored"), READINGS.labels("duplicate")
COMMIT_SECONDS = Histogram(
    "temperature_commit_seconds", "Groups of requests, until they are committed", buckets=HISTOGRAM_SECONDS
)
COMMIT_READINGS = Histogram(
    "temperature_commit_readings", "Readings of a commit", buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
)
FAILURES = Counter("temperature_commit_failures", "Groups of requests, or connections, that failed and are tried again")
COPIES = Gauge("temperature_copies", "Copies of a reading that there are before it is acknowledged; NaN if unknown")
COPIES.set(nan)
COPIES_MEANT = Gauge("temperature_copies_meant", "Copies of a reading that there should be: COPIES")


class Session(Protocol):
    """What stores requests; see ingest.committing."""

    async def store(self, requests: Sequence[Request], acknowledge: Acknowledge) -> None:
        """Commit the requests, and acknowledge each. Raises what `failure` classifies."""

    async def copies(self) -> int:
        """How many copies there are of what it acknowledges."""


class Writer:
    """Stores readings, each request all or nothing, and reports only what is committed.

    Each of the `connections` commits a group at a time, which takes no more requests once it has `most_readings`. A
    request has `deadline_seconds`. It belongs to the event loop in which it was made.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Session]],
        admission: Admission,
        *,
        connections: int,
        deadline_seconds: float,
        most_readings: int,
    ) -> None:
        self._admission = admission
        self._connect = connect
        self._deadline_seconds = deadline_seconds
        self._loop = asyncio.get_running_loop()
        self._groups = Groups(connections=connections, most_readings=most_readings)
        self._tasks: set[asyncio.Task[None]] = set()
        # What the database said last, if it was an error.
        self._failure: Exception | None = None
        self._copies, self._copies_asked = nan, -inf
        COPIES.set_function(self._copies_now)
        for _ in range(connections):
            self._start()

    async def store(self, readings: Sequence[Reading]) -> int:
        """Store the readings and return how many of them were stored already.

        Raises Problem 503 if they are not known to be committed within the deadline, or if too many wait, and 500 if
        the database will never take them. After a 503 they may be stored all the same; sending them again stores
        nothing twice.
        """
        self._admission.check()
        request = Request(readings, self._loop.create_future())
        self._admission.waiting += request.size
        self._groups.add(request)
        # Several times as fast as asyncio.timeout.
        expiry = self._loop.call_later(self._deadline_seconds, self._expire, request)
        try:
            return await request.answer
        finally:
            expiry.cancel()
            self._admission.waiting -= request.size

    def _expire(self, request: Request) -> None:
        request.refuse(unanswered(self._failure, "send the readings again"))

    def _start(self) -> None:
        task = self._loop.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        """Store groups over one connection at a time, until the task is cancelled."""
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            await self._groups.until_wanted()
            try:
                await self._serve(backoff)
            except Exception as error:
                if _is_replaced():
                    return
                bug = error if failure(error) is Failure.FAULTY else None
                log.warning("storing readings failed, trying again: %r", error, exc_info=bug)
                self._failure = error
                FAILURES.inc()
                await asyncio.sleep(backoff.pause_seconds())

    async def _serve(self, backoff: Backoff) -> None:
        """Store groups over a connection, for as long as it can be used."""
        replacement = self._replace_if_stuck()
        try:
            async with self._connect() as session:
                replacement.cancel()
                await self._store_groups(session, backoff)
        finally:
            replacement.cancel()

    async def _store_groups(self, session: Session, backoff: Backoff) -> None:
        was_wanted = True
        while True:
            if group := self._groups.take(was_wanted=was_wanted):
                await self._store(session, group)
                backoff.reset()
            else:
                await self._groups.until_wanted()
            was_wanted = group is None

    def _replace_if_stuck(self, group: Group | None = None) -> asyncio.TimerHandle:
        """Have the running task replaced when nobody waits any more for what it does; the database may be frozen."""
        task = asyncio.current_task()
        assert task is not None
        return self._loop.call_later(self._deadline_seconds, self._replace, task, group)

    def _replace(self, task: "asyncio.Task[None]", group: Group | None) -> None:
        log.warning("the database did not answer for %s seconds, trying another connection", self._deadline_seconds)
        FAILURES.inc()
        # It stays in _tasks: psycopg asks the server to stop, and waits for that for up to 10 seconds.
        task.cancel()
        if group:
            self._groups.put_back(group)
            self._groups.finish(group)
        self._start()

    async def _store(self, session: Session, group: Group) -> None:
        """Store a group or have it tried again. Raises an error after which the connection is of no use."""
        replacement = self._replace_if_stuck(group)
        try:
            await self._commit(session, group.requests)
            self._failure = None
        except Exception as error:
            if _is_replaced():
                raise
            self._failure = error
            if self._give_back(group, error) is Failure.AWAY:
                raise
            log.warning("storing %d requests failed, trying them again in parts: %r", len(group.requests), error)
            FAILURES.inc()
        finally:
            replacement.cancel()
            self._groups.finish(group)

    def _give_back(self, group: Group, error: Exception) -> Failure:
        """Have a group that failed tried again, or refuse the request that is at fault. Return what the failure is."""
        found = failure(error)
        if found is Failure.FAULTY and group.has_one_request:
            log.error("the database refused readings that had passed validation", exc_info=error)
            detail = "The readings could not be stored; nothing of the request was"
            group.requests[0].refuse(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
        else:
            self._groups.put_back(group)
        return found

    async def _commit(self, session: Session, requests: Sequence[Request]) -> None:
        """Store requests, and count what became of them."""
        started = perf_counter()
        acknowledged = _Acknowledged()
        try:
            await session.store(requests, acknowledged.add)
        finally:
            STORED.inc(acknowledged.stored)
            DUPLICATE.inc(acknowledged.duplicates)
        _report(requests, acknowledged.duplicates, perf_counter() - started)
        await self._look_at_copies(session)

    async def _look_at_copies(self, session: Session) -> None:
        if self._loop.time() >= self._copies_asked + COPIES_KNOWN_SECONDS:
            self._copies = await session.copies()
            self._copies_asked = self._loop.time()

    def _copies_now(self) -> float:
        return self._copies if self._loop.time() < self._copies_asked + COPIES_SHOWN_SECONDS else nan


class _Acknowledged:
    """The readings of requests whose senders were told. Others are counted when they come again."""

    __slots__ = ("duplicates", "stored")

    def __init__(self) -> None:
        self.stored = self.duplicates = 0

    def add(self, request: Request, duplicates: int) -> None:
        if request.acknowledge(duplicates):
            self.stored += request.size - duplicates
            self.duplicates += duplicates


def _is_replaced() -> bool:
    """Whether the running task was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report(requests: Sequence[Request], duplicates: int, seconds: float) -> None:
    """Count a commit, and write its line to the log: under load there are hundreds in a second."""
    size = sum(request.size for request in requests)
    COMMIT_SECONDS.observe(seconds)
    COMMIT_READINGS.observe(size)
    log.debug(
        "stored %d readings, %d of them already there, for %d requests in %.1f ms",
        size,
        duplicates,
        len(requests),
        1000 * seconds,
        extra={
            "fields": {
                "readings": size,
                "duplicates": duplicates,
                "requests": len(requests),
                "duration_ms": round(1000 * seconds, 3),
            }
        },
    )
