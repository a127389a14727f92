"""What `ingest` refuses, and how it says so. Nothing here reaches a database: no reading gets that far."""

import asyncio
import base64
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pydantic_core import ValidationError
from starlette.testclient import TestClient

from ingest import bodies
from shared.problems import Problem
from tests.support import NOWHERE, turns_beside

READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56.000Z"}
EVENT = {"specversion": "1.0", "id": "1", "source": "/buildings/B1/rooms/101", "type": "dev.temperature.reading.v1"}
BINARY = {f"ce-{name}": value for name, value in EVENT.items()}
STRUCTURED, BATCH, NDJSON = (
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/x-ndjson",
)

IDENTIFIER = "must be a string of 1 to 255 characters, none of them NUL"
TEMPERATURE = "must be a number from -50 to 50 (degrees Celsius)"
TIMESTAMP = "must be an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z"

NO_IDENTIFIERS: list[object] = ["", "x" * 256, 101, None]
NO_TEMPERATURES: list[object] = [50.01, -50.01, 1e300, "22.5", True, None, []]
NO_TIMESTAMPS: list[object] = [
    "2024-12-01T12:34:56",
    "2024-12-01",
    "2024-12-01T12:34",
    "2024-12-01T12Z",
    "2024-12-01T12:34:56+1",
    "2024-12-01T12:34:56+010",
    "2024-12-01T12:34:56+24",
    "2024-12-01T12:34:56 01:00",
    "2024-13-01T12:34:56Z",
    "2024-02-30T12:34:56Z",
    "2024-12-01T24:00:00Z",
    "2016-12-31T23:59:60Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "1733056496",
    "yesterday",
    "",
]
NO_TEXT: list[object] = [1733056496, 1733056496000, 1733056496.5, None, ["2024-12-01T12:34:56Z"]]
FAULTY = [
    ("room_id", "10\x001", IDENTIFIER),
    *[(field, value, IDENTIFIER) for field in ("building_id", "room_id") for value in NO_IDENTIFIERS],
    *[("temperature", value, TEMPERATURE) for value in NO_TEMPERATURES],
    *[("timestamp", value, TIMESTAMP) for value in NO_TIMESTAMPS],
    *[("timestamp", value, f"{TIMESTAMP}, and no number") for value in NO_TEXT],
]


@pytest.mark.parametrize(
    "media_type",
    [f"application/{x}{name}" for x in ("x-", "") for name in ("ndjson", "jsonl", "jsonlines")],
)
def test_lines_of_json_have_several_names(media_type: str) -> None:
    body = b"\n".join([json.dumps(READING).encode()] * 2)
    assert len(asyncio.run(bodies.parse({"content-type": media_type}, body))) == 2


@pytest.fixture
def ingest(serve: Callable[..., TestClient]) -> TestClient:
    return serve("ingest", DATABASE_URL=NOWHERE)


def post(client: TestClient, body: object, content_type: str = "application/json", **headers: str) -> Any:
    """POST a body, as it is if it is bytes, as JSON otherwise."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/temperature", content=content, headers={"content-type": content_type, **headers})


def problem(response: Any) -> tuple[int, Any]:
    """The status of a problem document and its faults, or its detail if it names no faults."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == response.status_code
    assert body["type"] == "about:blank"
    return response.status_code, body.get("errors", body["detail"])


@pytest.mark.parametrize(("field", "value", "message"), FAULTY)
def test_a_field_that_breaks_its_rule_is_named_with_the_rule(
    ingest: TestClient, field: str, value: object, message: str
) -> None:
    faulty = {**READING, field: value}
    fault = {"index": 0, "field": field, "message": message}
    assert problem(post(ingest, faulty)) == (422, [fault])
    assert problem(post(ingest, [READING, faulty])) == (422, [{**fault, "index": 1}])
    lines = f"{json.dumps(READING)}\n\n{json.dumps(faulty)}\n"
    assert problem(post(ingest, lines.encode(), NDJSON)) == (422, [{**fault, "index": 1}])
    assert problem(post(ingest, faulty, **BINARY)) == (422, [fault])
    in_event = {**fault, "field": f"data.{field}"}
    assert problem(post(ingest, {**EVENT, "data": faulty}, STRUCTURED)) == (422, [in_event])
    events = [{**EVENT, "data": READING}, {**EVENT, "data": faulty}]
    assert problem(post(ingest, events, BATCH)) == (422, [{**in_event, "index": 1}])
    encoded = base64.b64encode(json.dumps(faulty).encode()).decode()
    assert problem(post(ingest, {**EVENT, "data_base64": encoded}, STRUCTURED)) == (
        422,
        [{**fault, "field": f"data_base64.{field}"}],
    )


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_temperature_that_is_not_finite_is_refused(ingest: TestClient, literal: str) -> None:
    body = json.dumps(READING).replace("22.5", literal).encode()
    status, _ = problem(post(ingest, body))
    assert status in {400, 422}


