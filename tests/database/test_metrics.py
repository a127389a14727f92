"""What an operator sees of a function: whether it can work, and what it has done."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WATCHER, WRITER
from tests.counted import Counted
from tests.support import NOWHERE, Urls, wait_until

Serve = Callable[..., TestClient]
READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}


def test_readings_and_commits_are_counted_as_clients_were_told(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    counted = Counted(ingest)
    rows = [{**READING, "room_id": str(room)} for room in range(20)]
    began = time.perf_counter()
    assert ingest.post("/", json=rows).json()["duplicates"] == 0
    assert ingest.post("/", json=[*rows, READING]).json()["duplicates"] == 20
    assert counted("temperature_readings_total", "stored") == 21
    assert counted("temperature_readings_total", "duplicate") == 20
    assert counted("temperature_commit_seconds_count") == 2
    assert 0 < counted("temperature_commit_seconds_sum") < time.perf_counter() - began
    assert (counted("temperature_commit_readings_sum"), counted("temperature_commit_readings_bucket", "10.0")) == (
        41,
        0,
    )
    assert counted("temperature_waiting_readings") == 0


def test_answers_are_counted_by_status(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    counted = Counted(ingest)
    bodies: list[Any] = [READING, {**READING, "temperature": 51}, [{}], [READING] * 10_001]
    for body in bodies:
        ingest.post("/", json=body)
    ingest.post("/", content=b"{")
    ingest.post("/", content=b"{}", headers={"content-type": "text/plain"})
    ingest.get("/")
    expected = {"201": 1, "422": 2, "413": 1, "400": 1, "415": 1, "405": 1, "503": 0}
    assert {status: counted("temperature_requests_total", "ingest", status) for status in expected} == expected


def test_what_could_not_be_stored_is_seen_waiting_and_failing(serve: Serve) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    counted = Counted(ingest)
    assert ingest.post("/", json=READING).status_code == 503
    assert ingest.get("/ready").status_code == 503
    expected = {"deadline": 1, "not_ready": 1, "queue_full": 0}
    assert {reason: counted("temperature_requests_total", "ingest", "503", reason) for reason in expected} == expected
    assert counted("temperature_readings_total", "stored") == 0
    assert counted("temperature_commit_failures_total") > 0


def test_what_the_queue_had_no_room_for_is_told_apart_from_what_came_too_late(serve: Serve) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1", QUEUE_LIMIT="10000")
    counted = Counted(ingest)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ingest.post, "/", json=[READING] * 10_000)
        wait_until(lambda: counted.now()["temperature_waiting_readings[]"])
        assert counted.now()["temperature_waiting_readings_limit[]"] == 10_000
        assert ingest.post("/", json=READING).status_code == 503
        assert counted("temperature_requests_total", "ingest", "503", "queue_full") == 1
        assert waits.result().status_code == 503
    assert counted("temperature_requests_total", "ingest", "503", "deadline") == 1


def test_a_question_that_the_database_did_not_answer_is_counted_with_the_reason(serve: Serve) -> None:
    average = serve("average", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    counted = Counted(average)
    assert average.get("/v1/temperature/rooms").status_code == 503
    assert counted("temperature_requests_total", "average", "503", "deadline") == 1
    # Those that take the longest are among those whose time is measured.
    assert counted("temperature_query_seconds_count") == 1
    assert counted("temperature_query_seconds_sum") >= 1


def test_questions_and_the_pool_are_counted(serve: Serve, plain: Urls) -> None:
    average = serve("average", DATABASE_URL=plain(READER))
    counted = Counted(average)
    assert average.get("/v1/temperature/rooms").json() == {"rooms": [], "next": None}
    assert counted("temperature_query_seconds_count") == 1
    assert counted.now()["temperature_pool['connections']"] == 1


def test_questions_that_wait_for_a_connection_are_counted(serve: Serve, plain: Urls) -> None:
    average = serve("average", DATABASE_URL=plain(READER), POOL_SIZE="2")
    counted = Counted(average)
    with ThreadPoolExecutor(7) as pool, psycopg.connect(plain(OWNER)) as owner:
        owner.execute("LOCK TABLE rooms IN ACCESS EXCLUSIVE MODE")
        asked = [pool.submit(average.get, "/v1/temperature/rooms") for _ in range(7)]
        # One of the two connections is for brief questions, and takes one after the other for a moment.
        wait_until(lambda: counted.now()["temperature_pool['waiting']"] >= 5)
        owner.rollback()
        assert {each.result().status_code for each in asked} == {200}
    assert counted.now()["temperature_pool['waiting']"] == 0


@pytest.mark.parametrize(("name", "role"), [("ingest", WRITER), ("average", READER), ("watch", WATCHER)])
def test_ready_means_that_the_database_answers(serve: Serve, plain: Urls, name: str, role: str) -> None:
    assert serve(name, DATABASE_URL=plain(role)).get("/ready").status_code == 200


@pytest.mark.parametrize("name", ["ingest", "average", "watch"])
def test_without_a_database_a_function_is_alive_but_not_ready(serve: Serve, name: str) -> None:
    client = serve(name, DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    started = time.monotonic()
    response = client.get("/ready")
    assert time.monotonic() - started < 3
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in response.text
    assert client.get("/health").status_code == 200


def test_metrics_need_a_token_where_there_are_tokens(serve: Serve) -> None:
    ingest = serve("ingest", WRITE_TOKENS="0123456789abcdef")
    assert ingest.get("/metrics").status_code == 401
    assert ingest.get("/metrics", headers={"authorization": "Bearer 0123456789abcdef"}).status_code == 200


def test_the_copies_of_a_reading_are_known_with_the_first_one(serve: Serve, plain: Urls) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    assert ingest.post("/", json=READING).status_code == 201
    # They are asked for when it was answered. The server of the tests waits for no disk.
    wait_until(lambda: "temperature_copies 0.0" in ingest.get("/metrics").text.splitlines())
