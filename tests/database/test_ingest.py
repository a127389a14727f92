"""What `ingest` accepts is in the database when it says so, once."""

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from starlette.testclient import TestClient

from local.postgres import OWNER, WRITER, Postgres
from tests.support import ANY_CLOCK, NOWHERE, Urls, wait_for_locks, wait_until

READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56.000Z"}
STORED = ("B1", "101", datetime(2024, 12, 1, 12, 34, 56, tzinfo=UTC), 22.5)
Serve = Callable[..., TestClient]


@pytest.fixture
def ingest(serve: Serve, plain: Urls) -> TestClient:
    return serve("ingest", DATABASE_URL=plain(WRITER), DEADLINE_SECONDS="2", **ANY_CLOCK)


def readings(number: int, first: int = 0) -> list[dict[str, Any]]:
    start = datetime(2024, 12, 1, tzinfo=UTC)
    return [
        {**READING, "timestamp": (start + timedelta(seconds=second)).isoformat()}
        for second in range(first, first + number)
    ]


def stored(urls: Urls) -> list[tuple[Any, ...]]:
    with psycopg.connect(urls(OWNER)) as connection:
        return connection.execute("SELECT * FROM temperatures ORDER BY timestamp, temperature").fetchall()


def counts(response: Any) -> tuple[int, int, int]:
    body = response.json()
    assert body["message"] == "Temperature data added", body
    return response.status_code, body["accepted"], body["duplicates"]


