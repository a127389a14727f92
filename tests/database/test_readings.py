"""Readings as they are stored, out: whole, in order, in pages, whoever reads how slowly, and whatever breaks."""

import asyncio
import csv
import http.client
import io
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from average import readings
from average.queries import Scope, Temperatures
from bench.stack import Served, command, serve, target
from local.postgres import OWNER, READER, WRITER
from shared.database import Database
from tests import transfer
from tests.support import ANY_CLOCK, NOWHERE, Urls, examples, wait_until
from tests.transfer import EVERYTHING, FIRST, insert, rows

PATH = "/v1/temperature/readings"
INTERVAL = {"start": "2024-12-01T00:00:00Z", "end": "2024-12-02T00:00:00Z"}
ROOM = {"building_id": "B1", "room_id": "101"}
STORED = [
    ("B1", "101", FIRST, 20.0),
    ("B1", "101", FIRST, 20.5),
    ("B1", "101", FIRST + timedelta(microseconds=1), 0.1),
    ("B1", "102", FIRST + timedelta(hours=23), -10.25),
    ("B1", "103", FIRST + timedelta(days=1), 30.0),
    ("B2", "101", FIRST, 5.0),
]
CSV = (
    "building_id,room_id,timestamp,temperature\r\n"
    "B1,101,2024-12-01T00:00:00Z,20\r\n"
    "B1,101,2024-12-01T00:00:00Z,20.5\r\n"
    "B1,101,2024-12-01T00:00:00.000001Z,0.1\r\n"
    "B1,102,2024-12-01T23:00:00Z,-10.25\r\n"
)
LINE = '{"building_id":"B1","room_id":"102","timestamp":"2024-12-01T23:00:00Z","temperature":-10.25}'
Serve = Callable[..., TestClient]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "PAGE_READINGS", 3)
    monkeypatch.setattr(readings, "PAGE_ROOMS", 2)


@pytest.fixture
def average(serve: Serve, plain: Urls) -> TestClient:
    with psycopg.connect(plain(OWNER)) as connection:
        insert(connection, STORED)
    return serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="2")


@pytest.fixture
def served(plain: Urls, tmp_path: Path) -> Iterator[Served]:
    """With one connection, and more readings than sockets hold."""
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s + number * interval '1 second', 20"
            " FROM generate_series(1, 300000) AS number",
            (FIRST,),
        )
    variables = {**target("average", plain(READER)), "POOL_SIZE": "1", "DEADLINE_SECONDS": "2"}
    with serve(command(), variables, log=tmp_path / "average.log") as average:
        yield average


