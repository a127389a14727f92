"""What random inputs do not reach: very deep, very large, almost right, and what is no HTTP any more."""

import gzip
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from bench import stack
from local.postgres import OWNER, READER, WRITER
from tests.support import ANY_CLOCK, Urls, post_in_parts

MOST_BYTES = 8 * 1024 * 1024
SECONDS = 2
"""In which the largest and worst is answered."""
LONGEST_ANSWER = 250_000
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
EVENTS = "application/cloudevents-batch+json"
FIELDS = {"building_id": '"B1"', "room_id": '"101"', "temperature": "22.5", "timestamp": '"2024-12-01T12:34:56Z"'}
STORED = ("B1", "101", datetime(2024, 12, 1, 12, 34, 56, tzinfo=UTC), 22.5)
SQL = "'); DROP TABLE temperatures; --"
Body = Callable[[], bytes]
Case = tuple[str, str, Body, int]


def reading(before: str = "", **literals: str) -> bytes:
    """A reading as JSON, some of its fields written as given, after what is before them."""
    fields = ", ".join(f'"{name}": {text}' for name, text in (FIELDS | literals).items())
    return f"{{{before}{fields}}}".encode()


def one(**literals: str) -> Body:
    return lambda: reading(**literals)


def many(item: bytes, number: int = 10_000) -> Body:
    return lambda: b"[" + b",".join([item] * number) + b"]"