def ndjson(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\r\n" for row in rows).encode()


@pytest.mark.parametrize("path", ["/", "/temperature", "/temperature/", "/v1/temperature", "/v1/temperature/"])
def test_a_reading_is_stored_under_each_of_the_paths(ingest: TestClient, plain: Urls, path: str) -> None:
    assert counts(ingest.post(path, json=READING)) == (201, 1, 0)
    assert stored(plain) == [STORED]


def test_a_body_without_a_media_type_is_taken_for_json(ingest: TestClient, plain: Urls) -> None:
    assert counts(ingest.post("/", content=json.dumps(READING))) == (201, 1, 0)
    assert stored(plain) == [STORED]


def test_arrays_and_lines_of_readings_are_stored(ingest: TestClient, plain: Urls) -> None:
    assert counts(ingest.post("/", json=readings(10))) == (201, 10, 0)
    lines = ndjson(readings(10, first=10))
    assert counts(ingest.post("/", content=lines, headers={"content-type": "application/x-ndjson"})) == (201, 10, 0)
    assert len(stored(plain)) == 20


def test_ten_thousand_readings_are_one_request(ingest: TestClient, plain: Urls) -> None:
    assert counts(ingest.post("/", json=readings(10_000))) == (201, 10_000, 0)
    assert len(stored(plain)) == 10_000


@pytest.mark.parametrize("convert", [to_binary, to_structured])
def test_an_event_of_the_sdk_is_stored(ingest: TestClient, plain: Urls, convert: Callable[..., Any]) -> None:
    event = CloudEvent({"type": "com.example.sensor", "source": "/sensors/1"}, READING)
    headers, body = convert(event)
    assert counts(ingest.post("/", content=body, headers=headers)) == (201, 1, 0)
    assert stored(plain) == [STORED]


def test_an_event_whose_data_are_bytes_is_stored(ingest: TestClient, plain: Urls) -> None:
    event = CloudEvent({"type": "com.example.sensor", "source": "/sensors/1"}, json.dumps(READING).encode())
    headers, body = to_structured(event, data_marshaller=lambda data: data)
    assert b"data_base64" in body
    assert counts(ingest.post("/", content=body, headers=headers)) == (201, 1, 0)
    assert stored(plain) == [STORED]


def test_a_batch_of_events_is_stored(ingest: TestClient, plain: Urls) -> None:
    events = [
        {"specversion": "1.0", "id": str(number), "source": "/sensors/1", "type": "com.example.sensor", "data": reading}
        for number, reading in enumerate(readings(5))
    ]
    response = ingest.post(
        "/", content=json.dumps(events), headers={"content-type": "application/cloudevents-batch+json; charset=utf-8"}
    )
    assert counts(response) == (201, 5, 0)
    assert len(stored(plain)) == 5


def test_a_broker_that_can_take_a_reply_gets_none(ingest: TestClient, plain: Urls) -> None:
    headers, body = to_binary(CloudEvent({"type": "com.example.sensor", "source": "/sensors/1"}, READING))
    response = ingest.post("/", content=body, headers={**headers, "prefer": "reply"})
    assert (response.status_code, response.content) == (201, b"")
    assert stored(plain) == [STORED]


def test_an_instant_is_kept_to_the_microsecond_whatever_its_offset(ingest: TestClient, plain: Urls) -> None:
    instants = ["2024-12-01T12:34:56.123456Z", "2024-12-01 13:34:56.123457+01:00", "2024-12-01t02:34:56.123458-10:00"]
    instants += ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    assert counts(ingest.post("/", json=[{**READING, "timestamp": instant} for instant in instants])) == (201, 5, 0)
    base = datetime(2024, 12, 1, 12, 34, 56, 123456, tzinfo=UTC)
    expected = [base + timedelta(microseconds=extra) for extra in range(3)]
    expected = [datetime.min.replace(tzinfo=UTC), *expected, datetime.max.replace(tzinfo=UTC)]
    assert [row[2] for row in stored(plain)] == expected


def test_a_timestamp_of_a_clock_that_is_wrong_is_refused(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    now = datetime.now(UTC)
    never_set = "must be 2000-01-01T00:00:00Z or later: the clock of the device may never have been set"
    wrong = "must be at most 24 hours ahead of now: the clock of the device may be wrong"
    for instant, message in {
        "1970-01-01T00:03:00Z": never_set,
        "1999-12-31T23:59:59Z": never_set,
        "2099-01-01T00:00:00Z": wrong,
        (now + timedelta(hours=24, minutes=2)).isoformat(): wrong,
    }.items():
        bodies: list[dict[str, Any]] = [
            {"json": {**READING, "timestamp": instant}},
            {"json": [{**READING, "timestamp": instant}]},
            {
                "content": json.dumps({**READING, "timestamp": instant}),
                "headers": {"content-type": "application/x-ndjson"},
            },
        ]
        for body in bodies:
            response = ingest.post("/", **body)
            assert response.status_code == 422
            assert response.json()["errors"] == [{"index": 0, "field": "timestamp", "message": message}]
    assert stored(plain) == []
    for instant in ("2000-01-01T00:00:00Z", (now + timedelta(hours=23, minutes=59)).isoformat()):
        reading = {**READING, "timestamp": instant}
        assert ingest.post("/", json=reading).status_code == 201
        assert counts(ingest.post("/", json=[reading])) == (201, 1, 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EARLIEST_TIMESTAMP", "yesterday", "EARLIEST_TIMESTAMP must be an RFC 3339 timestamp such as"),
        ("MOST_AHEAD_HOURS", "-1", "MOST_AHEAD_HOURS must be a whole number from 0 to"),
    ],
)
def test_a_limit_of_clocks_that_makes_no_sense_stops_the_start(
    serve: Serve, name: str, value: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        serve("ingest", DATABASE_URL=NOWHERE, **{name: value})


def test_identifiers_and_temperatures_are_kept_as_they_are(ingest: TestClient, plain: Urls) -> None:
    names = ["B1", "é" * 255, "🌡" * 255, "'; DROP TABLE temperatures; --", "\\", " ", "\u200b", '"{}"']
    temperatures = [-50, 50, 0, 0.1, -0.30000000000000004, 1e-300, 49.999999999999993, -7]
    rows = [
        {**READING, "building_id": name, "room_id": name[::-1], "temperature": temperature}
        for name, temperature in zip(names, temperatures, strict=True)
    ]
    assert counts(ingest.post("/", json=rows)) == (201, 8, 0)
    assert {(row[0], row[1], row[3]) for row in stored(plain)} == {
        (name, name[::-1], float(temperature)) for name, temperature in zip(names, temperatures, strict=True)
    }


def test_a_request_is_stored_whole_or_not_at_all(ingest: TestClient, plain: Urls) -> None:
    assert ingest.post("/", json=[READING, {**READING, "temperature": 51}]).status_code == 422
    assert stored(plain) == []


def test_a_reading_that_comes_again_is_stored_once_and_counted(ingest: TestClient, plain: Urls) -> None:
    assert counts(ingest.post("/", json=READING)) == (201, 1, 0)
    assert counts(ingest.post("/", json=READING)) == (201, 1, 1)
    assert counts(ingest.post("/", json=[READING, *readings(3), READING])) == (201, 5, 2)
    assert len(stored(plain)) == 4


def test_readings_that_come_again_and_again_do_not_fill_the_log_of_the_database(
    ingest: TestClient, plain: Urls, postgres: Postgres
) -> None:
    def complaints() -> int:
        return postgres.log.read_text().count("duplicate key value")

    before = complaints()
    assert counts(ingest.post("/", json=READING)) == (201, 1, 0)
    assert [counts(ingest.post("/", json=READING)) for _ in range(50)] == [(201, 1, 1)] * 50
    assert complaints() - before == 1


def test_everything_redelivered_in_another_order_and_other_batches_is_stored_once(
    ingest: TestClient, plain: Urls
) -> None:
    rows = readings(500)
    assert counts(ingest.post("/", json=rows)) == (201, 500, 0)
    shuffled = rows * 2
    random.Random(1).shuffle(shuffled)
    duplicates = 0
    while shuffled:
        part, shuffled = shuffled[:37], shuffled[37:]
        duplicates += counts(ingest.post("/", json=part))[2]
    assert duplicates == 1000
    assert len(stored(plain)) == 500


@pytest.mark.parametrize("pooler", ["false", "true"])
def test_requests_at_once_that_share_readings_store_each_once_and_count_exactly(
    serve: Serve, plain: Urls, pooler: str
) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER), DATABASE_POOLER=pooler)
    rows = readings(40)

    def send(seed: int) -> tuple[int, int, int]:
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        return counts(ingest.post("/", json=shuffled))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(send, range(64)))
    assert len(stored(plain)) == 40
    assert sum(accepted - duplicates for _, accepted, duplicates in answers) == 40
    assert {(status, accepted) for status, accepted, _ in answers} == {(201, 40)}