def faults(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {fault["field"]: fault["message"] for fault in answer.json()["errors"]}


def test_the_readings_of_a_building_come_in_order_as_csv(average: TestClient) -> None:
    answer = average.get(PATH, params={"building_id": "B1", **INTERVAL}, headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["vary"] == "Accept"
    assert answer.text == CSV
    name = "readings-B1-all-20241201T000000Z-20241202T000000Z.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_the_name_of_a_file_has_only_what_every_system_takes(average: TestClient) -> None:
    place = {"building_id": 'Haus "A"/../Süd', "room_id": "1" * 50}
    answer = average.get(PATH, params={**place, **INTERVAL}, headers={"accept": "text/csv"})
    name = f"readings-Haus_A_.._S_d-{'1' * 40}-20241201T000000Z-20241202T000000Z.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_they_come_as_lines_of_json_and_as_json(average: TestClient) -> None:
    question = {"building_id": "B1", "room_id": "102", **INTERVAL}
    for media_type in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        answer = average.get(PATH, params=question, headers={"accept": media_type})
        assert (answer.headers["content-type"], answer.text) == (media_type, f"{LINE}\n")
    reading = {"building_id": "B1", "room_id": "102", "timestamp": "2024-12-01T23:00:00Z", "temperature": -10.25}
    assert average.get(PATH, params=question).json() == {**question, "next": None, "readings": [reading]}
    nowhere = {**question, "building_id": "B9"}
    assert average.get(PATH, params=nowhere).json() == {**nowhere, "next": None, "readings": []}
    assert average.get(PATH, params={**nowhere, "format": "ndjson"}).text == ""
    assert average.get(PATH, params={**nowhere, "format": "csv"}).text == CSV.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("accept", "suffix"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html, */*", "json"),
        ("text/csv;q=0.5, application/x-ndjson", "ndjson"),
        ("text/csv, application/json;q=0.9", "csv"),
        ("application/x-ndjson;q=0, text/csv", "csv"),
        ("text/csv;q=0", "json"),
        ("text/csv, application/x-ndjson", "csv"),
        ("application/x-ndjson, text/csv", "ndjson"),
        # Java and TypeScript as openapi-generator makes them.
        ("application/json, text/csv, application/x-ndjson, application/problem+json", "json"),
    ],
)
def test_who_would_rather_have_something_else_gets_that(average: TestClient, accept: str, suffix: str) -> None:
    answer = average.get(PATH, params={**ROOM, **INTERVAL}, headers={"accept": accept})
    expected = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}[suffix]
    assert answer.headers["content-type"].partition(";")[0] == expected


def test_a_long_list_of_wishes_is_read_once(average: TestClient) -> None:
    def seconds(path: str, question: dict[str, str], name: str) -> float:
        started = time.process_time()
        assert average.get(path, params=question, headers={name: "," * 60_000}).status_code == 200
        return time.process_time() - started

    once = min(seconds("/", {}, "accept-encoding") for _ in range(3))
    assert min(seconds(PATH, {**ROOM, **INTERVAL}, "accept") for _ in range(3)) < 4 * once


def test_a_link_says_in_its_address_what_it_wants(average: TestClient) -> None:
    question = {"building_id": "B1", **INTERVAL, "format": "csv"}
    assert average.get(PATH, params=question, headers={"accept": "text/html,*/*;q=0.8"}).text == CSV
    assert faults(average.get(PATH, params={**question, "format": "xml"})) == {"format": "must be json, csv or ndjson"}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("limit", range(1, 7))
def test_json_comes_in_pages(average: TestClient, limit: int) -> None:
    question = {"building_id": "B1", **EVERYTHING, "limit": str(limit)}
    found: list[Any] = []
    after: dict[str, str] = {}
    for _ in range(10):
        page = average.get(PATH, params={**question, **after}).json()
        found += page["readings"]
        assert len(page["readings"]) == limit or page["next"] is None
        if page["next"] is None:
            break
        assert page["readings"]
        after = {"after": page["next"]}
    assert [reading["temperature"] for reading in found] == [20, 20.5, 0.1, -10.25, 30]


@pytest.mark.usefixtures("small_pages")
def test_a_part_of_the_lines_can_be_asked_for_too(average: TestClient) -> None:
    lines = CSV.splitlines(keepends=True)
    question = {"building_id": "B1", **INTERVAL, "format": "csv"}
    for limit in range(1, 5):
        assert average.get(PATH, params={**question, "limit": str(limit)}).text == "".join(lines[: limit + 1])
        for place in range(1, 5):
            answer = average.get(PATH, params={**question, "after": lines[place], "limit": str(limit)})
            assert answer.text == "".join(lines[place + 1 : place + 1 + limit])
            assert answer.headers["content-type"].endswith("header=absent")


AFTER = "must be the last whole line of the CSV or NDJSON before, or the value of `next` in the JSON before"
ELSEWHERE = "must be a reading of the building, room and interval that are asked for"


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("", AFTER),
        ("B1,101,2024-12-01T00:00:00Z,2", ""),
        ("B1,101,2024-12-01T00:00:00Z,", AFTER),
        ("B1,101,2024-12-01T00:00:00", AFTER),
        ("B1,101,2024-12-01T00:00:00Z,20,1", AFTER),
        ('"B1,101,2024-12-01T00:00:00Z,20', AFTER),
        ('"B1"x,101,2024-12-01T00:00:00Z,20', AFTER),
        ("building_id,room_id,timestamp,temperature", AFTER),
        ("B1,101,2024-12-01T00:00:00Z,nan", AFTER),
        ("B1,101,2024-12-01T00:00:00Z,2_0", AFTER),
        ("{}", AFTER),
        (LINE[:-1], AFTER),
        (LINE, ELSEWHERE),
        ("B2,101,2024-12-01T00:00:00Z,20", ELSEWHERE),
        ("B1,101,2024-11-30T23:59:59Z,20", ELSEWHERE),
        ("B1,101,2024-12-02T00:00:00Z,20", ELSEWHERE),
    ],
)
def test_a_place_that_is_none_of_the_answer_is_refused(average: TestClient, after: str, message: str) -> None:
    answer = average.get(PATH, params={**ROOM, **INTERVAL, "after": after})
    assert answer.status_code == 200 if not message else faults(answer) == {"after": message}


def test_to_go_on_the_interval_must_be_said(average: TestClient) -> None:
    """By default it is another one a moment later."""
    after = {"after": "B1,101,2024-12-01T00:00:00Z,20"}
    must = "must be that of the answer that `after` goes on with"
    assert faults(average.get(PATH, params={**ROOM, **after})) == {"start": must, "end": must}
    for name in INTERVAL:
        rest = {other: value for other, value in INTERVAL.items() if other != name}
        assert faults(average.get(PATH, params={**ROOM, **rest, **after}))[name] == must


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_head_is_get_without_its_content(average: TestClient, form: str) -> None:
    for question in ({**ROOM, **INTERVAL}, {"building_id": "B1", **EVERYTHING}):
        get, head = (average.request(method, PATH, params={**question, "format": form}) for method in ("GET", "HEAD"))
        ignored = {"date", "transfer-encoding"}
        assert {name: head.headers[name] for name in head.headers if name not in ignored} == {
            name: get.headers[name] for name in get.headers if name not in ignored
        }
        assert (head.status_code, head.content) == (200, b"")


def test_without_a_database_the_answer_is_503_before_it_begins(serve: Serve) -> None:
    average = serve("average", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    answer = average.get(PATH, params={**ROOM, **INTERVAL, "format": "csv"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


_clients: dict[str, tuple[TestClient, TestClient]] = {}


@examples(20)
@given(found=transfer.readings, cut=st.floats(0, 1))
def test_what_goes_out_comes_in_again_as_it_was(
    plain: Urls, serve: Serve, found: list[transfer.Reading], cut: float
) -> None:
    if plain(READER) not in _clients:
        ingest = serve("ingest", DATABASE_URL=plain(WRITER), **ANY_CLOCK)
        _clients[plain(READER)] = ingest, serve("average", DATABASE_URL=plain(READER))
    ingest, average = _clients[plain(READER)]
    with pytest.MonkeyPatch.context() as patch, psycopg.connect(plain(OWNER), autocommit=True) as connection:
        patch.setattr(readings, "PAGE_READINGS", 3)
        patch.setattr(readings, "PAGE_ROOMS", 2)
        transfer.assert_round_trip(average, ingest, connection, found, cut)


def test_digits_do_not_depend_on_the_session(plain: Urls, serve: Serve) -> None:
    with psycopg.connect(plain("postgres"), autocommit=True) as connection:
        insert(connection, [("B1", "101", FIRST + timedelta(microseconds=120), 0.1 + 0.2)])
        for setting in ("extra_float_digits = 0", "DateStyle = 'German, DMY'", "TimeZone = 'Asia/Kathmandu'"):
            connection.execute(f"ALTER ROLE {READER} IN DATABASE {connection.info.dbname} SET {setting}")
    average = serve("average", DATABASE_URL=plain(READER))
    question = {**ROOM, **INTERVAL, "format": "csv"}
    line = "B1,101,2024-12-01T00:00:00.00012Z,0.30000000000000004\r\n"
    assert average.get(PATH, params=question).text.endswith(line)


def test_readings_that_come_and_go_meanwhile_break_no_download(plain: Urls) -> None:
    """Those that stay all the time are there once, whatever comes and goes around the place that is reached."""
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    game = random.Random(seed)

    def made() -> transfer.Reading:
        instant = FIRST + timedelta(seconds=game.randrange(30))
        return "B1", str(game.randrange(5)), instant, float(game.randrange(3))

    async def play(connection: psycopg.Connection[Any]) -> None:
        temperatures = Temperatures(Database(plain(READER), connections=2, pooled=False, deadline_seconds=5))
        scope = Scope("B1", None, FIRST, FIRST + timedelta(days=1))
        walk = readings.Walk(temperatures, scope, readings.CSV, None)
        before = rows(connection)
        lasting, told = set(before), []
        while not walk.over:
            for _ in range(game.randrange(4)):
                if game.random() < 0.5:
                    insert(connection, [made()])
                else:
                    gone = made()
                    connection.execute("DELETE FROM temperatures WHERE room_id = %s AND timestamp = %s", gone[1:3])
            now = set(rows(connection))
            lasting &= now
            lines, count = await walk.page(game.randrange(1, 6))
            page = list(csv.reader(io.StringIO(lines.decode(), newline="")))
            assert len(page) == count
            found = [(b, r, datetime.fromisoformat(t), float(d)) for b, r, t, d in page]
            assert set(found) <= now
            told += found
        await temperatures._pool.close()
        assert told == sorted(set(told))
        assert lasting <= set(told)

    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for _ in range(12):
            connection.execute("TRUNCATE temperatures")
            insert(connection, [made() for _ in range(60)])
            asyncio.run(play(connection))


def request(port: int, path: str, version: str = "1.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
    return connection


@contextmanager
def asked(port: int, path: str) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        yield connection.getresponse()


DOWNLOAD = f"{PATH}?building_id=B1&start=2024-12-01T00:00:00Z&end=2025-12-01T00:00:00Z&format=ndjson"


BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = %s AND (state <> 'idle' OR backend_xmin IS NOT NULL)
"""


def test_readers_that_take_nothing_hold_up_nobody(served: Served, plain: Urls) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(request(served.port, DOWNLOAD))
        for _ in range(5):
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)))
            connection.request("GET", "/v1/temperature/average?building_id=B1&room_id=101")
            # Within the deadline: there is one connection.
            assert connection.getresponse().status == 200
        with psycopg.connect(plain("postgres"), autocommit=True) as owner:
            wait_until(lambda: owner.execute(BUSY, (READER,)).fetchone() == (0,))


def test_a_download_that_the_database_fails_is_visibly_broken_off(served: Served, plain: Urls) -> None:
    received, broken = b"", False
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, asked(served.port, DOWNLOAD) as answer:
        received += answer.read(100_000)
        owner.execute("ALTER TABLE temperatures RENAME TO gone")
        try:
            received += answer.read()
        except http.client.IncompleteRead as error:
            received, broken = received + error.partial, True
        owner.execute("ALTER TABLE gone RENAME TO temperatures")
    assert broken
    kept = [line for line in received.splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(kept) < 300_000
    with asked(served.port, f"{DOWNLOAD}&after={quote(kept[-1])}") as answer:
        kept += answer.read().splitlines(keepends=True)
    assert len(kept) == len(set(kept)) == 300_000


def test_a_client_of_http_1_0_gets_the_lines_alone(served: Served) -> None:
    with request(served.port, DOWNLOAD, "1.0") as connection, connection.makefile("rb") as answer:
        head, _, lines = answer.read().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert (lines.count(b"\n"), lines.count(b"\n{") + 1) == (300_000, 300_000)
    with request(served.port, f"{DOWNLOAD}&limit=0", "1.0") as connection, connection.makefile("rb") as answer:
        assert b"\r\ncontent-length: " in answer.read()


def test_a_client_of_http_1_0_notices_too_that_a_download_is_broken_off(served: Served, plain: Urls) -> None:
    with (
        psycopg.connect(plain(OWNER), autocommit=True) as owner,
        request(served.port, DOWNLOAD, "1.0") as connection,
        connection.makefile("rb") as answer,
    ):
        assert answer.read(100_000)
        owner.execute("ALTER TABLE temperatures RENAME TO gone")
        with pytest.raises(ConnectionResetError):
            answer.read()
        owner.execute("ALTER TABLE gone RENAME TO temperatures")


def test_lost_connections_to_the_database_break_no_download(served: Served, plain: Urls) -> None:
    lines = 0
    with psycopg.connect(plain("postgres"), autocommit=True) as owner, asked(served.port, DOWNLOAD) as answer:
        while part := answer.read(2_000_000):
            lines += part.count(b"\n")
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = %s AND datname = current_database()",
                (READER,),
            )
    assert lines == 300_000


STALLS_SOON = "import shared.server as server; server.STALL_SECONDS = 2; server.main()"


@pytest.mark.parametrize("patient", [True, False])
def test_a_reader_that_takes_nothing_is_given_up_and_a_slow_one_is_not(
    served: Served, plain: Urls, tmp_path: Path, patient: bool
) -> None:
    del served
    lines = 0
    with (
        serve([sys.executable, "-c", STALLS_SOON], target("average", plain(READER)), log=tmp_path / "log") as average,
        asked(average.port, DOWNLOAD) as answer,
    ):
        for _ in range(12):
            lines += answer.read(1_000_000).count(b"\n") if patient else 0
            time.sleep(0.5)
        try:
            lines += answer.read().count(b"\n")
        except (http.client.IncompleteRead, ConnectionResetError):
            lines = -1
    assert lines == (300_000 if patient else -1)
