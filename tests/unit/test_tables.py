"""What `ingest` takes and refuses as CSV. Nothing here reaches a database: what is right is refused for that alone."""

import csv
import io
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from shared.formulas import guarded, unguarded
from tests.support import NOWHERE, post_in_parts

HEADER = "building_id,room_id,timestamp,temperature"
GOOD = "B1,101,2024-12-01T12:34:56Z,22.5"
IDENTIFIER = "must be a string of 1 to 255 characters, none of them NUL"
TEMPERATURE = "must be a number from -50 to 50 (degrees Celsius)"
TIMESTAMP = "must be an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z"
COLUMNS = (
    "The first line must name columns. The columns are building_id, room_id, timestamp and temperature, in any order"
)


@pytest.fixture
def ingest(serve: Callable[..., TestClient]) -> TestClient:
    return serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")


def post(client: TestClient, body: str | bytes, content_type: str = "text/csv") -> Any:
    content = body.encode() if isinstance(body, str) else body
    return client.post("/v1/temperature", content=content, headers={"content-type": content_type})


def faults(answer: Any) -> list[tuple[int, int, str, str]]:
    assert answer.headers["content-type"] == "application/problem+json"
    return [(fault["index"], fault["line"], fault["field"], fault["message"]) for fault in answer.json()["errors"]]


@pytest.mark.parametrize(
    "body",
    [
        f"{HEADER}\r\n{GOOD}\r\n",
        f"{HEADER}\n{GOOD}",
        f"\ufeff{HEADER}\r\n{GOOD}\r\n",
        f"\r\n{HEADER}\r\n\r\n{GOOD}\r\n\r\n",
        '"building_id", room_id,timestamp,temperature\n"B1","a ""b"",\r\nc",2024-12-01 12:34+01,"-1e1"\n',
        "temperature,timestamp,room_id,building_id\n+.5,2024-12-01T12:34:56Z,101,B1\n",
        "\n".join([HEADER, *[GOOD] * 10_000]),
    ],
)
def test_what_is_right_gets_as_far_as_the_database(ingest: TestClient, body: str) -> None:
    assert post(ingest, body).status_code == 503


@pytest.mark.parametrize("body", [f"{HEADER}\n", HEADER, f"{HEADER}\n\n\n"])
def test_no_readings_are_none(ingest: TestClient, body: str) -> None:
    answer = post(ingest, body)
    assert (answer.status_code, answer.json()["accepted"]) == (201, 0)


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-8", "utf-8"),
        ('"UTF-8"', "utf-8"),
        ("windows-1252", "cp1252"),
        ("ISO-8859-1", "latin-1"),
        ("utf-16", "utf-16"),
    ],
)
def test_the_character_set_can_be_said(ingest: TestClient, charset: str, codec: str) -> None:
    body = f"{HEADER}\nB\u00fcro,101,2024-12-01T12:34:56Z,22.5\n".encode(codec)
    assert post(ingest, body, f"text/csv; charset={charset}; header=present").status_code == 503


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_says_its_byte_order(ingest: TestClient, codec: str) -> None:
    body = f"{HEADER}\n{GOOD}\n".encode(codec)
    answer = post(ingest, body, "text/csv; charset=utf-16")
    words = "CSV in utf-16 must begin with a byte order mark, which says its byte order"
    assert (answer.status_code, answer.json()["detail"]) == (400, words)
    assert post(ingest, "\ufeff".encode(codec) + body, "text/csv; charset=utf-16").status_code == 503


def test_letters_of_utf_16_are_no_lines(ingest: TestClient) -> None:
    # Each of the ten letters has a byte that is LF in ASCII.
    line = "\u0a93\u0ab0\u0aa1\u0acb \u0a85\u0a97\u0abf\u0aaf\u0abe\u0ab0,1,2024-12-01T12:34:56Z,22.5\n"
    assert post(ingest, (f"{HEADER}\n" + 9_500 * line).encode("utf-16"), "text/csv; charset=utf-16").status_code == 503
    cut = (f"{HEADER}\n{line}".encode("utf-16") + b"\x00\xd8").ljust(1_000, b"A")
    answer = post(ingest, cut, "text/csv; charset=utf-16")
    assert (answer.status_code, answer.json()["detail"]) == (400, "Line 3 is not utf-16; name its charset")


