"""What the writer of `ingest` does with any order of events, on a clock and a database that are made up."""

import asyncio
import gc
import logging
import os
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from math import isnan
from multiprocessing import get_context
from typing import Any, TypeVar, cast

import psycopg
import pytest
from prometheus_client import REGISTRY

from ingest.admission import Admission
from ingest.committing import Acknowledge, Failure, copies, failure
from ingest.grouping import STUCK_SECONDS, Request
from ingest.writer import DUPLICATE, STORED, Writer
from shared.confirmation import Unconfirmed
from shared.problems import Problem
from tests.simulation import Faults, SimulatedDatabase, SimulatedLoop, reading
from tests.support import LONG

T = TypeVar("T")
DEADLINE = 5.0
SCHEDULES = 100_000 if LONG else 2_000
SEED = int(os.environ.get("SEED") or random.randrange(10**9))


def simulated(work: Coroutine[Any, Any, T]) -> T:
    # Nobody reads what so many failures have to say.
    logging.getLogger("ingest").setLevel(logging.CRITICAL)
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        return SimulatedLoop().run(work)
    finally:
        gc.set_threshold(*thresholds)
        logging.getLogger("ingest").setLevel(logging.NOTSET)


def writer_on(database: SimulatedDatabase, *, connections: int = 2, queue: int = 50_000) -> Writer:
    return Writer(
        database.connector(), Admission(queue), connections=connections, deadline_seconds=DEADLINE, most_readings=10_000
    )


@dataclass
class Answer:
    """What became of a request: its status, its duplicates, and the seconds that it took."""

    status: int
    duplicates: int
    seconds: float


async def send(writer: Writer, numbers: list[int]) -> Answer:
    started = asyncio.get_running_loop().time()
    status, duplicates = 201, 0
    try:
        duplicates = await writer.store([reading(number) for number in numbers])
    except Problem as problem:
        status = int(problem.status)
    return Answer(status, duplicates, asyncio.get_running_loop().time() - started)


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


def test_only_the_request_that_the_database_has_no_memory_for_fails() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        database.poison = {7}
        writer = writer_on(database)
        answers = await asyncio.gather(*(send(writer, [number]) for number in range(12)))
        assert statuses(answers) == [503 if number == 7 else 201 for number in range(12)]
        assert max(answer.seconds for answer in answers if answer.status == 201) < 0.2

    simulated(play())


def test_only_the_request_whose_reading_another_holds_waits() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        database.locks[7] = "somebody"
        writer = writer_on(database)
        answers = [asyncio.create_task(send(writer, [number])) for number in range(300)]
        await asyncio.sleep(4)
        assert [number for number, answer in enumerate(answers) if not answer.done()] == [7]
        late = await send(writer, [1000])
        assert (late.status, late.seconds < 0.2) == (201, True)
        del database.locks[7]
        database.change()
        assert (await answers[7]).status == 201
        assert max(answer.result().seconds for answer in answers if answer is not answers[7]) < 2.5

    simulated(play())


def test_requests_that_fail_again_and_again_leave_a_connection_to_others() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        database.locks |= dict.fromkeys(range(4), "somebody")
        writer = writer_on(database)
        held = [asyncio.create_task(send(writer, [number])) for number in range(4)]
        await asyncio.sleep(1)
        late = []
        for number in range(100, 130):
            late.append(await send(writer, [number]))
            await asyncio.sleep(0.05)
        assert statuses(late) == [201] * 30
        assert max(answer.seconds for answer in late) < 0.15
        database.locks.clear()
        database.change()
        assert statuses(await asyncio.gather(*held)) == [201] * 4

    simulated(play())


def test_a_lone_request_opens_one_connection_also_right_after_the_start() -> None:
    async def play() -> None:
        # The clock is older than the writer.
        await asyncio.sleep(10)
        database = SimulatedDatabase(random.Random(1))
        assert (await send(writer_on(database, connections=2), [1])).status == 201
        assert len(database.connections) == 1

    simulated(play())


