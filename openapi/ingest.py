"""The description of `ingest`."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic_core import core_schema

from ingest.bodies import EVENT, EVENTS, READINGS
from openapi.document import JSON, Content, Operation, of_every_function, schema_of
from openapi.document import document as described
from shared.readings import READING


class Stored(BaseModel):
    """The readings are committed; `duplicates` of them had been before."""

    message: str
    accepted: int
    duplicates: int


EXAMPLE = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56.000Z"}
CSV_EXAMPLE = "building_id,room_id,timestamp,temperature\r\nB1,101,2024-12-01T12:34:56.000Z,22.5\r\n"
EVENT_EXAMPLE = {
    "specversion": "1.0",
    "id": "1",
    "source": "/buildings/B1/rooms/101",
    "type": "dev.temperature.reading.v1",
    "data": EXAMPLE,
}
_STORED = Content(JSON, schema_of(Stored), {"message": "Temperature data added", "accepted": 1, "duplicates": 0})


def document() -> dict[str, Any]:
    """The OpenAPI document.

    Each path takes every body. They are divided between the paths because openapi-python-client tells bodies of one
    operation apart by their class, and arrays have none.
    """
    return _apart(
        described(
            "ingest",
            "Takes readings and stores them, once. Each path takes the bodies of the others too.",
            [
                _post(
                    "storeReadings",
                    "/v1/temperature",
                    "Store up to 10,000 readings",
                    "All or nothing, each once however often sent. Of `application/x-ndjson` each line is a reading, of"
                    " `text/csv` each line after the header, which names the columns in any order.",
                    Content(JSON, core_schema.union_schema([READING, READINGS]), EXAMPLE),
                    Content("application/x-ndjson", READING, EXAMPLE),
                    Content("text/csv", schema_of(str), CSV_EXAMPLE),
                ),
                _post(
                    "storeEvent",
                    "/",
                    "Store the reading of a CloudEvent",
                    "In structured mode as here; in binary mode the body is a reading as JSON, with the headers"
                    " `ce-specversion`, `ce-id`, `ce-source` and `ce-type`.",
                    Content("application/cloudevents+json", EVENT, EVENT_EXAMPLE),
                ),
                _post(
                    "storeEvents",
                    "/temperature",
                    "Store the readings of up to 10,000 CloudEvents",
                    "All or nothing.",
                    Content("application/cloudevents-batch+json", EVENTS, [EVENT_EXAMPLE]),
                ),
                *of_every_function(ready=True),
            ],
        )
    )


def _post(name: str, path: str, summary: str, description: str, *body: Content) -> Operation:
    return Operation(
        name=name,
        method="post",
        path=path,
        summary=summary,
        description=description,
        body=body,
        answers={HTTPStatus.CREATED: [_STORED]},
        problems=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.LENGTH_REQUIRED,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ],
    )


def _apart(whole: dict[str, Any]) -> dict[str, Any]:
    """The document with an event that holds its data as one schema, and one that holds it encoded as another.

    A generator of clients makes a class of properties. It has none for "this property or that one".
    """
    schemas = whole["components"]["schemas"]
    event = schemas.pop("Event")
    for name, data, other in (("Event", "data", "data_base64"), ("EncodedEvent", "data_base64", "data")):
        # One of the two may be null, but not the one that holds the reading.
        event["properties"][data] = event["properties"][data]["anyOf"][0]
        schemas[name] = {
            "type": "object",
            "description": f"A CloudEvent, whose reading is in `{data}`.",
            "properties": {key: value for key, value in event["properties"].items() if key != other},
            "required": [*event["required"], data],
        }
    either = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Event", "EncodedEvent")]}
    whole["paths"]["/"]["post"]["requestBody"]["content"]["application/cloudevents+json"]["schema"] = either
    batch = whole["paths"]["/temperature"]["post"]["requestBody"]["content"]["application/cloudevents-batch+json"]
    batch["schema"]["items"] = either
    return whole