def test_another_character_set_is_refused(ingest: TestClient) -> None:
    answer = post(ingest, HEADER, "text/csv; charset=punycode")
    assert (answer.status_code, answer.json()["detail"][:41]) == (415, "CSV with the charset punycode cannot be r")
    answer = post(ingest, f"{HEADER}\n{GOOD}\nB\u00fcro".encode("latin-1"))
    assert (answer.status_code, answer.json()["detail"]) == (400, "Line 3 is not utf-8; name its charset")


def test_without_a_header_the_columns_are_in_the_order_of_ours(ingest: TestClient) -> None:
    assert post(ingest, GOOD, "text/csv;header=absent").status_code == 503
    assert faults(post(ingest, f"{GOOD}\n{HEADER}", "text/csv;Header=Absent"))[0][:3] == (1, 2, "temperature")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", dict.fromkeys(HEADER.split(","), "must be a column")),
        (f"{HEADER},humidity", {"humidity": "is no column of readings"}),
        ("building_id,Room,timestamp,temperature", {"Room": "is no column of readings", "room_id": "must be a column"}),
        (f"{HEADER},room_id", {"room_id": "must be there once"}),
        (
            HEADER.replace(",", ";"),
            {HEADER.replace(",", ";"): "is no column of readings"}
            | dict.fromkeys(HEADER.split(","), "must be a column"),
        ),
    ],
)
def test_columns_that_are_not_those_of_readings_are_refused(
    ingest: TestClient, header: str, expected: dict[str, str]
) -> None:
    answer = post(ingest, f"{header}\n{GOOD}\n" if header else "")
    assert (answer.status_code, answer.json()["detail"]) == (422, COLUMNS)
    assert {field: message for _, _, field, message in faults(answer)} == expected


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (",101,2024-12-01T12:34:56Z,22.5", "building_id", IDENTIFIER),
        (f"B1,{'x' * 256},2024-12-01T12:34:56Z,22.5", "room_id", IDENTIFIER),
        ("B1,101,2024-12-01T12:34:56,22.5", "timestamp", TIMESTAMP),
        ("B1,101,1733056496,22.5", "timestamp", TIMESTAMP),
        *(
            (f'B1,101,2024-12-01T12:34:56Z,"{value}"', "temperature", TEMPERATURE)
            for value in ("", " 1", "1_0", "nan", "inf", "0x1", "50.01", "22,5", "1e400", "\u0661", "1 ")
        ),
        ("B1,101,2024-12-01T12:34:56Z", "", "has 3 fields, but the header 4"),
        (f"{GOOD},1", "", "has 5 fields, but the header 4"),
        (
            "B1,101,1971-01-01T00:00:00Z,22.5",
            "timestamp",
            "must be 2000-01-01T00:00:00Z or later: the clock of the device may never have been set",
        ),
    ],
)
def test_a_faulty_line_is_named(ingest: TestClient, line: str, field: str, message: str) -> None:
    body = f'{HEADER}\r\n\r\nB1,"a\r\nb",2024-12-01T12:34:56Z,1\r\n{line}\r\n{GOOD}\r\n{line}\r\n'
    answer = post(ingest, body)
    assert (answer.status_code, answer.json()["detail"]) == (422, "Nothing was stored: some readings break a rule")
    assert faults(answer) == [(1, 5, field, message), (3, 7, field, message)]


@pytest.mark.parametrize("line", ['B1,"101"x,2024-12-01T12:34:56Z,1', 'B1,"101', f'B1,"{"x" * 140_000}",a,b'])
def test_what_is_no_csv_is_400_and_named(ingest: TestClient, line: str) -> None:
    for before in (0, 2):
        answer = post(ingest, "\n".join([HEADER, *[GOOD] * before, line, GOOD, ""]))
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(f"Line {before + 2} is not CSV: ")
        assert faults(answer)[0][:3] == (before, before + 2, "")


