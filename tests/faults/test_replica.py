"""A hot standby: `average` answers from it, and whatever writes says that it only reads."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import MONITOR, OWNER, READER, WATCHER, WRITER
from migrations import health
from tests.exactness import assert_exact
from tests.faults.pair import Pair
from tests.support import SUPERUSER, migrate, python, wait_until

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC)
READING = {"building_id": "B1", "room_id": "replica", "temperature": 22.5, "timestamp": NOW.isoformat()}
ONLY_READS = "The database only reads, as a standby does; {} when it writes too"
Serve = Callable[..., TestClient]


@pytest.fixture
def average(pair: Pair, serve: Serve) -> TestClient:
    """`average` on the standby, which has all that the primary has; some of it is summed up."""
    with pair.connected() as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', (100 + number % 20)::text, now() - number * interval '13 minutes',"
            " 20 + number % 97 / 10.0 FROM generate_series(1, 3000) AS number ON CONFLICT DO NOTHING"
        )
        owner.execute("CALL summarize()")
        owner.execute(
            "INSERT INTO temperatures VALUES ('B1', '101', now() - interval '9 hours', 21) ON CONFLICT DO NOTHING"
        )
        owner.execute(
            "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
            " VALUES ('B1', '101', 'high', 24, 25, now()) ON CONFLICT DO NOTHING"
        )
    return serve("average", DATABASE_URL=pair.standby.url(READER), DEADLINE_SECONDS="3")


def test_every_question_is_answered_from_it(pair: Pair, average: TestClient) -> None:
    with psycopg.connect(pair.standby.url(OWNER)) as standby:
        for length in (HOUR, 30 * HOUR, 700 * HOUR):
            assert_exact(average, standby, NOW - length, NOW)
        # So that it is what is asked.
        [(recovers,)] = standby.execute("SELECT pg_is_in_recovery()").fetchall()
        assert recovers
    rooms = average.get("/v1/temperature/rooms", params={"building_id": "B1"}).json()["rooms"]
    assert {f"{number}" for number in range(100, 120)} <= {room["room_id"] for room in rooms}
    assert average.get("/v1/temperature/alarms").json()["open"] == 1
    for path in ("/", "/ready", "/health", "/metrics", "/settings"):
        assert average.get(path).status_code == 200


@pytest.mark.parametrize(
    ("function", "role", "again"), [("ingest", WRITER, "send the readings again"), ("watch", WATCHER, "check again")]
)
def test_what_writes_says_that_it_only_reads(pair: Pair, serve: Serve, function: str, role: str, again: str) -> None:
    client = serve(function, DATABASE_URL=pair.standby.url(role), DEADLINE_SECONDS="1", ALARM_RULES='[{"above": 28}]')
    answer = client.post("/", json=READING if function == "ingest" else None)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == ONLY_READS.format(again)
    counted = f'temperature_requests_total{{function="{function}",reason="read_only",status="503"}}'
    assert counted in client.get("/metrics").text


@pytest.mark.parametrize("arguments", [[], ["summarize"]])
def test_the_migrations_say_that_it_only_reads(pair: Pair, arguments: list[str]) -> None:
    run = python("-m", "migrations", *arguments, DATABASE_URL=pair.standby.url(OWNER))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("The database only reads: it is a standby")


@pytest.fixture
def impatient(pair: Pair) -> Iterator[None]:
    """A standby that ends a question at once where it keeps it from following."""
    with psycopg.connect(pair.standby.url(SUPERUSER), autocommit=True) as standby:
        standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        standby.execute("SELECT pg_reload_conf()")
        yield
        standby.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
        standby.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("impatient")
def test_a_question_that_keeps_it_from_following_is_asked_again(pair: Pair, average: TestClient) -> None:
    over = threading.Event()
    query = {"building_id": "B1", "start": (NOW - 700 * HOUR).isoformat(), "bucket": "7m", "end": NOW.isoformat()}

    def follow() -> None:
        with pair.connected() as owner:
            while not over.is_set():
                # As where readings are dropped, and where rows are cleaned up that a question still sees.
                with owner.transaction():
                    owner.execute("LOCK TABLE upkeep, temperatures IN ACCESS EXCLUSIVE MODE")
                time.sleep(0.002)

    def conflicts() -> int:
        with psycopg.connect(pair.standby.url(SUPERUSER)) as standby:
            [(number,)] = standby.execute(
                "SELECT confl_lock + confl_snapshot FROM pg_stat_database_conflicts WHERE datname = 'temperature'"
            ).fetchall()
            return int(number)

    before = conflicts()
    expected = average.get("/v1/temperature/series", params=query).json()
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        end = time.monotonic() + 4
        answers: list[Any] = []
        while time.monotonic() < end:
            answers.append(average.get("/v1/temperature/series", params=query))
    finally:
        over.set()
        thread.join()
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json() == expected
        else:
            assert answer.json()["detail"] == "The database was changed meanwhile, again and again; ask again"
    print(f"{conflicts() - before} conflicts, {len(answers)} answers")
    assert conflicts() > before
    wait_until(lambda: average.get("/v1/temperature/series", params=query).json() == expected)


def test_a_question_waits_for_what_is_locked_and_is_not_told_to_be_shorter(pair: Pair, average: TestClient) -> None:
    query = {"building_id": "B1", "room_id": "101"}
    with pair.connected() as owner, owner.transaction():
        owner.execute("LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE")
        # For the lock to get to the standby.
        owner.execute("SELECT pg_logical_emit_message(false, 'temperature', '')")
        # The standby may first wait for what it answers, for the 30 s of its max_standby_streaming_delay.
        wait_until(lambda: _locked(pair), seconds=60)
        answer = average.get("/v1/temperature/average", params=query)
        assert (answer.status_code, answer.json()["detail"]) == (503, "The database does not answer; ask again")
    assert average.get("/v1/temperature/average", params=query).status_code == 200


def _locked(pair: Pair) -> bool:
    with psycopg.connect(pair.standby.url(SUPERUSER)) as standby:
        return bool(
            standby.execute(
                "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'public.upkeep'::regclass"
            ).rowcount
        )


def measured(url: str) -> dict[tuple[str, str], health.Measure]:
    return {(measure.metric, measure.of): measure for measure in health.look(url)}


def test_standbys_slots_and_the_archive_are_watched(pair: Pair) -> None:
    primary = pair.postgres.url(MONITOR)
    usual = {metric for (metric, _), measure in measured(primary).items() if measure.fault}
    assert not usual & {"standbys_missing", "standby_seconds", "slot_unused", "archive_failing"}
    assert [of for metric, of in measured(primary) if metric == "standby_seconds"] == ["walreceiver"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANDBYS", "2")
        migrate(pair.postgres.url(OWNER))
    with pair.connected("postgres") as superuser:
        superuser.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    try:
        found = measured(primary)
        assert found["standbys_missing", ""].fault == (
            "Of 2 standbys 1 follow the primary. docs/reliability.md#a-standby-does-not-follow"
        )
        assert found["slot_unused", "gone"].fault == (
            "Nobody reads the log that the slot gone is for. docs/reliability.md#a-standby-does-not-follow"
        )
        # Whoever is no member of pg_monitor counts the slots that are read.
        assert measured(pair.postgres.url(OWNER))["standbys_missing", ""].value == 2
    finally:
        with pair.connected("postgres") as superuser:
            superuser.execute("SELECT pg_drop_replication_slot('gone')")
        migrate(pair.postgres.url(OWNER))
    wanted = {("summaries_seconds", ""), ("database_bytes", "")}
    wait_until(lambda: measured(pair.standby.url(MONITOR)).keys() >= wanted)
    # What only a primary has.
    assert not {metric for metric, _ in measured(pair.standby.url(MONITOR))} & {"slot_bytes", "standbys_missing"}


def test_it_says_how_it_is_where_transactions_are_serializable_by_default(pair: Pair) -> None:
    with pair.connected("postgres") as superuser:
        superuser.execute("ALTER DATABASE temperature SET default_transaction_isolation = serializable")
    try:

        def default() -> str:
            with psycopg.connect(pair.standby.url(MONITOR), autocommit=True) as standby:
                # SHOW is answered where nothing else is.
                [(found,)] = standby.execute("SHOW default_transaction_isolation").fetchall()
                return str(found)

        wait_until(lambda: default() == "serializable")
        assert ("summaries_seconds", "") in measured(pair.standby.url(MONITOR))
    finally:
        with pair.connected("postgres") as superuser:
            superuser.execute("ALTER DATABASE temperature RESET default_transaction_isolation")


def test_standbys_of_one_name_are_measured_as_the_one_that_is_furthest_behind(pair: Pair) -> None:
    first = pair.standby
    pair.join()
    try:
        found = [(measure.metric, measure.of) for measure in health.look(pair.postgres.url(MONITOR))]
        assert len(found) == len({*found})
        assert ("standby_seconds", "walreceiver") in found
    finally:
        first.stop()
