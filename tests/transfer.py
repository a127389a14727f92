"""Readings that go out and come in again: what both editions of the database are tried with."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import strategies as st
from starlette.testclient import TestClient

Reading = tuple[str, str, datetime, float]

FIRST = datetime(2024, 12, 1, tzinfo=UTC)
EVERYTHING = {"start": "2001-01-01T00:00:00Z", "end": "2051-01-01T00:00:00Z"}
MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
# What spreadsheets, CSV, JSON and URLs take for something else, with what an apostrophe before it must not be lost.
names = st.one_of(
    st.sampled_from(
        [
            *("101", "-5", "'-5", "=1+1", "'=1+1", "''@x", "'", "''", "\t=1", "\uff1d1", "a,b", 'a"b', '"', "a\r\nb"),
            *(
                " x ",
                "{",
                '{"a',
                "+1+1",
                "A+B",
                "caf\u00e9",
                "\U0001f321",
                "\u2028",
                "\x85",
                "\x0b",
                "\x7f",
                ";",
                "-2+3",
            ),
            "\n",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
)
instants = st.builds(
    lambda seconds, microseconds: FIRST + timedelta(seconds=seconds, microseconds=microseconds),
    st.integers(0, 40 * 86_400) | st.integers(0, 3),
    st.sampled_from([0, 1, 10, 500_000]) | st.integers(0, 999_999),
)
temperatures = st.floats(-50, 50) | st.sampled_from([0.1, -0.0, 22.1, 1e-5, 5e-324, -50, 50])
readings = st.lists(st.tuples(st.just("B1"), names, instants, temperatures), max_size=25, unique=True)


def rows(connection: psycopg.Connection[Any]) -> list[Reading]:
    """All readings that are stored, in the order in which they go out."""
    return connection.execute(
        "SELECT building_id, room_id, timestamp, temperature FROM temperatures"
        " ORDER BY building_id, room_id, timestamp, temperature"
    ).fetchall()


def insert(connection: psycopg.Connection[Any], found: Sequence[Reading]) -> None:
    """Store readings as somebody with direct access would."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", found)


def text_of(average: TestClient, form: str, building_id: str = "B1", **query: str) -> str:
    """The readings as they go out."""
    answer = average.get(
        "/v1/temperature/readings", params={"building_id": building_id, **EVERYTHING, "format": form, **query}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(MEDIA_TYPES[form])
    return answer.content.decode()


def assert_round_trip(
    average: TestClient, ingest: TestClient, connection: psycopg.Connection[Any], found: Sequence[Reading], cut: float
) -> None:
    """What goes out is all there is, goes on where it was cut off, and comes in again as it was."""
    connection.execute("TRUNCATE temperatures")
    for building_id in dict.fromkeys(["B1", *(room for _, room, *_ in found[:2])]):
        insert(connection, [(building_id, room, instant, temperature) for _, room, instant, temperature in found])
        stored = [row for row in rows(connection) if row[0] == building_id]
        texts = {form: text_of(average, form, building_id) for form in MEDIA_TYPES}
        assert [_reading(line) for line in texts["ndjson"].split("\n")[:-1]] == stored
        for form, text in texts.items():
            assert_goes_on(average, form, building_id, text, cut)
            connection.execute("TRUNCATE temperatures")
            answer = ingest.post("/", content=text.encode(), headers={"content-type": MEDIA_TYPES[form]})
            assert (answer.status_code, answer.json()["accepted"]) == (201, len(stored)), answer.text
            assert rows(connection) == stored


def _reading(line: str) -> Reading:
    found = json.loads(line)
    instant = datetime.fromisoformat(found["timestamp"])
    return found["building_id"], found["room_id"], instant, found["temperature"]


def assert_goes_on(average: TestClient, form: str, building_id: str, text: str, cut: float) -> None:
    """What is cut off anywhere becomes the same again."""
    kept = whole(text.encode()[: int(cut * len(text.encode()))].decode(errors="ignore"), form)
    lines = kept[1:] if form == "csv" else kept
    after = {"after": lines[-1]} if lines else {}
    rest = text_of(average, form, building_id, **after)
    assert (("".join(kept) if after else "") + rest) == text


def whole(text: str, form: str) -> list[str]:
    """The whole lines of a text that was cut off; in CSV a name may hold the end of a line."""
    lines: list[str] = []
    line = ""
    for part in text.split("\n")[:-1]:
        line += f"{part}\n"
        if form == "ndjson" or line.count('"') % 2 == 0:
            lines.append(line)
            line = ""
    return lines