NO_READING = b'{"building_id": "", "room_id": 5, "temperature": true, "timestamp": "x"}'
EMPTY_LINES = b"\n" * (MOST_BYTES - 100_000)
NO_EVENT = b'{"specversion": "2", "id": "", "source": 1, "datacontenttype": "x", "data_base64": "?", "data": '
REFUSED: Sequence[Case] = [
    # Deep and large
    ("nested 100,000 deep", JSON, lambda: b"[" * 100_000 + b"]" * 100_000, 400),
    ("nested as deep as 8 MiB are", JSON, lambda: b"[" * MOST_BYTES, 413),
    ("objects as deep as 8 MiB are", JSON, lambda: (b'{"a":' * MOST_BYTES)[:MOST_BYTES], 413),
    ("deep where nobody looks", JSON, lambda: reading(f'"x": {"[" * 99_000}{"]" * 99_000}, '), 400),
    ("8 MiB of objects", JSON, lambda: many(b'{"":0}', MOST_BYTES // 7)(), 413),
    ("8 MiB of arrays", JSON, lambda: many(b"[]", MOST_BYTES // 3)(), 413),
    ("8 MiB of arrays where nobody looks", JSON, lambda: reading(f'"x": [{"[]," * 2_700_000}[]], '), 413),
    ("700,000 fields that are ignored", JSON, lambda: reading("".join(f'"{n}":0,' for n in range(700_000))), 413),
    ("8 MiB of an identifier", JSON, lambda: reading(room_id=f'"{"x" * (MOST_BYTES - 200)}"'), 422),
    ("8 MiB of spaces", JSON, lambda: b" " * MOST_BYTES, 400),
    ("8 MiB of empty lines and a fault", NDJSON, lambda: b"\n" * (MOST_BYTES - 1) + b"{", 400),
    ("8 MiB of empty lines of CSV", CSV, lambda: b"\n" * MOST_BYTES, 413),
    ("8 MiB of empty lines, and faults behind them", NDJSON, lambda: EMPTY_LINES + (NO_READING + b"\n") * 1000, 422),
    ("millions of items", JSON, many(b"0", 4_000_000), 413),
    ("10,001 readings", JSON, many(reading(), 10_001), 413),
    ("more than 8 MiB", JSON, lambda: b" " * (MOST_BYTES + 1), 413),
    # Faults by the thousand
    ("10,000 readings with four faults each", JSON, many(NO_READING), 422),
    ("10,000 lines with four faults each", NDJSON, lambda: (NO_READING + b"\n") * 10_000, 422),
    ("10,000 events with ten faults each", EVENTS, many(NO_EVENT + NO_READING + b"}"), 415),
    # What is no JSON, or another encoding of it
    ("UTF-8 that is cut off", JSON, lambda: reading(room_id='"é"').replace(b"\xa9", b""), 400),
    ("UTF-8 that is overlong", JSON, lambda: reading().replace(b"101", b"\xc0\xa0"), 400),
    ("a surrogate in UTF-8", JSON, lambda: reading().replace(b"101", b"\xed\xa0\x80"), 400),
    ("half a surrogate pair", JSON, one(room_id=r'"\ud800"'), 400),
    ("a surrogate pair the wrong way round", JSON, one(room_id=r'"\udc00\ud800"'), 400),
    ("UTF-16", f"{JSON}; charset=utf-16", lambda: reading().decode().encode("utf-16"), 400),
    ("UTF-16 without a byte order mark", JSON, lambda: reading().decode().encode("utf-16-le"), 400),
    ("UTF-32", JSON, lambda: reading().decode().encode("utf-32"), 400),
    ("Latin-1", f"{JSON}; charset=iso-8859-1", lambda: reading(room_id='"é"').decode().encode("latin-1"), 400),
    ("NUL", JSON, one(room_id='"10\0001"'), 400),
    ("NUL, escaped", JSON, one(building_id=r'"\u0000"'), 422),
    ("NUL after the end", JSON, lambda: reading() + b"\0", 400),
    ("a line break in a string", JSON, one(room_id='"10\n1"'), 400),
    ("two readings", JSON, lambda: reading() + reading(), 400),
    *[(f"{text} as an array of events", EVENTS, text.encode, 400) for text in ("5 5", "null 5", '"abc" x', "{} x")],
    ("a comma too many", JSON, lambda: b"[" + reading() + b",]", 400),
    ("gzip without saying so", JSON, lambda: gzip.compress(reading()), 400),
    # Numbers
    *[(f"temperature {text}", JSON, one(temperature=text), 422) for text in ("1e400", "-1e400", "50.00000000000001")],
    *[(f"temperature {text}", JSON, one(temperature=text), 422) for text in ("NaN", "Infinity", "-Infinity")],
    *[
        (f"temperature {text}", JSON, one(temperature=text), 400)
        for text in ("+1", "01", ".5", "1.", "0x10", "1_0", "1e", "--1", "\uff11", "inf", "nan")
    ],
    ("a number of a million digits", JSON, lambda: reading(temperature="9" * 1_000_000), 400),
    ("an exponent of a million digits", JSON, lambda: reading(temperature=f"1e{'9' * 1_000_000}"), 422),
    ("a number of 8 MiB where nobody looks", JSON, lambda: reading(f'"x": {"9" * (MOST_BYTES - 200)}, '), 400),
    # Instants
    *[
        (f"at {instant}", JSON, one(timestamp=f'"{instant}"'), 422)
        for instant in (
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "0001-01-01T23:58:59+23:59",
            "9999-12-31T23:59:59.999999-00:01",
            "10000-01-01T00:00:00Z",
            "+2024-12-01T12:34:56Z",
            "-2024-12-01T12:34:56Z",
            "2016-12-31T23:59:60Z",
            "2024-12-01T12:34:56+24:00",
            "2024-12-01T12:34:56-24:00",
            "2024-12-01T12:34:56+23:60",
            "2024-12-01T12:34:56+99:99",
            "2024-12-01T24:00:00Z",
            "2023-02-29T00:00:00Z",
            "\uff12\uff10\uff12\uff14-12-01T12:34:56Z",
            "2024-12-01T12:34:56Z ",
            "2024-12-01T12:34:56Z\\n",
            "2024-12-01T12:34:56.Z",
            "2024-12-01T12:34:56.123,4Z",
            "infinity",
            "now",
        )
    ],
    # Of a field that is there twice the last counts.
    ("a fault in the last of two fields", JSON, lambda: reading('"temperature": 20, ', temperature="99"), 422),
    ("SQL as a temperature", JSON, one(temperature=json.dumps(SQL)), 422),
    ("SQL as a timestamp", JSON, one(timestamp=json.dumps(f"2024-12-01T12:34:56Z{SQL}")), 422),
]
TAKEN: Sequence[tuple[str, str, Body, tuple[Any, ...]]] = [
    ("the last of two fields", JSON, lambda: reading('"temperature": 99, '), STORED),
    ("200,000 fields that are ignored", JSON, lambda: reading("".join(f'"{n}":0,' for n in range(200_000))), STORED),
    ("a byte order mark", JSON, lambda: reading().decode().encode("utf-8-sig"), STORED),
    ("lines behind a byte order mark", NDJSON, lambda: b"\xef\xbb\xbf" + reading() + b"\r\n", STORED),
    ("8 MiB of empty lines and a reading", NDJSON, lambda: b"\r\n" * (MOST_BYTES // 2 - 100) + reading(), STORED),
    (
        "SQL as identifiers",
        JSON,
        one(building_id=f'"{SQL}"', room_id=f'"{SQL}"'),
        (SQL, SQL, *STORED[2:]),
    ),
    ("minus zero", JSON, one(temperature="-0.0"), (*STORED[:3], 0.0)),
    ("less than a float holds", JSON, one(temperature="1e-400"), (*STORED[:3], 0.0)),
    ("more digits than a float holds", JSON, lambda: reading(temperature=f"22.5{'0' * 1_000_000}1"), STORED),
    ("an exponent", JSON, one(temperature="225E-1"), STORED),
    ("a surrogate pair", JSON, one(room_id=r'"\ud83c\udf21"'), ("B1", "\U0001f321", *STORED[2:])),
    (
        "microseconds and a million digits more",
        JSON,
        lambda: reading(timestamp=f'"2024-12-01T12:34:56.123456{"9" * 1_000_000}Z"'),
        (*STORED[:2], STORED[2].replace(microsecond=123456), 22.5),
    ),
    (
        "the first instant",
        JSON,
        one(timestamp='"0001-01-01T23:59:00+23:59"'),
        (*STORED[:2], datetime.min.replace(tzinfo=UTC), 22.5),
    ),
    (
        "the last instant",
        JSON,
        one(timestamp='"9999-12-31T00:00:59.999999-23:59"'),
        (*STORED[:2], datetime.max.replace(tzinfo=UTC), 22.5),
    ),
    *[
        (
            f"255 characters of plane {plane}",
            JSON,
            one(room_id=json.dumps(characters := chr(plane * 0x10000 + 0x3042) * 254 + chr(plane * 0x10000 + 0xFFFF))),
            ("B1", characters, *STORED[2:]),
        )
        for plane in range(17)
    ],
]


@pytest.fixture
def ingest(serve: Callable[..., TestClient], plain: Urls) -> TestClient:
    return serve("ingest", DATABASE_URL=plain(WRITER), **ANY_CLOCK)


@pytest.fixture
def table(plain: Urls) -> Iterator[Callable[[], list[tuple[Any, ...]]]]:
    """What is stored; then it is removed."""
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:

        def taken() -> list[tuple[Any, ...]]:
            rows = connection.execute("SELECT * FROM temperatures").fetchall()
            connection.execute("TRUNCATE temperatures")
            return rows

        yield taken


Table = Callable[[], list[tuple[Any, ...]]]


def test_it_is_refused_soon_and_nothing_is_stored(ingest: TestClient, table: Table, subtests: pytest.Subtests) -> None:
    for name, media_type, body, status in REFUSED:
        with subtests.test(name):
            content = body()
            started = time.monotonic()
            response = ingest.post("/", content=content, headers={"content-type": media_type})
            assert time.monotonic() - started < SECONDS
            assert response.status_code == status, response.text[:1000]
            assert response.headers["content-type"] == "application/problem+json"
            assert len(response.content) < LONGEST_ANSWER
            assert table() == []


def test_it_is_stored_as_it_is(ingest: TestClient, table: Table, subtests: pytest.Subtests) -> None:
    for name, media_type, body, row in TAKEN:
        with subtests.test(name):
            content = body()
            started = time.monotonic()
            response = ingest.post("/", content=content, headers={"content-type": media_type})
            assert time.monotonic() - started < SECONDS
            assert response.status_code == 201, response.text[:1000]
            assert table() == [row]


def test_minus_zero_is_zero(ingest: TestClient, table: Table) -> None:
    readings = [json.loads(reading(temperature=text)) for text in ("0.0", "-0.0", "0", "1e-400")]
    assert ingest.post("/", json=readings[:2]).json()["duplicates"] == 1
    assert ingest.post("/", json=readings[2:]).json()["duplicates"] == 2
    assert len(table()) == 1


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip", "gzip, br", "x"])
def test_another_compression_is_refused_as_that(ingest: TestClient, table: Table, encoding: str) -> None:
    for body in (reading(), gzip.compress(reading())):
        response = ingest.post("/", content=body, headers={"content-encoding": encoding})
        assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip")
        assert response.json()["detail"] == (
            f"A body with Content-Encoding {encoding} cannot be read; send it as gzip or as it is"
        )
    response = ingest.post(
        "/", content=b"", headers=[("content-encoding", "gzip"), ("content-encoding", "identity, br")]
    )
    assert response.status_code == 415
    assert table() == []


@pytest.mark.parametrize("encoding", ["", "Identity", "identity, identity", " ,identity,, "])
def test_what_is_not_compressed_may_say_so(ingest: TestClient, table: Table, encoding: str) -> None:
    assert ingest.post("/", content=reading(), headers={"content-encoding": encoding}).status_code == 201
    assert table() == [STORED]


@pytest.mark.parametrize("encoding", ["gzip", "GZip", "x-gzip", "identity, gzip"])
def test_a_body_may_be_gzip(ingest: TestClient, table: Table, encoding: str) -> None:
    lines = [reading(temperature=f"{n / 1000}") + b"\n" for n in range(3000)]
    members = gzip.compress(b"".join(lines[:1000])) + gzip.compress(b"".join(lines[1000:]))
    headers = {"content-encoding": encoding, "content-type": NDJSON}
    assert ingest.post("/", content=members, headers=headers).json()["accepted"] == 3000
    assert len(table()) == 3000
    parts = [members[:5], members[5:]]
    status, answer = post_in_parts(ingest, parts, content_type=NDJSON, content_encoding=encoding)
    assert (status, answer["accepted"], len(table())) == (201, 3000, 3000)


MEMBER = gzip.compress(b"")
NOT_GZIP = "The body is not gzip, as Content-Encoding says: "
TOO_LARGE = "A body holds at most 8388608 bytes; send it in parts"
NO_GZIP: Sequence[tuple[str, Body, int, str]] = [
    ("no gzip", reading, 400, NOT_GZIP),
    ("nothing", bytes, 400, f"{NOT_GZIP}it ends before its end"),
    ("cut off", lambda: gzip.compress(reading())[:-1], 400, f"{NOT_GZIP}it ends before its end"),
    ("another checksum", lambda: gzip.compress(reading())[:-8] + bytes(8), 400, NOT_GZIP),
    ("something behind it", lambda: gzip.compress(reading()) + b"x", 400, NOT_GZIP),
    ("no JSON inside", lambda: gzip.compress(b"x"), 400, "The body is not JSON: "),
    ("a bomb of 9 MiB", lambda: gzip.compress(b" " * (MOST_BYTES + 1)), 413, TOO_LARGE),
    ("a bomb of 512 MiB", lambda: gzip.compress(bytes(2**29), 1), 413, TOO_LARGE),
    ("101 members", lambda: gzip.compress(reading()) + MEMBER * 100, 400, f"{NOT_GZIP}it has more than 100 members"),
    ("hundreds of thousands of members", lambda: MEMBER * (MOST_BYTES // len(MEMBER)), 400, NOT_GZIP),
]


def test_what_is_no_good_gzip_is_refused(ingest: TestClient, table: Table, subtests: pytest.Subtests) -> None:
    for name, body, status, said in NO_GZIP:
        with subtests.test(name):
            content = body()
            started = time.monotonic()
            response = ingest.post("/", content=content, headers={"content-encoding": "gzip"})
            assert time.monotonic() - started < SECONDS
            assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
            assert response.json()["detail"].startswith(said)
    assert table() == []


def test_a_body_may_have_a_hundred_gzip_members(ingest: TestClient, table: Table) -> None:
    content = gzip.compress(reading()) + MEMBER * 99
    assert ingest.post("/", content=content, headers={"content-encoding": "gzip"}).status_code == 201
    assert table() == [STORED]


def test_sql_in_a_question_finds_nothing(serve: Callable[..., TestClient], plain: Urls, table: Table) -> None:
    average = serve("average", DATABASE_URL=plain(READER))
    for name in ("building_id", "room_id"):
        query = {"building_id": "B1", name: f"B1{SQL}", "start": "2024-12-01T00:00:00Z"}
        for path in ("average", "series"):
            response = average.get(f"/v1/temperature/{path}", params=query)
            assert (response.status_code, response.json().get("count", 0)) == (200, 0)
    for name in ("start", "end", "bucket", "query_datetime", SQL):
        response = average.get("/v1/temperature/series", params={"building_id": "B1", name: SQL})
        assert response.status_code == 422
    assert table() == []


# What a client of HTTP does not send: the function as its image serves it, and a socket.

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = reading()
LENGTH = b"Content-Length: %d\r\n" % len(GOOD)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n%x;extension=1\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (10, GOOD[:10], len(GOOD) - 10, GOOD[10:])
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
MEBIBYTE = b"100000\r\n%b\r\n" % bytes(1024 * 1024)
EVENT = b"CE-SpecVersion: 1.0\r\nCE-ID: 1\r\ncE-sOURCE: %b\r\nCe-Type: x\r\n"
# What is sent, the statuses that are answered, and whether the reading is stored.
RAW: Sequence[tuple[str, bytes, list[int], bool]] = [
    ("a reading", HEAD + LENGTH + b"\r\n" + GOOD, [201], True),
    ("a reading in chunks", HEAD + CHUNKED + b"\r\n" + CHUNKS, [201], True),
    ("two requests at once", (HEAD + LENGTH + b"\r\n" + GOOD) * 2, [201, 201], True),
    ("names of headers in any case", HEAD + LENGTH + EVENT % b"/" + b"\r\n" + GOOD, [201], True),
    ("a path of beginnings of URLs", b"GET /%b= HTTP/1.1\r\nHost: x\r\n\r\n" % (b"://:" * 15_000), [404], False),
    ("a header of UTF-8", HEAD + LENGTH + EVENT % "/Zürich".encode() + b"\r\n" + GOOD, [201], True),
    ("quotes that do not end", HEAD + LENGTH + EVENT % (b'"' + rb"\"" * 30_000) + b"\r\n" + GOOD, [201], True),
    ("a length that is too short", HEAD + b"Content-Length: 20\r\n\r\n" + GOOD, [400, 400], False),
    ("a length behind zeros", HEAD + b"Content-Length: %b%d\r\n\r\n" % (b"0" * 5000, len(GOOD)) + GOOD, [201], True),
    ("something behind a reading", HEAD + LENGTH + b"\r\n" + GOOD + b"?", [201, 400], True),
    ("a length that is too long", HEAD + b"Content-Length: 1000\r\n\r\n" + GOOD, [], False),
    ("a length of more than 8 MiB", HEAD + b"Content-Length: 9000000\r\n\r\n", [413], False),
    ("a length that no number holds", HEAD + b"Content-Length: %b\r\n\r\n" % (b"9" * 5000), [400], False),
    *[
        (f"a length of {length.decode()}", HEAD + b"Content-Length: %b\r\n\r\n%b" % (length, GOOD), [400], False)
        for length in (b"-1", b"1e2", b"0x10", b"+88", b"88, 88", b"eighty")
    ],
    ("two lengths", HEAD + LENGTH + b"Content-Length: 1\r\n\r\n" + GOOD, [400], False),
    ("chunks and a length", HEAD + LENGTH + CHUNKED + b"\r\n" + CHUNKS, [400], False),
    ("chunks of gzip", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, [501], False),
    ("chunks, a coding by coding", HEAD + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n" + CHUNKS, [501], False),
    ("chunks by another name", HEAD + b"Transfer-Encoding:  Chunked \r\n\r\n" + CHUNKS, [201], True),
    ("gzip until the end", HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + GOOD, [501], False),
    ("chunks that are none", HEAD + CHUNKED + b"\r\n" + GOOD, [400], False),
    ("chunks without an end", HEAD + CHUNKED + b"\r\n" + CHUNKS[:-20], [], False),
    ("a chunk of less than nothing", HEAD + CHUNKED + b"\r\n-1\r\n\r\n", [400], False),
    ("a chunk of more than there is", HEAD + CHUNKED + b"\r\nffffffffffffffffff\r\n\r\n", [400], False),
    (
        "chunks of more than 8 MiB",
        HEAD + CHUNKED + b"\r\n" + b"100000\r\n%b\r\n" % bytes(1024 * 1024) * 9,
        [413],
        False,
    ),
    ("no body", HEAD + b"\r\n", [411], False),
    ("a body without a length", HEAD + b"\r\n" + GOOD, [411], False),
    ("half a head", HEAD, [], False),
    ("NUL in a header", HEAD + LENGTH + b"CE-ID: a\0b\r\n\r\n" + GOOD, [400], False),
    ("a line feed in a header", HEAD + LENGTH + b"CE-ID: a\nCE-Type: b\r\n\r\n" + GOOD, [400], False),
    ("a header on two lines", HEAD + LENGTH + b"CE-ID: a\r\n b\r\n\r\n" + GOOD, [400], False),
    ("a header without a name", HEAD + LENGTH + b": x\r\n\r\n" + GOOD, [400], False),
    ("a space before the colon", HEAD + LENGTH + b"CE-ID : x\r\n\r\n" + GOOD, [400], False),
    ("HTTP/0.9", b"GET /health\r\n", [], False),
    ("HTTP/2.0", b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", [400], False),
    ("no Host", b"GET /health HTTP/1.1\r\n\r\n", [400], False),
    ("two Hosts", b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", [400], False),
    ("no Host from HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", [405], False),
    ("HTTP/0.9 by its name", b"GET /health HTTP/0.9\r\nHost: x\r\n\r\n", [400], False),
    ("HTTP/3.0", b"GET /health HTTP/3.0\r\n\r\n", [400], False),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], False),
    ("the hello of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), [400], False),
    ("another protocol", b"SSH-2.0-OpenSSH_9.0\r\n", [400], False),
    ("a method that nobody has", b"REFUSE / HTTP/1.1\r\nHost: x\r\n\r\n", [400], False),
    ("a path of line breaks", b"GET /%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    ("a path of NUL and no UTF-8", b"GET /%00%ff%ed%a0%80 HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    ("a path of 60,000 characters", b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 60_000), [404], False),
    ("a path with ..", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    ("the address of another server", b"GET http://y/health HTTP/1.1\r\nHost: x\r\n\r\n", [200], False),
    ("a proxy is asked for", b"CONNECT y:443 HTTP/1.1\r\nHost: y:443\r\n\r\n", [400], False),
    ("a head of 100 KB", HEAD + b"X: %b\r\n" % (b"x" * 100_000) + LENGTH + b"\r\n" + GOOD, [431], False),
    ("10,000 headers", HEAD + b"X: 123\r\n" * 10_000 + LENGTH + b"\r\n" + GOOD, [431], False),
    ("a target of 100 KB", b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 100_000), [431], False),
    ("a method for debugging", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", [405], False),
    ("a method of WebDAV", b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n", [405], False),
    ("the icon of a page", b"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    (
        "100 continue from HTTP/1.0",
        (HEAD + LENGTH).replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\n\r\n" + GOOD,
        [201],
        True,
    ),
    ("100 continue", HEAD + LENGTH + b"Expect: 100-continue\r\n\r\n" + GOOD, [100, 201], True),
    ("another protocol is offered", HEAD + LENGTH + UPGRADE + b"\r\n" + GOOD, [201], True),
    ("another protocol, in chunks", HEAD + CHUNKED + UPGRADE + b"\r\n" + CHUNKS, [201], True),
    ("another protocol, no body", HEAD + b"Content-Length: 0\r\n" + UPGRADE + b"\r\n", [400], False),
    ("another protocol, and half a body", HEAD + LENGTH + UPGRADE + b"\r\n" + GOOD[:9], [], False),
    (
        "another protocol, twice at once",
        (HEAD + LENGTH + UPGRADE + b"\r\n" + GOOD) * 2,
        [201, 400],
        True,
    ),
]


@pytest.fixture
def port(plain: Urls) -> Iterator[int]:
    with stack.function("ingest", plain(WRITER)) as served:
        yield served.port


def test_what_is_no_http_is_refused_and_stores_nothing(port: int, table: Table, subtests: pytest.Subtests) -> None:
    answered: Counter[str] = Counter()
    for name, sent, statuses, stored in RAW:
        with subtests.test(name):
            started = time.monotonic()
            received = talk(port, sent, len(statuses))
            assert time.monotonic() - started < SECONDS
            assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)] == statuses
            problems = [status for status in statuses if status >= 400]
            assert received.count(b"content-type: application/problem+json") == len(problems)
            assert received.count(b"x-request-id: ") == len(problems)
            answered.update(map(str, statuses))
            assert b"Traceback" not in received
            assert b"\r\nSet-Cookie" not in received
            assert table() == ([STORED] if stored else [])
    metrics = talk(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
    counted: Counter[str] = Counter()
    for status, count in re.findall(r'^temperature_requests_total{.*status="(\d+)"} ([0-9.]+)$', metrics, re.MULTILINE):
        counted[status] += int(float(count))
    # What is given up in the middle is counted too, though nobody is told, and so is the start.
    assert counted - answered == Counter({"400": len([each for each in RAW if not each[2]]), "200": 1})
    assert answered - counted == Counter({"100": answered["100"]})


def talk(port: int, sent: bytes, answers: int = 1) -> bytes:
    """What the server says to that, until it closes or, after so many answers, falls silent."""
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            connection.sendall(sent)
            while True:
                connection.settimeout(SECONDS if received.count(b"HTTP/1.1 ") < answers else 0.1)
                if not (part := connection.recv(65536)):
                    break
                received += part
        except (ConnectionError, TimeoutError):
            # It had heard enough before the end, or is waiting for more.
            pass
    return received
