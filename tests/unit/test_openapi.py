"""The API description says what the functions do."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from openapi.__main__ import descriptions
from openapi.document import VERSION, together
from tests.support import NOWHERE, ROOT

Serve = Callable[..., TestClient]
OPERATION = {("get", "/health"), ("get", "/metrics")}
DATABASE = {*OPERATION, ("get", "/ready")}
ROUTES = {
    "ingest": {("post", "/v1/temperature"), ("post", "/"), ("post", "/temperature"), *DATABASE},
    "average": {
        ("get", "/v1/temperature/average"),
        ("get", "/v1/temperature/series"),
        ("get", "/v1/temperature/readings"),
        ("delete", "/v1/temperature/readings"),
        ("get", "/v1/temperature/rooms"),
        ("delete", "/v1/temperature/rooms"),
        ("get", "/v1/temperature/removals"),
        ("get", "/v1/temperature/alarms"),
        ("get", "/settings"),
        *DATABASE,
    },
    "simulate": {("post", "/simulate"), *OPERATION},
    "watch": {("post", "/watch"), *DATABASE},
}
WHOLE = ROOT / "local" / "openapi.json"
TOKEN = "a-token-0123456789"


def described(path: Path) -> Any:
    return json.loads(path.read_text())


def operations(document: Any) -> dict[tuple[str, str], Any]:
    return {(method, path): each for path, item in document["paths"].items() for method, each in item.items()}


@pytest.mark.parametrize("path", descriptions(), ids=lambda path: path.parent.name)
def test_what_is_committed_is_what_the_rules_make(path: Path) -> None:
    assert path.read_text() == descriptions()[path], "`make describe` writes it again"


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_is_described_with_its_answers_and_problems(serve: Serve, name: str) -> None:
    document = serve(name).get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert operations(document).keys() == ROUTES[name]
    for operation in operations(document).values():
        assert operation["summary"]
        assert {status for status in operation["responses"] if status < "300"}
        for status, response in operation["responses"].items():
            assert ("application/problem+json" in response["content"]) == (status >= "400")
    assert _references(document) <= {f"#/components/schemas/{schema}" for schema in document["components"]["schemas"]}


@pytest.mark.parametrize("name", ROUTES)
def test_a_function_answers_with_what_is_committed_and_where_it_is(serve: Serve, name: str) -> None:
    committed = described(ROOT / "functions" / name / "openapi.json")
    client = serve(name, READ_TOKENS=TOKEN, WRITE_TOKENS=TOKEN)
    assert client.get("/openapi.json").json() == {**committed, "servers": [{"url": "."}]}


def test_all_together_are_the_routes_of_each_and_every_operation_has_a_name() -> None:
    document = operations(described(WHOLE))
    assert document.keys() == set.union(*ROUTES.values())
    names = [operation["operationId"] for operation in document.values()]
    assert len(set(names)) == len(names)


def test_two_schemas_of_one_name_are_refused() -> None:
    """A function's own would be gone from what all are together, unseen."""
    documents = [
        {"paths": {}, "tags": [], "components": {"schemas": {"Room": {"type": kind}}}} for kind in ("object", "string")
    ]
    assert together("", "", documents[:1])["components"]["schemas"] == {"Room": {"type": "object"}}
    with pytest.raises(ValueError, match="Room"):
        together("", "", documents)


def test_every_instant_is_one_for_a_client_too() -> None:
    """By its format: and without a pattern, which generated clients hold against the instant instead of its text."""
    names = {"start", "end", "query_datetime", "timestamp", "raised", "cleared"}
    variants = [
        variant
        for name, schema in _properties(described(WHOLE))
        for variant in schema.get("anyOf", [schema])
        # A check answers how many alarms it raised.
        # A local time is no instant without its zone.
        if name in names and variant["type"] == "string" and variant.get("examples") != ["2024-12-01"]
    ]
    assert len(variants) > 10
    for variant in variants:
        assert variant["format"] == "date-time"
        assert "pattern" not in variant


def test_no_client_counts_with_32_bits() -> None:
    """Nor takes a temperature for what has seven digits."""
    numbers = [
        variant
        for _, schema in _properties(described(WHOLE))
        for variant in schema.get("anyOf", [schema])
        if variant.get("type") in {"number", "integer"}
    ]
    assert len(numbers) > 40
    assert {(each["type"], each.get("format")) for each in numbers} == {("number", "double"), ("integer", "int64")}


@pytest.mark.parametrize("name", ROUTES)
def test_whatever_writes_may_refuse_a_page_of_another_site(serve: Serve, name: str) -> None:
    page = {"sec-fetch-site": "cross-site", "origin": "https://elsewhere.example"}
    client = serve(name, ADMIN_TOKENS=TOKEN)
    for (method, path), operation in operations(client.get("/openapi.json").json()).items():
        if method != "get":
            answer = client.request(method, path, headers={**page, "authorization": f"Bearer {TOKEN}"})
            assert (answer.status_code, "403" in operation["responses"]) == (403, True)


def test_the_version_is_that_of_the_paths_and_of_the_change_log() -> None:
    document = described(WHOLE)
    assert document["info"]["version"] == VERSION
    major = VERSION.partition(".")[0]
    assert all(path.split("/")[1] in {f"v{major}"} for path in document["paths"] if path.startswith("/v"))
    assert f"API {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_rules_of_a_reading_are_those_that_are_enforced(serve: Serve) -> None:
    reading = serve("ingest").get("/openapi.json").json()["components"]["schemas"]["Reading"]
    properties = reading["properties"]
    assert set(reading["required"]) == set(properties) == {"building_id", "room_id", "temperature", "timestamp"}
    assert (properties["room_id"]["minLength"], properties["room_id"]["maxLength"]) == (1, 255)
    assert (properties["temperature"]["minimum"], properties["temperature"]["maximum"]) == (-50, 50)
    assert properties["timestamp"]["format"] == "date-time"


def test_the_examples_of_ingest_are_accepted_by_every_path(serve: Serve) -> None:
    client = serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    posts = {
        path: each
        for (method, path), each in operations(client.get("/openapi.json").json()).items()
        if method == "post"
    }
    contents = {kind: each for post in posts.values() for kind, each in post["requestBody"]["content"].items()}
    assert len(contents) == 5
    with ThreadPoolExecutor(len(posts) * len(contents)) as pool:
        answers = [
            pool.submit(client.post, path, content=_text(content["example"]), headers={"content-type": media_type})
            for path in posts
            for media_type, content in contents.items()
        ]
    # They got as far as the database, of which there is none.
    assert {(answer.result().status_code, answer.result().json()["detail"]) for answer in answers} == {
        (503, "The database does not answer; send the readings again")
    }


def _text(example: Any) -> str:
    return example if isinstance(example, str) else json.dumps(example)


def _properties(value: Any) -> Iterator[tuple[str, Any]]:
    """The schemas of all properties and parameters, with their names."""
    if isinstance(value, list):
        for each in value:
            yield from _properties(each)
    elif isinstance(value, dict):
        if "in" in value and "schema" in value:
            yield value["name"], value["schema"]
        if isinstance(value.get("properties"), dict):
            yield from value["properties"].items()
        for key, each in value.items():
            if key != "example":
                yield from _properties(each)


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()