def test_a_first_line_that_is_no_csv_is_400_and_named(ingest: TestClient) -> None:
    answer = post(ingest, f'"building_id"x,room_id,timestamp,temperature\n{GOOD}\n')
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Line 1 is not CSV: ")


def test_too_many_readings_are_413(ingest: TestClient) -> None:
    for last in (GOOD, f"{GOOD}x"):
        assert post(ingest, "\n".join([HEADER, *[GOOD] * 10_000, last])).status_code == 413


def test_of_very_many_faults_the_first_thousand_are_listed(ingest: TestClient) -> None:
    answer = post(ingest, "\n".join([HEADER, *["B1,,,"] * 9_000]))
    assert (answer.status_code, len(faults(answer)), faults(answer)[-1][:2]) == (422, 1000, (333, 335))


def test_240_000_columns_cost_no_more_than_as_many_fields(ingest: TestClient) -> None:
    def seconds(body: bytes) -> float:
        started = time.process_time()
        assert post(ingest, body).status_code == 422
        return time.process_time() - started

    commas = b"," * 240_000
    fields = min(seconds(HEADER.encode() + b"\n" + commas) for _ in range(3))
    assert min(seconds(commas) for _ in range(3)) < 4 * fields


@pytest.mark.parametrize(
    "body",
    [b"\n" * 8_000_000, b"," * 8_000_000, b'"' * 8_000_000, b"\r" * 8_000_000, b'""\n' * 2_000_000, b"a\n" * 4_000_000],
    ids=["lines", "fields", "quotes", "returns", "empty", "short"],
)
def test_a_hostile_body_costs_no_more_than_another(ingest: TestClient, body: bytes) -> None:
    started = time.process_time()
    assert post(ingest, HEADER.encode() + b"\n" + body).status_code in {201, 400, 413, 422}
    assert time.process_time() - started < 3


def test_a_body_is_the_same_however_it_arrives(ingest: TestClient) -> None:
    seed = random.randrange(10**6)
    print(f"SEED={seed}")
    game = random.Random(seed)
    lines = [f'B1,"r {number}\r\n\u00e9",2024-12-01T12:34:56Z,{99 if number % 7 else 20}' for number in range(40)]
    body = "\r\n".join([HEADER, *lines]).encode()
    whole = post(ingest, body).json()["errors"]
    assert len(whole) == 34

    def parts() -> Iterator[bytes]:
        begin = 0
        while begin < len(body):
            end = begin + game.randrange(1, 60)
            yield body[begin:end]
            begin = end

    for _ in range(5):
        status, answer = post_in_parts(ingest, parts(), content_type="text/csv")
        assert (status, answer["errors"]) == (422, whole)


def test_names_are_guarded_so_that_each_comes_back() -> None:
    names = [f"{quotes}{begin}" for quotes in ("", "'", "''") for begin in ("", "a", "=1", "-5", "-5x", "\t", "\uff0b")]
    assert [unguarded(guarded(name)) for name in names] == names
    assert len({guarded(name) for name in names}) == len(names)
    assert [guarded(name) for name in ("=1", "'=1", "-5", "'-5", "'a", "-5x")] == [
        "'=1",
        "''=1",
        "-5",
        "'-5",
        "'a",
        "'-5x",
    ]
    # What somebody else wrote stays as it is.
    assert [unguarded(name) for name in ("=1", "-5", "'a", "''")] == ["=1", "-5", "'a", "''"]


def test_a_file_of_python_is_read(ingest: TestClient) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["timestamp", "building_id", "room_id", "temperature"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerow(
        {"timestamp": "2024-12-01T12:34:56+01:00", "building_id": "B", "room_id": 'a"b\n', "temperature": 1}
    )
    assert post(ingest, text.getvalue()).status_code == 503
