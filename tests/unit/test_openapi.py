"""The API description says what the functions do."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support import NOWHERE

Serve = Callable[..., TestClient]
ROUTES = {
    "ingest": {("post", "/v1/temperature")},
    "average": {
        ("get", "/v1/temperature/average"),
        ("get", "/v1/temperature/series"),
        ("get", "/v1/temperature/rooms"),
        ("get", "/v1/temperature/alarms"),
        ("get", "/health"),
        ("get", "/settings"),
    },
    "simulate": {("post", "/simulate")},
    "watch": {("post", "/watch")},
}


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_is_described_with_its_answers_and_problems(serve: Serve, name: str) -> None:
    document = serve(name).get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    operations = {
        (method, path): operation for path, item in document["paths"].items() for method, operation in item.items()
    }
    assert operations.keys() == ROUTES[name]
    for operation in operations.values():
        assert operation["summary"]
        assert {status for status in operation["responses"] if status < "300"}
        for status, response in operation["responses"].items():
            assert ("application/problem+json" in response["content"]) == (status >= "400")
    assert _references(document) <= {f"#/components/schemas/{schema}" for schema in document["components"]["schemas"]}


def test_the_rules_of_a_reading_are_those_that_are_enforced(serve: Serve) -> None:
    reading = serve("ingest").get("/openapi.json").json()["components"]["schemas"]["Reading"]
    properties = reading["properties"]
    assert set(reading["required"]) == set(properties) == {"building_id", "room_id", "temperature", "timestamp"}
    assert (properties["room_id"]["minLength"], properties["room_id"]["maxLength"]) == (1, 255)
    assert (properties["temperature"]["minimum"], properties["temperature"]["maximum"]) == (-50, 50)
    assert properties["timestamp"]["format"] == "date-time"


def test_the_examples_of_ingest_are_accepted(serve: Serve) -> None:
    client = serve("ingest", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    content = client.get("/openapi.json").json()["paths"]["/v1/temperature"]["post"]["requestBody"]["content"]
    assert len(content) == 4
    for media_type, described in content.items():
        example = described["example"]
        text = example if isinstance(example, str) else json.dumps(example)
        response = client.post("/v1/temperature", content=text, headers={"content-type": media_type})
        # It got as far as the database, of which there is none.
        assert response.status_code == 503


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()