def test_every_fault_of_every_reading_is_listed(ingest: TestClient) -> None:
    assert problem(post(ingest, [{"room_id": ""}, READING, {**READING, "temperature": 99}, 5])) == (
        422,
        [
            {"index": 0, "field": "building_id", "message": "Field required"},
            {"index": 0, "field": "room_id", "message": IDENTIFIER},
            {"index": 0, "field": "temperature", "message": "Field required"},
            {"index": 0, "field": "timestamp", "message": "Field required"},
            {"index": 2, "field": "temperature", "message": TEMPERATURE},
            {"index": 3, "field": "", "message": "Input should be an object"},
        ],
    )


def test_of_very_many_faults_the_first_thousand_are_listed(ingest: TestClient) -> None:
    response = post(ingest, [{}] * 10_000)
    status, faults = problem(response)
    assert (status, len(faults), faults[-1]["index"]) == (422, 1000, 249)
    assert response.json()["detail"].endswith("; the first 1000 faults are listed")


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a": "\xff"}', b'"\\ud800"', b"[" * 100_000])
def test_what_is_not_json_is_400(ingest: TestClient, body: bytes) -> None:
    for content_type in ("application/json", STRUCTURED, BATCH):
        response = post(ingest, body, content_type)
        assert problem(response)[0] == 400
        assert response.json()["detail"].startswith("The body is not JSON: ")


def test_a_line_that_is_not_json_is_named(ingest: TestClient) -> None:
    response = post(ingest, f"{json.dumps(READING)}\n\n{json.dumps(READING)}\n{{\n".encode(), NDJSON)
    status, [fault] = problem(response)
    assert (status, response.json()["detail"][:19]) == (400, "Line 4 is not JSON:")
    assert (fault["index"], fault["message"][:11]) == (2, "is not JSON")


GOOD, NAN = json.dumps(READING), json.dumps(READING).replace("22.5", "nan")
BROKEN_ITEMS = [
    (f"[{GOOD}, {GOOD}, {NAN}, {GOOD}]", 2),
    (f"[{NAN}]", 0),
    (f"[{GOOD},\n {GOOD},\n {NAN},\n {GOOD}]", 2),
    (f"[{GOOD}, nan, {GOOD}]", 1),
    (f"[{GOOD}, {GOOD[:-1]}, {GOOD}]", 1),
    (f"[{GOOD}, {GOOD}", 1),
    (f"[{GOOD}, {GOOD},]", 2),
    (f'[{GOOD}, {{"a": [1, 2, nan]}}]', 1),
]


@pytest.mark.parametrize(("body", "index"), BROKEN_ITEMS)
def test_in_an_array_it_is_named_which_item_is_not_json(ingest: TestClient, body: str, index: int) -> None:
    status, [fault] = problem(post(ingest, body.encode()))
    assert (status, fault["index"], fault["field"]) == (400, index, "")
    assert fault["message"].startswith("is not JSON: ")


WRONG_TYPES = [
    ({**EVENT, "data": READING}, "application/json", STRUCTURED),
    ([{**EVENT, "data": READING}], "application/json", BATCH),
    (f"{GOOD}\n{GOOD}\n".encode(), "application/json", NDJSON),
    ({**EVENT, "data": READING}, NDJSON, STRUCTURED),
    ([READING], NDJSON, "application/json"),
    (json.dumps(READING, indent=2).encode(), NDJSON, "application/json"),
]


@pytest.mark.parametrize(("body", "sent", "right"), WRONG_TYPES)
def test_what_has_the_wrong_type_is_told_the_right_one(ingest: TestClient, body: object, sent: str, right: str) -> None:
    response = post(ingest, body, sent)
    assert problem(response)[0] in {400, 422}
    assert right in response.json()["detail"]


HOT = {**READING, "temperature": 51}
RIGHT_TYPES = [
    (HOT, "application/json"),
    ([HOT], "application/json"),
    (f"{GOOD}\n{json.dumps(HOT)}\n".encode(), NDJSON),
    ({**EVENT, "data": HOT}, STRUCTURED),
    ([{**EVENT, "data": HOT}], BATCH),
]


@pytest.mark.parametrize(("body", "sent"), RIGHT_TYPES)
def test_what_breaks_a_rule_and_has_the_right_type_is_told_of_no_other(
    ingest: TestClient, body: object, sent: str
) -> None:
    response = post(ingest, body, sent)
    assert response.status_code == 422
    assert response.json()["detail"] == "Nothing was stored: some readings break a rule"


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type"])
def test_an_event_without_a_required_attribute_is_400(ingest: TestClient, attribute: str) -> None:
    event = {name: value for name, value in {**EVENT, "data": READING}.items() if name != attribute}
    fault = {"index": 0, "field": attribute, "message": "Field required"}
    assert problem(post(ingest, event, STRUCTURED)) == (400, [fault])
    assert problem(post(ingest, [{**EVENT, "data": READING}, event], BATCH)) == (400, [{**fault, "index": 1}])
    headers = {name: value for name, value in BINARY.items() if name != f"ce-{attribute}"}
    assert problem(post(ingest, READING, **headers)) == (400, [{**fault, "field": f"ce-{attribute}"}])


def test_an_event_of_another_version_is_400(ingest: TestClient) -> None:
    fault = {"index": 0, "field": "specversion", "message": "Input should be '1.0'"}
    assert problem(post(ingest, {**EVENT, "specversion": "0.3", "data": READING}, STRUCTURED)) == (400, [fault])
    status, _ = problem(post(ingest, [READING], STRUCTURED))
    assert status == 400


def test_data_that_decode_to_no_json_are_422_and_named(ingest: TestClient) -> None:
    events = [{**EVENT, "data": READING}, {**EVENT, "data_base64": base64.b64encode(b"{").decode()}]
    status, [fault] = problem(post(ingest, events, BATCH))
    assert (status, fault["index"], fault["field"]) == (422, 1, "data_base64")


def test_an_event_without_data_is_422(ingest: TestClient) -> None:
    fault = {"index": 0, "field": "data", "message": "Field required"}
    assert problem(post(ingest, EVENT, STRUCTURED)) == (422, [fault])


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson", "application/xml"])
def test_what_the_data_of_an_event_may_be_is_said(ingest: TestClient, media_type: str) -> None:
    event = {**EVENT, "datacontenttype": media_type}
    for answer in (
        post(ingest, b"x", media_type, **BINARY),
        ingest.post("/", json=event, headers={"content-type": "application/cloudevents+json"}),
    ):
        detail = "The data of a CloudEvent must be JSON, such as application/json"
        assert (answer.status_code, answer.json()["detail"]) == (415, detail)


def test_data_that_is_not_json_is_415(ingest: TestClient) -> None:
    event = {**EVENT, "datacontenttype": "application/xml", "data": "<reading/>"}
    status, faults = problem(post(ingest, event, STRUCTURED))
    assert (status, faults[0]["field"]) == (415, "datacontenttype")
    assert problem(post(ingest, b"<reading/>", "application/xml", **BINARY))[0] == 415


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_media_type_is_415(ingest: TestClient, content_type: str) -> None:
    assert problem(post(ingest, READING, content_type))[0] == 415


def test_more_than_ten_thousand_readings_are_413(ingest: TestClient) -> None:
    assert problem(post(ingest, [READING] * 10_001))[0] == 413
    assert problem(post(ingest, [{**EVENT, "data": READING}] * 10_001, BATCH))[0] == 413
    assert problem(post(ingest, (json.dumps(READING) + "\n").encode() * 10_001, NDJSON))[0] == 413


def test_what_is_encoded_counts_as_the_rest_of_a_body(ingest: TestClient) -> None:
    def event(data: str) -> dict[str, str]:
        return {**EVENT, "data_base64": base64.b64encode(data.encode()).decode()}

    readings = ['{"x": [%s{}]}' % ("{}," * (10 * number)) for number in (9_999, 10_000)]
    assert [problem(post(ingest, event(data), STRUCTURED))[0] for data in readings] == [422, 413]
    padded = event(json.dumps({**READING, "x": [{}] * 98}))
    assert len(asyncio.run(bodies.parse({"content-type": BATCH}, json.dumps([padded] * 900).encode()))) == 900
    assert problem(post(ingest, [padded] * 1_000, BATCH))[0] == 413
    # What is behind the first fault is looked at too.
    assert problem(post(ingest, [event("{}"), event(readings[1])], BATCH))[0] == 413
    assert problem(post(ingest, event(json.dumps({**READING, "x": [0] * 250_000})), STRUCTURED))[0] == 413


WITHOUT_FIELDS: dict[str, object] = {"x": [[]] * 1_000}
REFUSED = [
    ("a reading", WITHOUT_FIELDS, "application/json"),
    ("an array", [WITHOUT_FIELDS], "application/json"),
    ("what is no JSON", b"{", "application/json"),
    ("an array that is no JSON", b"[{", "application/json"),
    ("too many readings", [0] * 10_001, "application/json"),
    ("lines", b'{"x": 1}\n', NDJSON),
    ("a line that is no JSON", b"{\n", NDJSON),
    ("an event", WITHOUT_FIELDS, STRUCTURED),
    ("events", [WITHOUT_FIELDS], BATCH),
    ("an event of two kinds of data", {**EVENT, "data": READING, "data_base64": "e30="}, STRUCTURED),
    ("CSV", b"building_id,room_id,timestamp,temperature\n1,2,3,4\n", "text/csv"),
    ("a table of other columns", b"x\n", "text/csv"),
    ("a body of another type", b"x", "text/plain"),
]


def refusals() -> list[object]:
    """Those that are in memory."""
    return [each for each in gc.get_objects() if isinstance(each, (Problem, ValidationError))]


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("body", "media_type"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
@pytest.mark.usefixtures("_no_collection")
def test_nothing_of_what_was_refused_waits_for_garbage_collection(
    ingest: TestClient, body: object, media_type: str
) -> None:
    assert 400 <= post(ingest, body, media_type).status_code < 500
    assert refusals() == []


@pytest.mark.parametrize("body", [json.dumps([WITHOUT_FIELDS] * 50).encode(), b"[{}, {"])
@pytest.mark.usefixtures("_no_collection")
def test_while_others_are_served_no_fault_is_in_memory(body: bytes) -> None:
    async def main() -> None:
        refused = [asyncio.create_task(bodies.parse({}, body)) for _ in range(3)]
        while not all(each.done() for each in refused):
            await asyncio.sleep(0)
            assert [each for each in refusals() if isinstance(each, ValidationError)] == []
        assert all(isinstance(each.exception(), Problem) for each in refused)

    asyncio.run(main())


def test_more_than_eight_mebibytes_are_413_with_and_without_a_declared_length(ingest: TestClient) -> None:
    assert problem(post(ingest, b" " * (8 * 1024 * 1024 + 1)))[0] == 413
    parts = (b" " * 1024 * 1024 for _ in range(9))
    assert problem(ingest.post("/", content=parts)) == (413, "A body holds at most 8388608 bytes; send it in parts")


def test_the_media_type_may_be_sent_twice(ingest: TestClient) -> None:
    for sent, status in ((f"{NDJSON}, {NDJSON}; charset=utf-8", 201), (f"{NDJSON}, text/csv", 415)):
        assert post(ingest, b"", sent).status_code == status


def test_the_faults_of_two_bodies_at_once_are_those_of_each() -> None:
    async def refusal(body: bytes) -> Problem:
        with pytest.raises(Problem) as refused:
            await bodies.parse({"content-type": "application/json"}, body)
        return refused.value

    async def both() -> list[Problem]:
        faulty: list[object] = [5, {}]
        return await asyncio.gather(*(refusal(json.dumps([READING, each] * 150).encode()) for each in faulty))

    first, second = asyncio.run(both())
    assert {fault["message"] for fault in first.faults} == {"Input should be an object"}
    assert {fault["message"] for fault in second.faults} == {"Field required"}


HEADER, ROW = ",".join(READING).encode(), ",".join(map(str, READING.values())).encode()
LARGE = [
    (NDJSON, b"\n".join([GOOD.encode()] * 10_000), 100),
    # Whose first item is at fault, so that each is looked through.
    ("application/json", json.dumps([{}, *[READING] * 9_999]).encode(), 100),
    ("text/csv", b"\n".join([HEADER, *[ROW] * 10_000]), 10),
    # Twice: for whether there are faults, and for what they are.
    ("text/csv", b"\n".join([HEADER, *[ROW] * 9_999, b"B1"]), 20),
]


@pytest.mark.parametrize(("media_type", "body", "slices"), LARGE, ids=["lines", "array", "table", "faulty table"])
def test_others_are_served_while_a_large_body_is_looked_through(media_type: str, body: bytes, slices: int) -> None:
    async def parse() -> None:
        with suppress(Problem):
            await bodies.parse({"content-type": media_type}, body)

    assert asyncio.run(turns_beside(parse())) >= slices


@pytest.mark.parametrize("path", ["/", "/temperature", "/temperature/", "/v1/temperature", "/v1/temperature/"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405(ingest: TestClient, path: str, method: str) -> None:
    response = ingest.request(method, path)
    assert problem(response)[0] == 405
    assert response.headers["allow"] == "POST, OPTIONS"


def test_another_path_is_404(ingest: TestClient) -> None:
    assert problem(ingest.post("/v2/temperature", json=READING))[0] == 404


def test_health_is_ok_without_a_database(ingest: TestClient) -> None:
    response = ingest.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "message": "Service is healthy"})


def test_no_readings_are_accepted_as_none(ingest: TestClient) -> None:
    response = post(ingest, [])
    assert (response.status_code, response.json()["accepted"]) == (201, 0)