def test_connections_that_hang_again_and_again_are_replaced_by_no_more_than_there_were() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        writer = writer_on(database, connections=2)
        for number in range(10):
            database.faults = Faults(hangs=1.0)
            hanging = asyncio.create_task(send(writer, [number]))
            await asyncio.sleep(0.1)
            database.faults = Faults()
            await hanging
        # Until the last of them has ended.
        await asyncio.sleep(20)
        for number in range(100, 200):
            database.locks[number] = "somebody"
        held = [asyncio.create_task(send(writer, [number])) for number in range(100, 200)]
        await asyncio.sleep(1)
        assert len(database.connections) == 2
        database.locks.clear()
        database.change()
        assert statuses(await asyncio.gather(*held)) == [201] * 100

    simulated(play())


@pytest.mark.parametrize("later", [0.0, 0.05, 0.5])
def test_a_lone_request_waits_for_no_connection_that_hangs(later: float) -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1), Faults(hangs=1.0))
        writer = writer_on(database)
        hanging = asyncio.create_task(send(writer, [1]))
        await asyncio.sleep(0.001)
        database.faults = Faults()
        await asyncio.sleep(later)
        answer = await send(writer, [2])
        assert answer.status == 201
        assert answer.seconds < STUCK_SECONDS + 0.02
        await hanging

    simulated(play())


def test_no_duplicate_is_acknowledged_that_the_standby_does_not_have() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        writer = writer_on(database)
        assert (await send(writer, [1])).status == 201
        database.stall()
        first = asyncio.create_task(send(writer, [2]))
        await asyncio.sleep(1)
        database.cancel_waits()
        await asyncio.sleep(1)
        assert 2 in database.visible
        assert not first.done()
        assert statuses([await first, await send(writer, [2]), await send(writer, [1, 2])]) == [503, 503, 503]
        database.resume()
        assert (await send(writer, [2])).duplicates == 1

    simulated(play())


@pytest.mark.parametrize("seed", range(20))
def test_writers_that_get_the_same_in_other_orders_never_deadlock(seed: int) -> None:
    async def play() -> None:
        chance = random.Random(seed)
        database = SimulatedDatabase(chance)
        writers = [writer_on(database), writer_on(database)]
        for writer in writers:
            # From now on they count duplicates, request by request.
            assert statuses([await send(writer, [0]), await send(writer, [0])]) == [201, 201]
        requests = [(chance.choice(writers), chance.sample(range(40), 8)) for _ in range(60)]
        assert statuses(await asyncio.gather(*(send(*request) for request in requests))) == [201] * 60
        assert database.deadlocks == 0

    simulated(play())


def test_a_request_is_refused_for_what_waits_and_not_for_its_size() -> None:
    async def play() -> None:
        database = SimulatedDatabase(random.Random(1))
        writer = writer_on(database, queue=10)
        first, second = (asyncio.create_task(send(writer, numbers)) for numbers in ([1, 2, 3], list(range(10, 30))))
        await asyncio.sleep(0)
        assert (await send(writer, [4])).status == 503
        assert statuses([await first, await second, await send(writer, [4])]) == [201, 201, 201]

    simulated(play())


@pytest.mark.parametrize(
    ("commit", "names", "fsync", "expected"),
    [
        ("on", "", "on", 1),
        ("on", " ", "on", 1),
        ("off", "*", "on", 0),
        ("local", "*", "on", 1),
        ("remote_write", "*", "on", 1),
        ("on", "*", "on", 2),
        ("remote_apply", '"temperature-db-1"', "on", 2),
        ("on", "a, b", "on", 2),
        ("on", "2 (a, b, c)", "on", 3),
        ("on", "ANY 2 (a, b, c)", "on", 3),
        ("on", "first 1(a)", "on", 2),
        ("on", "", "off", 0),
        ("remote_write", "*", "off", 0),
        ("on", "2 (a, b, c)", "off", 2),
    ],
)
def test_copies_are_what_the_settings_of_the_database_promise(
    commit: str, names: str, fsync: str, expected: int
) -> None:
    assert copies(commit, names, fsync) == expected


class AskedSession:
    """A session that stores everything, and counts how often it is asked for the copies."""

    times = 0

    async def store(self, requests: Sequence[Request], acknowledge: Acknowledge) -> None:
        for request in requests:
            acknowledge(request, 0)

    async def copies(self) -> int:
        self.times += 1
        return 1


