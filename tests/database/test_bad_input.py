"""Whatever is sent, the answer says what is wrong with it, and nothing is stored that breaks a rule."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WRITER
from tests.support import ANY_CLOCK, Urls, examples

Serve = Callable[..., TestClient]
Table = psycopg.Connection[Any]
READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}
EVENT = {"specversion": "1.0", "id": "1", "source": "/rooms/101", "type": "dev.temperature.reading.v1", "data": READING}
MEDIA_TYPES = [
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json; charset=utf-16",
    "text/plain",
    "",
]
ANSWERS = {
    HTTPStatus.CREATED,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}

texts = st.text(max_size=300) | st.sampled_from(
    [
        "\0",
        "a\0b",
        "\ud800",
        "'; DROP TABLE temperatures; --",
        "\r\nSet-Cookie: a=b",
        "\U0010ffff" * 255,
        "x" * 256,
        "2024-12-01T12:34:60Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "0000-01-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "1e400",
    ]
)
# As they are written: NaN, Infinity and 1e400 are no numbers for JSON, or none that a float holds.
literals = st.sampled_from(["NaN", "-Infinity", "1e400", "-0", "00", "1.", "9" * 400, "tru", '"\\ud800"', "[" * 5000])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
# One field is another, so that its rule decides.
identifiers = st.text(min_size=1, max_size=260) | texts | values
temperatures = st.integers(-600, 600).map(lambda tenths: tenths / 10) | st.sampled_from([-50.0000001, 50.0000001])
readings = st.one_of(
    st.tuples(st.just("building_id"), identifiers),
    st.tuples(st.just("room_id"), identifiers),
    st.tuples(st.just("temperature"), temperatures | values),
    st.tuples(
        st.just("timestamp"), texts | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()) | values
    ),
    st.tuples(texts, values),
).map(lambda changed: {**READING, changed[0]: changed[1]})
events = st.dictionaries(
    st.sampled_from([*EVENT, "data_base64", "datacontenttype", "subject"]), values, max_size=2
).map(lambda changed: {**EVENT, **changed})
documents = st.one_of(values, readings, events, st.lists(readings, max_size=3), st.lists(events, max_size=3)).map(
    # Escaped: only so can JSON hold half of a surrogate pair.
    lambda value: json.dumps(value).encode()
)
mangled = st.builds(
    lambda document, literal, place: document.replace(b"22.5", literal.encode())[: place or None],
    documents,
    literals,
    st.integers(0, 200),
)
bodies = documents | mangled | st.binary(max_size=300)
# What a header can hold at all.
headers = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=100)


@pytest.fixture
def ingest(serve: Serve, plain: Urls) -> TestClient:
    return serve("ingest", DATABASE_URL=plain(WRITER), **ANY_CLOCK)


@pytest.fixture
def table(plain: Urls) -> Iterator[Table]:
    """The owner's connection, to see what is stored and to remove it again."""
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        yield connection


@pytest.fixture
def average(serve: Serve, plain: Urls) -> TestClient:
    return serve("average", DATABASE_URL=plain(READER))


@examples(500)
@given(body=bodies, media_type=st.sampled_from(MEDIA_TYPES))
def test_any_body_is_answered_and_only_readings_are_stored(
    ingest: TestClient, table: Table, body: bytes, media_type: str
) -> None:
    assert_answered(ingest.post("/", content=body, headers={"content-type": media_type}), table)


@examples(500)
@given(reading=readings)
def test_a_reading_is_stored_as_it_is_or_refused(ingest: TestClient, table: Table, reading: dict[str, Any]) -> None:
    assert_answered(ingest.post("/", content=json.dumps(reading).encode()), table)


@examples(500)
@given(
    body=bodies,
    attributes=st.dictionaries(
        st.sampled_from(["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "content-type", "prefer"]),
        headers | st.sampled_from(["1.0", "reply", "application/json"]),
    ),
)
def test_any_header_is_answered(ingest: TestClient, table: Table, body: bytes, attributes: dict[str, str]) -> None:
    sent = {name.encode(): value.encode("latin-1") for name, value in attributes.items()}
    assert_answered(ingest.post("/", content=body, headers=sent), table)


@examples(500)
@given(
    path=st.sampled_from(["average", "series", "rooms"]),
    query=st.lists(
        st.tuples(
            st.sampled_from(["building_id", "room_id", "start", "end", "query_datetime", "bucket"]) | texts,
            texts | st.sampled_from(["B1", "2024-12-01T00:00:00Z", "0001-01-01T00:00:00Z", "15m", "3650d"]),
        ),
        max_size=5,
    ),
)
def test_any_question_is_answered(average: TestClient, path: str, query: list[tuple[str, str]]) -> None:
    response = average.get(f"/v1/temperature/{path}?{urlencode(query, errors='surrogatepass')}")
    assert response.status_code in {HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY}, response.text


def assert_answered(response: Any, table: Table) -> None:
    """The answer is one of those documented, without anything internal, and what is stored keeps the rules."""
    assert response.status_code in ANSWERS, response.text
    if response.status_code != HTTPStatus.CREATED:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]
        assert "Traceback" not in response.text
        assert not re.search(r"pydantic|psycopg", response.text, re.IGNORECASE)
    rows = table.execute("SELECT * FROM temperatures").fetchall()
    if rows:
        table.execute("TRUNCATE temperatures")
    if response.status_code != HTTPStatus.CREATED:
        assert rows == []
    elif response.content:
        assert len(rows) == response.json()["accepted"] - response.json()["duplicates"]
    for building_id, room_id, timestamp, temperature in rows:
        assert 1 <= len(building_id) <= 255
        assert 1 <= len(room_id) <= 255
        assert -50 <= temperature <= 50
        assert datetime.min.replace(tzinfo=UTC) <= timestamp <= datetime.max.replace(tzinfo=UTC)
