"""CloudEvents 1.0.2 over HTTP as their specification has them: what is taken, and what is refused with nothing stored.

The numbers are sections of the HTTP Protocol Binding ("http"), of the JSON Event Format ("json") and of the
specification itself ("core"). The data of every event is the same reading.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, WRITER
from tests.support import Urls

# Its Base64 has both characters that differ in the alphabet for URLs.
READING = {"building_id": "B?>", "room_id": "~?>", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}
DATA = json.dumps(READING).encode()
BASE64 = b64encode(DATA).decode()
ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/sensors/1", "type": "com.example.reading"}
REQUIRED = tuple(ATTRIBUTES)
JSON, ONE, BATCH = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
ABSENT: Any = object()

Request = tuple[dict[str, str], bytes]
Case = tuple[str, Request, int]


def binary(media_type: str | None = JSON, data: bytes = DATA, /, **changes: str) -> Request:
    """An event in binary mode; `ce_` begins the name of a header."""
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    headers |= {"content-type": media_type} if media_type is not None else {}
    return {name: value for name, value in headers.items() if value is not ABSENT}, data


def event(**changes: Any) -> dict[str, Any]:
    """An event in the JSON format."""
    return {name: value for name, value in {**ATTRIBUTES, "data": READING, **changes}.items() if value is not ABSENT}


def structured(content: Any, media_type: str = ONE, **headers: str) -> Request:
    return {"content-type": media_type, **{name.replace("_", "-"): value for name, value in headers.items()}}, (
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )


def encoded(data: bytes) -> dict[str, Any]:
    return {"data": ABSENT, "data_base64": b64encode(data).decode()}


BINARY_MODE: Sequence[Case] = [
    ("JSON", binary(), 201),
    ("JSON with a charset", binary("application/json; charset=utf-8"), 201),
    ("core datacontenttype: in any case", binary("APPLICATION/Json ; CharSet=UTF-8"), 201),
    ("json 3.1.1: a format that ends in +json is JSON", binary("application/vnd.example.reading+json"), 201),
    ("json 3.1.1: so is the subtype json of any type", binary("text/json"), 201),
    ("without Content-Type, what arrives is taken for a reading", binary(None), 201),
    ("extensions", binary(ce_traceparent="00-ab-cd-01", ce_sequence="5"), 201),
    ("http 3.1.3.2: percent-encoded, in lower case too", binary(ce_source="/%e2%82%ac%20%F0%9F%98%80"), 201),
    ("http 3.1.3.2: percent-encoded without need", binary(ce_specversion="%31%2E0"), 201),
    ("http 3.1.3.2: double-quoted", binary(ce_specversion='"1.0"'), 201),
    ("http 3.1.3.2: double-quoted with backslashes", binary(ce_specversion=r'"\1\.0"', ce_id=r'"\""'), 201),
    # Of optional attributes nothing is needed: a reading is worth more than they are.
    (
        "a time, dataschema and subject that break their rules",
        binary(ce_time="noon", ce_dataschema="", ce_subject=""),
        201,
    ),
    ("http 3.1.1: Content-Type counts, not ce-datacontenttype", binary(ce_datacontenttype="text/plain"), 201),
    *[(f"core: {name} is required", binary(**{f"ce_{name}": ABSENT}), 400) for name in REQUIRED],
    *[(f"core: {name} is not empty", binary(**{f"ce_{name}": ""}), 400) for name in REQUIRED],
    *[(f"core: {name} is not empty in quotes", binary(**{f"ce_{name}": '""'}), 400) for name in REQUIRED],
    *[
        (f"core: version {version}", binary(ce_specversion=version), 400)
        for version in ("0.3", "1", "1.0.2", "1.1", "2.0")
    ],
    ("http 3.1.3.2: one round of decoding", binary(ce_specversion="%2531.0"), 400),
    ("http 3.1.3.2: overlong UTF-8", binary(ce_id="%C0%A0"), 400),
    ("http 3.1.3.2: half a surrogate pair", binary(ce_source="%ED%A0%80"), 400),
    ("http 3.1.3.2: no UTF-8, in an attribute that is not needed", binary(ce_subject="%FF"), 400),
    *[
        (f"{media_type} is not JSON", binary(media_type), 415)
        for media_type in ("text/plain", "application/xml", "application/octet-stream", "application/x-ndjson", "json")
    ],
    ("data that is not JSON though it says so", binary(JSON, b"<reading/>"), 400),
    ("no data", binary(JSON, b""), 400),
    ("data that is not one reading", binary(JSON, b"[" + DATA + b"]"), 422),
]
STRUCTURED_MODE: Sequence[Case] = [
    ("JSON format", structured(event()), 201),
    ("with a charset", structured(event(), f"{ONE}; charset=UTF-8"), 201),
    ("http 3: in any case", structured(event(), "Application/CloudEvents+JSON"), 201),
    ("http 3.2.3: the payload counts, not headers", structured(event(), ce_specversion="0.3", ce_id="%FF"), 201),
    ("extensions of every type", structured(event(a="x", b=5, c=True, d=None)), 201),
    (
        "json 2.2: null is absent",
        structured(event(datacontenttype=None, subject=None, time=None, dataschema=None)),
        201,
    ),
    ("optional attributes that break their rules", structured(event(time="noon", dataschema="", subject={})), 201),
    ("datacontenttype JSON", structured(event(datacontenttype="application/json;charset=utf-8")), 201),
    ("core datacontenttype: in any case", structured(event(datacontenttype="Text/JSON")), 201),
    ("json 3.1.1: +json", structured(event(datacontenttype="application/vnd.example.reading-v1+json")), 201),
    ("json 3.1.2: data_base64 is decoded", structured(event(**encoded(DATA))), 201),
    ("json 3.1.2: with datacontenttype", structured(event(**encoded(DATA), datacontenttype="application/json")), 201),
    *[(f"core: {name} is required", structured(event(**{name: ABSENT})), 400) for name in REQUIRED],
    *[(f"json 2.2: {name} is absent as null", structured(event(**{name: None})), 400) for name in REQUIRED],
    *[(f"core: {name} is not empty", structured(event(**{name: ""})), 400) for name in REQUIRED],
    *[(f"core: {name} is text", structured(event(**{name: 1.0})), 400) for name in REQUIRED],
    *[(f"core: version {version}", structured(event(specversion=version)), 400) for version in ("0.3", "1.1", "2.0")],
    ("json 3.1.1: data and data_base64", structured(event(data_base64=BASE64)), 400),
    ("json 3: not an object", structured("1.0"), 400),
    ("json 3: a batch is another format", structured([event()]), 400),
    ("not JSON", structured(b"<event/>"), 400),
    *[
        (f"data as {media_type!r}", structured(event(datacontenttype=media_type)), 415)
        for media_type in ("application/xml", "text/plain", "json", "+json", "")
    ],
    *[
        (f"http 3: {media_type} is a format that ingest does not have", structured(event(), media_type), 415)
        for media_type in (
            "application/cloudevents",
            "application/cloudevents+avro",
            "application/cloudevents+protobuf",
            "application/cloudevents+xml",
            "application/cloudevents-batch",
            "application/cloudevents-batch+protobuf",
            "application/cloudevents-compact+json",
        )
    ],
    (
        "another format is not taken for binary mode",
        structured(
            DATA, "application/cloudevents-x+json", **{f"ce_{name}": value for name, value in ATTRIBUTES.items()}
        ),
        415,
    ),
    ("core: no data", structured(event(data=ABSENT)), 422),
    ("json 3.1.1: null is data", structured(event(data=None)), 422),
    ("json 3.1.2: a string is not JSON again", structured(event(data=DATA.decode())), 422),
    ("data_base64 that is not Base64", structured(event(data=ABSENT, data_base64="?")), 422),
    ("data_base64 that is null", structured(event(data=ABSENT, data_base64=None)), 422),
    ("data_base64 of what is not JSON", structured(event(**encoded(b"<reading/>"))), 422),
]
GOOD = event()
BATCHED_MODE: Sequence[Case] = [
    ("a batch", structured([GOOD, event(id="2")], BATCH), 201),
    ("with a charset, in any case", structured([GOOD], "Application/CloudEvents-Batch+JSON; charset=UTF-8"), 201),
    ("data and data_base64 in turns", structured([GOOD, event(**encoded(DATA))], BATCH), 201),
    ("json 4: not an array", structured(GOOD, BATCH), 400),
    ("one without an id", structured([GOOD, event(id=ABSENT)], BATCH), 400),
    ("http 3.3.2: one of another version", structured([GOOD, event(specversion="0.3")], BATCH), 400),
    ("one with data and data_base64", structured([GOOD, event(data_base64=BASE64)], BATCH), 400),
    ("one that is null", structured([GOOD, None], BATCH), 400),
    ("one whose data is XML", structured([GOOD, event(datacontenttype="application/xml")], BATCH), 415),
    ("one without data", structured([GOOD, event(data=ABSENT)], BATCH), 422),
    ("one whose data is no reading", structured([GOOD, event(data={**READING, "temperature": 51})], BATCH), 422),
]


@pytest.fixture
def ingest(serve: Callable[..., TestClient], plain: Urls) -> TestClient:
    return serve("ingest", DATABASE_URL=plain(WRITER))


@pytest.mark.parametrize("cases", [BINARY_MODE, STRUCTURED_MODE, BATCHED_MODE], ids=["binary", "structured", "batched"])
def test_an_event_is_stored_or_refused_as_specified(
    ingest: TestClient, plain: Urls, subtests: pytest.Subtests, cases: Sequence[Case]
) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for name, (headers, body), status in cases:
            with subtests.test(name):
                response = ingest.post("/", content=body, headers=headers)
                stored = connection.execute("SELECT building_id, room_id, temperature FROM temperatures").fetchall()
                connection.execute("TRUNCATE temperatures")
                assert response.status_code == status, response.text
                assert stored == ([("B?>", "~?>", 22.5)] if status == 201 else [])


def test_an_empty_batch_is_taken(ingest: TestClient) -> None:
    headers, body = structured([], BATCH)
    response = ingest.post("/", content=body, headers=headers)
    assert (response.status_code, response.json()["accepted"]) == (201, 0)


def test_each_event_of_a_batch_that_is_at_fault_is_named(ingest: TestClient) -> None:
    headers, body = structured([GOOD, event(data_base64=BASE64), event(data_base64=BASE64)], BATCH)
    faults = ingest.post("/", content=body, headers=headers).json()["errors"]
    message = "must not be there beside data"
    assert faults == [{"index": index, "field": "data_base64", "message": message} for index in (1, 2)]


def test_a_header_that_does_not_decode_is_named(ingest: TestClient) -> None:
    headers, body = binary(ce_id="%C0%A0", ce_subject="%FF")
    faults = ingest.post("/", content=body, headers=headers).json()["errors"]
    assert [fault["field"] for fault in faults] == ["ce-id", "ce-subject"]