def test_the_database_is_asked_for_its_copies_every_fifteen_seconds_however_much_is_stored() -> None:
    async def play() -> None:
        session = AskedSession()
        writer = Writer(
            lambda: nullcontext(session), Admission(10), connections=1, deadline_seconds=DEADLINE, most_readings=10
        )
        for number in range(31):
            assert (await send(writer, [number])).status == 201
            await asyncio.sleep(1)
        # At 0, 15 and 30 seconds.
        assert session.times == 3

    simulated(play())


def test_copies_are_unknown_when_nothing_was_stored_for_long() -> None:
    def shown() -> float:
        found = REGISTRY.get_sample_value("temperature_copies")
        assert found is not None
        return found

    async def play() -> None:
        session = AskedSession()
        writer = Writer(
            lambda: nullcontext(session), Admission(10), connections=1, deadline_seconds=DEADLINE, most_readings=10
        )
        assert isnan(shown())
        for pause in (5 * 60, 11 * 60):
            assert (await send(writer, [1])).status == 201
            assert shown() == 1
            await asyncio.sleep(pause)
            # A device that sends every five minutes is enough.
            assert isnan(shown()) == (pause > 600)

    simulated(play())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), Failure.AWAY),
        (ConnectionRefusedError(), Failure.AWAY),
        (Unconfirmed(), Failure.AWAY),
        (psycopg.OperationalError(), Failure.AWAY),
        (psycopg.errors.ConnectionFailure(), Failure.AWAY),
        (psycopg.errors.ReadOnlySqlTransaction(), Failure.AWAY),
        (psycopg.errors.InvalidPassword(), Failure.AWAY),
        (psycopg.errors.InvalidCatalogName(), Failure.AWAY),
        (psycopg.errors.UndefinedTable(), Failure.AWAY),
        (psycopg.errors.DiskFull(), Failure.AWAY),
        (psycopg.errors.AdminShutdown(), Failure.AWAY),
        (psycopg.errors.OutOfMemory(), Failure.REFUSED),
        (psycopg.errors.QueryCanceled(), Failure.REFUSED),
        (psycopg.errors.LockNotAvailable(), Failure.REFUSED),
        (psycopg.errors.DeadlockDetected(), Failure.REFUSED),
        (psycopg.errors.CheckViolation(), Failure.FAULTY),
        (psycopg.errors.NumericValueOutOfRange(), Failure.FAULTY),
        (ValueError(), Failure.FAULTY),
    ],
)
def test_an_error_says_who_is_at_fault(error: Exception, expected: Failure) -> None:
    assert failure(error) is expected