def test_processes_at_once_that_share_readings_never_deadlock(serve: Serve, plain: Urls) -> None:
    clients = [serve("ingest", DATABASE_URL=plain(WRITER)) for _ in range(2)]
    new = 0
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            rows = readings(2000, first=number * 2000)
            answers = [
                pool.submit(client.post, "/", json=ordered)
                for client, ordered in zip(clients, (rows, rows[::-1]), strict=True)
            ]
            new += sum(counts(answer.result())[1] - counts(answer.result())[2] for answer in answers)
    assert new == len(stored(plain)) == 20_000
    with psycopg.connect(plain(OWNER)) as connection:
        deadlocks = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert deadlocks.fetchone() == (0,)


def test_a_reading_can_be_read_by_others_when_its_request_is_answered(ingest: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for number, reading in enumerate(readings(100), start=1):
            ingest.post("/", json=reading)
            assert connection.execute("SELECT count(*) FROM temperatures").fetchone() == (number,)


def test_a_write_that_is_not_committed_is_not_answered_as_stored(ingest: TestClient, plain: Urls) -> None:
    answers: list[Any] = []
    with psycopg.connect(plain(OWNER)) as blocker:
        blocker.execute("LOCK TABLE temperatures")
        thread = threading.Thread(target=lambda: answers.append(ingest.post("/", json=READING)))
        thread.start()
        wait_for_locks(plain)
        assert answers == []
        blocker.rollback()
    thread.join()
    assert counts(answers[0]) == (201, 1, 0)
    assert stored(plain) == [STORED]


def test_a_write_that_stays_blocked_is_503_and_may_be_sent_again(ingest: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER)) as blocker:
        blocker.execute("LOCK TABLE temperatures")
        started = time.monotonic()
        response = ingest.post("/", json=READING)
        assert time.monotonic() - started < 4
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.headers["content-type"] == "application/problem+json"
    assert counts(ingest.post("/", json=READING))[:2] == (201, 1)
    assert stored(plain) == [STORED]


