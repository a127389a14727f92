"""The description of `watch`."""

from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel

from openapi.document import JSON, Content, Operation, of_every_function, schema_of
from openapi.document import document as described


class Checked(BaseModel):
    """So many alarms were raised and cleared; the sink took `sent` events, and `unsent` are left for later checks."""

    raised: int
    cleared: int
    sent: int
    unsent: int


class AlarmData(BaseModel):
    """The data of an event: what a sink is told of an alarm, as it was then.

    `threshold` is in degrees Celsius, or in seconds of silence; `temperature` that of the reading with which it began,
    or of the last one before the silence. It was `raised` and `cleared` when the readings say so, and `noticed` when
    they had arrived.
    """

    building_id: str
    room_id: str
    kind: Literal["high", "low", "silent"]
    state: Literal["raised", "cleared"]
    severity: Literal["info", "warning", "critical"]
    threshold: float
    temperature: float
    raised: datetime
    cleared: datetime | None
    noticed: datetime


def event_schema() -> dict[str, Any]:
    """The JSON Schema of the data of an event, which its `dataschema` names."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **AlarmData.model_json_schema()}


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    post = Operation(
        name="checkAlarms",
        method="post",
        path="/watch",
        summary="Raise and clear alarms",
        description="What came since the last check is compared with the rules, and the sink is told. `/` takes the"
        " same.",
        answers={
            HTTPStatus.OK: [Content(JSON, schema_of(Checked), {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0})]
        },
        problems=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.BAD_GATEWAY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ],
    )
    return described("watch", "Raises and clears alarms of rooms.", [post, *of_every_function(ready=True)])
