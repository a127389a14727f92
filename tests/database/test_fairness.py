"""What one client sends, or one connection suffers, is not what the others wait for or lose."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WRITER
from tests.counted import Counted
from tests.support import SUPERUSER, Urls, wait_until

BEGIN = datetime(2024, 12, 1, tzinfo=UTC)
Serve = Callable[..., TestClient]
Send = Callable[[object], "Future[Any]"]


def reading(second: int, room_id: str = "101", building_id: str = "B1") -> dict[str, Any]:
    instant = (BEGIN + timedelta(seconds=second)).isoformat()
    return {"building_id": building_id, "room_id": room_id, "temperature": 22.5, "timestamp": instant}


@pytest.fixture
def ingest(serve: Serve, plain: Urls) -> TestClient:
    client = serve("ingest", DATABASE_URL=plain(WRITER), DEADLINE_SECONDS="3", QUEUE_LIMIT="10000")
    assert client.post("/", json=reading(0, "begin")).status_code == 201
    return client


@contextmanager
def clients(ingest: TestClient) -> Iterator[Send]:
    """Send bodies at the same time."""
    with ThreadPoolExecutor(32) as pool:

        def send(body: object) -> "Future[Any]":
            return pool.submit(ingest.post, "/", json=body)

        yield send


def statuses(answers: "Sequence[Future[Any]]") -> list[int]:
    return [answer.result().status_code for answer in answers]


def waiting(ingest: TestClient) -> float:
    """How many readings wait to be stored."""
    return Counted(ingest).before["temperature_waiting_readings[]"]


def busy(urls: Urls, role: str) -> int:
    """How many sessions of a role are at work."""
    statement = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = %s AND state <> 'idle'"
    with psycopg.connect(urls(SUPERUSER)) as superuser:
        return superuser.execute(statement, (role,)).rowcount


def test_an_array_that_fits_is_not_refused_for_its_bytes(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER), QUEUE_LIMIT="10000")
    large = [reading(second, "r" * 255, "b" * 255) for second in range(9_000)]
    assert len(json.dumps(large)) > 5_000_000
    with clients(ingest) as send:
        with psycopg.connect(plain(OWNER)) as owner:
            owner.execute("LOCK TABLE temperatures")
            few = [send(reading(second)) for second in range(8)]
            wait_until(lambda: waiting(ingest) == 8)
            many = send(large)
            wait_until(lambda: waiting(ingest) == 9_008)
        assert statuses([*few, many]) == [201] * 9


def test_a_body_that_is_too_large_is_413_whatever_waits(ingest: TestClient, plain: Urls) -> None:
    with clients(ingest) as send, psycopg.connect(plain(OWNER)) as owner:
        owner.execute("LOCK TABLE temperatures")
        sent = send([reading(second) for second in range(10_000)])
        wait_until(lambda: waiting(ingest) == 10_000)
        assert ingest.post("/", json=reading(1)).status_code == 503
        assert ingest.post("/", content=b" " * (8 * 1024 * 1024 + 1)).status_code == 413
        owner.rollback()
        assert sent.result().status_code == 201


FAILS = {
    "for want of memory": "RAISE EXCEPTION 'out of memory' USING ERRCODE = 'out_of_memory'",
    "as a deadlock": "RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'",
    "with its connection": "PERFORM pg_terminate_backend(pg_backend_pid())",
}


@pytest.mark.parametrize("how", FAILS)
def test_only_the_request_that_fails_fails(ingest: TestClient, plain: Urls, how: str) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
            f" IF NEW.room_id = 'culprit' THEN {FAILS[how]}; END IF; RETURN NEW; END $$"
        )
        superuser.execute("CREATE TRIGGER fail BEFORE INSERT ON temperatures FOR EACH ROW EXECUTE FUNCTION fail()")
    with clients(ingest) as send:
        culprit = send(reading(1, "culprit"))
        others = [send(reading(second)) for second in range(11)]
        assert statuses(others) == [201] * 11
        assert culprit.result().status_code == 503


def test_only_the_request_whose_reading_another_holds_waits(ingest: TestClient, plain: Urls) -> None:
    with clients(ingest) as send, psycopg.connect(plain(OWNER)) as owner:
        owner.execute("INSERT INTO temperatures VALUES ('B1', 'held', %s, 22.5)", (BEGIN,))
        held = send(reading(0, "held"))
        others = [send(reading(second)) for second in range(11)]
        assert statuses(others) == [201] * 11
        assert not held.done()
        owner.rollback()
        assert held.result().json()["duplicates"] == 0


def test_a_request_waits_for_no_connection_that_hangs(ingest: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser, clients(ingest) as send:
        [(pid,)] = superuser.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = current_database()", (WRITER,)
        ).fetchall()
        os.kill(pid, signal.SIGSTOP)
        try:
            hanging = send(reading(1))
            wait_until(lambda: waiting(ingest) == 1)
            assert ingest.post("/", json=reading(2)).status_code == 201
            assert not hanging.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert hanging.result().status_code == 201


def test_instances_that_get_the_same_again_in_other_parts_never_deadlock(serve: Serve, plain: Urls) -> None:
    instances = [serve("ingest", DATABASE_URL=plain(WRITER)) for _ in range(2)]
    chance = random.Random(1)
    for instance in instances:
        # From now on they count duplicates, request by request.
        assert [instance.post("/", json=reading(0)).status_code for _ in range(2)] == [201, 201]
    with ThreadPoolExecutor(24) as pool:
        for first in range(1, 2_000, 200):
            seconds = [*range(first, first + 200)]
            bodies = [[reading(second) for second in chance.sample(seconds, 20)] for _ in range(24)]
            # These overlap with some others only.
            starts = chance.choices(seconds[:-10], k=24)
            bodies += [[reading(second) for second in range(start, start + 10)] for start in starts]
            chance.shuffle(bodies)
            answers = [pool.submit(instances[n % 2].post, "/", json=body) for n, body in enumerate(bodies)]
            assert {answer.result().status_code for answer in answers} == {201}
    with psycopg.connect(plain(OWNER)) as owner:
        deadlocks = owner.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert deadlocks.fetchone() == (0,)


def test_readings_are_counted_as_stored_when_their_sender_was_told_so(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER), DEADLINE_SECONDS="1")
    counted = Counted(ingest)
    with clients(ingest) as send, psycopg.connect(plain(OWNER)) as owner:
        owner.execute("LOCK TABLE temperatures")
        assert statuses([send([reading(3 * part + each) for each in range(3)]) for part in range(5)]) == [503] * 5
    wait_until(lambda: waiting(ingest) == 0 and not busy(plain, WRITER))
    assert counted("temperature_readings_total", "stored") == 0
    stored = ingest.post("/", json=[reading(second) for second in range(20)]).json()
    assert counted("temperature_readings_total", "stored") == 20 - stored["duplicates"]
    assert counted("temperature_readings_total", "duplicate") == stored["duplicates"]


def test_whoever_asks_whether_it_is_ready_takes_no_connection_from_others(ingest: TestClient, plain: Urls) -> None:
    def sessions() -> int:
        with psycopg.connect(plain(SUPERUSER)) as superuser:
            superuser.execute("SELECT pg_stat_clear_snapshot()")
            [(number,)] = superuser.execute(
                "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()
            return int(number)

    before = sessions()
    threads = [threading.Thread(target=lambda: answers.append(ingest.get("/ready").status_code)) for _ in range(120)]
    answers: list[int] = []
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    assert answers == [200] * 120
    time.sleep(1)
    assert sessions() - before <= seconds + 3


SLOW = """
    ALTER FUNCTION readings_summary RENAME TO summary_in_time;
    CREATE FUNCTION readings_summary(
        building text, among text[], since timestamptz, before timestamptz, width interval
    )
    RETURNS TABLE (room_id text, at timestamptz, count bigint, sum numeric, min float8, max float8)
    LANGUAGE plpgsql STABLE AS $$ BEGIN
        PERFORM pg_sleep(1.2) WHERE building = 'slow';
        RETURN QUERY SELECT * FROM summary_in_time(building, among, since, before, width);
    END $$