def test_a_write_that_is_blocked_holds_up_no_other_room(ingest: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER)) as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute("INSERT INTO temperatures VALUES (%s, %s, %s, %s)", STORED)
        blocked = pool.submit(ingest.post, "/", json=READING)
        wait_for_locks(plain)
        assert counts(ingest.post("/", json={**readings(1)[0], "room_id": "102"})) == (201, 1, 0)
        assert not blocked.done()
        blocker.commit()
        assert counts(blocked.result()) == (201, 1, 1)


def test_few_readings_at_a_time_take_one_connection(serve: Callable[..., TestClient], plain: Urls) -> None:
    used = "SELECT FROM pg_stat_activity WHERE usename = %s AND datname = current_database()"

    def connections(rows: list[dict[str, Any]]) -> int:
        """How many a new instance takes for them."""
        ingest = serve("ingest", DATABASE_URL=plain(WRITER))
        with psycopg.connect(plain(OWNER), autocommit=True) as connection, ThreadPoolExecutor(8) as pool:
            before = connection.execute(used, (WRITER,)).rowcount
            answers = list(pool.map(lambda reading: ingest.post("/", json=reading), rows))
            assert [counts(answer) for answer in answers] == [(201, 1, 0)] * len(rows)
            return connection.execute(used, (WRITER,)).rowcount - before

    # Where one takes long, for others use the machine too, it takes another one.
    assert any(connections(readings(200, 200 * attempt)) == 1 for attempt in range(3))


ADMITTED = "\ntemperature_waiting_readings 10000.0\n"


def test_a_full_queue_is_503_at_once_and_what_waited_is_stored(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER), QUEUE_LIMIT="10000", DEADLINE_SECONDS="20")
    with psycopg.connect(plain(OWNER)) as blocker:
        blocker.execute("LOCK TABLE temperatures")
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(ingest.post, "/", json=readings(2500, number * 2500)) for number in range(4)]
            wait_until(lambda: ADMITTED in ingest.get("/metrics").text)
            refused = ingest.post("/", json=READING)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert not any(answer.done() for answer in waiting)
            blocker.rollback()
    assert [counts(answer.result()) for answer in waiting] == [(201, 2500, 0)] * 4
    assert len(stored(plain)) == 10_000


def test_without_a_database_the_answer_is_503_within_the_deadline(serve: Serve) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    started = time.monotonic()
    response = ingest.post("/", json=READING)
    assert time.monotonic() - started < 3
    assert response.status_code == 503
    assert "127.0.0.1" not in response.text


def test_a_lost_connection_is_replaced_without_an_error(ingest: TestClient, plain: Urls) -> None:
    assert counts(ingest.post("/", json=readings(1))) == (201, 1, 0)
    with psycopg.connect(plain("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (WRITER,))
    assert counts(ingest.post("/", json=readings(1, first=1))) == (201, 1, 0)
    assert len(stored(plain)) == 2


def test_before_the_migrations_readings_are_503_and_then_accepted(ingest: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute("ALTER TABLE temperatures RENAME TO elsewhere")
        connection.commit()
        assert ingest.post("/", json=READING).status_code == 503
        connection.execute("ALTER TABLE elsewhere RENAME TO temperatures")
    assert counts(ingest.post("/", json=READING)) == (201, 1, 0)
