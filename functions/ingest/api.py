"""The API description of `ingest`."""

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic_core import core_schema

from ingest.bodies import EVENT, EVENTS, READINGS
from shared.openapi import Content, Operation, schema_of
from shared.openapi import document as described
from shared.readings import READING


class Stored(BaseModel):
    """The readings are committed; `duplicates` of them had been before."""

    message: str
    accepted: int
    duplicates: int


EXAMPLE = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56.000Z"}
EVENT_EXAMPLE = {
    "specversion": "1.0",
    "id": "1",
    "source": "/buildings/B1/rooms/101",
    "type": "dev.temperature.reading.v1",
    "data": EXAMPLE,
}
JSON = "application/json"


def document(*, token: bool = False) -> dict[str, Any]:
    """The OpenAPI document; `token` says whether the settings list some."""
    body = [
        Content(JSON, core_schema.union_schema([READING, READINGS]), EXAMPLE),
        Content("application/x-ndjson", READING, f"{json.dumps(EXAMPLE)}\n"),
        Content("application/cloudevents+json", EVENT, EVENT_EXAMPLE),
        Content("application/cloudevents-batch+json", EVENTS, [EVENT_EXAMPLE]),
    ]
    post = Operation(
        method="post",
        path="/v1/temperature",
        summary="Store up to 10,000 readings, all or nothing, each once however often sent. A CloudEvent in binary"
        " mode is a reading as JSON with the headers ce-specversion, ce-id, ce-source and ce-type",
        body=body,
        answers={
            HTTPStatus.CREATED: [
                Content(JSON, schema_of(Stored), {"message": "Temperature data added", "accepted": 1, "duplicates": 0})
            ]
        },
        problems=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.LENGTH_REQUIRED,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ],
    )
    return described("ingest", "Takes readings and stores them, once.", [post], token=token)