@pytest.mark.parametrize("error", [ValueError("a bug"), psycopg.OperationalError("the database is away")])
def test_a_bug_is_logged_with_where_it_is(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        raise error
        yield

    async def play() -> None:
        writer = Writer(connect, Admission(10), connections=1, deadline_seconds=0.02, most_readings=10)
        with pytest.raises(Problem):
            await writer.store([reading(1)])

    asyncio.run(play())
    record = caplog.records[0]
    assert record.getMessage() == f"storing readings failed, trying again: {error!r}"
    assert bool(record.exc_info) == isinstance(error, ValueError)


@dataclass
class Schedule:
    """Arrivals, and what goes wrong meanwhile, all of it from a seed; and what must hold nevertheless."""

    seed: int
    acknowledged: set[int] = field(default_factory=set)
    counted: int = 0
    new: int = 0

    async def play(self) -> None:
        chance = self.chance = random.Random(self.seed)
        share = (0.0, 0.0, 0.05, 0.3)
        faults = Faults(*(chance.choice(share) for _ in range(4)))
        database = self.database = SimulatedDatabase(chance, faults)
        numbers = chance.randint(2, 12)
        if chance.random() < 0.2:
            database.poison = {chance.randrange(numbers)}
        if chance.random() < 0.2:
            database.faulty = {chance.randrange(numbers)}
        self.fair = faults == Faults()
        connections = [chance.choice((1, 2, 3)) for _ in range(chance.choice((1, 1, 2)))]
        self.connections = sum(connections)
        writers = [writer_on(database, connections=number) for number in connections]
        self.never = database.poison | database.faulty
        self.excused = set(self.never)
        before = STORED._value.get() + DUPLICATE._value.get()
        events = [self._happen() for _ in range(chance.choice((0, 0, 1, 2, 3)))]
        clients = [
            self._client(chance.choice(writers), chance.choices(range(numbers), k=chance.choice((1, 1, 1, 2, 5))))
            for _ in range(chance.randint(1, 8))
        ]
        await asyncio.gather(*events, *clients)
        await self._mend(writers)
        assert STORED._value.get() + DUPLICATE._value.get() - before == self.counted
        assert database.deadlocks == 0

    async def _client(self, writer: Writer, numbers: list[int]) -> None:
        await asyncio.sleep(self.chance.choice((0, 0.05, 1, 4)) * self.chance.random())
        for _ in range(self.chance.choice((1, 2, 3))):
            sending = asyncio.create_task(send(writer, numbers))
            if self.chance.random() < 0.1:
                # The client goes away.
                await asyncio.sleep(0.1 * self.chance.random())
                sending.cancel()
                await asyncio.wait([sending])
                if sending.cancelled():
                    return
            answer = await sending
            self._look_at(numbers, answer)
            if answer.status != 503:
                break

    def _look_at(self, numbers: list[int], answer: Answer) -> None:
        assert answer.seconds < DEADLINE + 0.001
        if answer.status == 201:
            assert not self.never & set(numbers)
            assert set(numbers) <= self.database.replicated
            self.acknowledged |= set(numbers)
            self.counted += len(numbers)
            self.new += len(numbers) - answer.duplicates
        elif answer.status == 500:
            assert self.database.faulty & set(numbers)
        else:
            assert answer.status == 503
            assert not self.fair or self.excused & set(numbers), "a request fails for another"

    async def _happen(self) -> None:
        chance, database = self.chance, self.database
        await asyncio.sleep(3 * chance.random())
        seconds = chance.choice((0.1, 1, 7)) * chance.random()
        kind = chance.choice(("stall", "fail over", "cancel", "away", "lock"))
        if kind == "lock":
            # It holds up whoever has it, and nobody else.
            number = chance.randrange(12)
            if number not in database.locks:
                self.excused.add(number)
                holder = database.locks[number] = object()
                await asyncio.sleep(seconds)
                if database.locks.get(number) is holder:
                    del database.locks[number]
                database.change()
            return
        self.fair = False
        if kind == "away":
            database.away = True
            await asyncio.sleep(seconds)
            database.away = False
            return
        database.stall()
        await asyncio.sleep(seconds)
        if kind == "cancel":
            database.cancel_waits()
            await asyncio.sleep(seconds)
        if kind == "fail over":
            database.fail_over()
        database.resume()
        assert self.acknowledged <= database.visible, "an acknowledged reading is lost"

    async def _mend(self, writers: list[Writer]) -> None:
        """End all that is wrong; then each writer stores what comes, soon."""
        self.database.faults = Faults()
        # What hangs is given up by then.
        await asyncio.sleep(3 * DEADLINE)
        for writer in writers:
            answer = await send(writer, [1000])
            assert (answer.status, answer.seconds < 1.5) == (201, True), answer
            self.counted += 1
        assert self.acknowledged <= self.database.replicated
        loop = cast(SimulatedLoop, asyncio.get_running_loop())
        # No connection is lost for good, and none is there that nobody counts.
        assert len(loop.tasks) == 1 + self.connections
        await loop.end_others()
        assert self.database.connections == []


def play(first: int, number: int) -> None:
    """Play schedules, from the one with that seed on."""

    async def each() -> None:
        for seed in range(first, first + number):
            try:
                await Schedule(seed).play()
            except BaseException as error:
                error.add_note(f"SEED={seed}")
                raise

    simulated(each())


def test_whatever_happens_in_whatever_order() -> None:
    print(f"SEED={SEED}")
    if not LONG:
        play(SEED, SCHEDULES)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = range(SEED, SEED + SCHEDULES, 1000)
        assert [*pool.map(play, parts, [1000] * len(parts))]