"""
"""A building of which the readings take long."""
MINUTES = "/v1/temperature/series?start=2024-12-01T00:00:00Z&end=2024-12-01T00:50:00Z&bucket=1m&building_id="


def test_questions_that_take_long_are_not_what_light_ones_wait_for(serve: Serve, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("INSERT INTO temperatures VALUES ('slow', '1', %s, 20), ('light', '1', %s, 20)", [BEGIN, BEGIN])
        owner.execute(SLOW.encode())
    average = serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="10")
    assert average.get(MINUTES + "light").status_code == 200
    with ThreadPoolExecutor(16) as pool:
        heavy = [pool.submit(average.get, MINUTES + "slow") for _ in range(12)]
        wait_until(lambda: busy(plain, READER))
        waited = []
        for _ in range(12):
            begun = time.monotonic()
            assert average.get(MINUTES + "light").json()["series"]
            waited.append(time.monotonic() - begun)
        print(f"a light question waited up to {max(waited):.2f} s")
        # One brief turn is before it, and none of the long ones.
        assert max(waited) < 1
        assert statuses(heavy) == [200] * 12


def test_others_are_served_while_a_long_series_is_made(serve: Serve, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("INSERT INTO temperatures VALUES ('B1', '1', %s, 20)", [BEGIN])
    average = serve("average", DATABASE_URL=plain(READER))
    every_second = "bucket=1s&start=2024-12-01T00:00:00Z&end=2024-12-01T02:40:00Z"
    all_there_is = "weighting=time&above=1&below=2&statistics=stddev,first,last"
    steps = []

    async def look_at_each_step() -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0.001)
            steps.append(time.thread_time() - begun)

    assert average.portal
    looking = average.portal.start_task_soon(look_at_each_step)
    series = average.get(f"/v1/temperature/series?building_id=B1&{every_second}&{all_there_is}").json()["series"]
    looking.cancel()
    assert len(series) == 9_600
    assert max(steps) < sum(steps) / 2


def test_a_question_that_was_not_begun_in_time_hears_so(serve: Serve, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("INSERT INTO temperatures VALUES ('slow', '1', %s, 20)", [BEGIN])
        owner.execute(SLOW.replace("1.2", "60").encode())
    average = serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="2", POOL_SIZE="2")
    assert average.get("/ready").status_code == 200
    with ThreadPoolExecutor(4) as pool:
        details = [each.json()["detail"] for each in pool.map(average.get, [MINUTES + "slow"] * 4)]
    assert "The answer took too long to compute; ask for a shorter interval" in details
    assert "The database is busy with other questions, or does not answer; ask again" in details


HEAVY = """
    CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)
    RETURNS TABLE (count bigint, sum numeric, min double precision, max double precision)
    LANGUAGE sql STABLE AS $$
        SELECT count(*), 1.0, 1.0::float8, 1.0::float8 FROM generate_series(1, 200000000)
    $$
"""
"""As over very many readings."""


@pytest.mark.parametrize("pooled", ["false", "true"])
def test_a_question_that_is_too_heavy_is_told_so_and_one_that_waits_is_not(
    serve: Serve, plain: Urls, pooled: str
) -> None:
    average = serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="2", DATABASE_POOLER=pooled)

    def detail() -> str:
        answer = average.get("/v1/temperature/average", params={"building_id": "B1", "room_id": "101"})
        assert answer.status_code == 503
        return str(answer.json()["detail"])

    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        with owner.transaction():
            owner.execute("LOCK TABLE upkeep")
            assert detail() == "The database does not answer; ask again"
        owner.execute(HEAVY)
        assert detail() == "The answer took too long to compute; ask for a shorter interval"


def test_a_question_that_the_administrator_gives_no_more_time_is_told_so(serve: Serve, plain: Urls) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {superuser.info.dbname} SET transaction_timeout = '300ms'")
    average = serve("average", DATABASE_URL=plain(READER))
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(HEAVY)
    answer = average.get("/v1/temperature/average", params={"building_id": "B1", "room_id": "101"})
    sentence = "The database did not answer in time; ask again, or for a shorter interval"
    assert (answer.status_code, answer.json()["detail"]) == (503, sentence)
