"""The API description of `average`."""

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel

from average.questions import ALARMS, AVERAGE, ROOMS, SERIES
from shared.openapi import Content, Operation, schema_of
from shared.openapi import document as described


class Average(BaseModel):
    """The readings of a room, or of a building where `room_id` is null, in [start, end)."""

    average_temperature: float | None
    count: int
    min: float | None
    max: float | None
    building_id: str
    room_id: str | None
    start: str
    end: str
    message: str | None = None


class Point(BaseModel):
    """The readings of a bucket, which begins at `start`."""

    start: str
    average_temperature: float
    count: int
    min: float
    max: float


class Series(BaseModel):
    """The buckets of an interval that hold readings."""

    building_id: str
    room_id: str | None
    start: str
    end: str
    bucket_seconds: int
    series: list[Point]


class Latest(BaseModel):
    """The newest reading of a room."""

    temperature: float
    timestamp: str


class Room(BaseModel):
    """A room that has readings."""

    building_id: str
    room_id: str
    latest: Latest


class Rooms(BaseModel):
    """Rooms in the order of their identifiers; where there are more, `next` is the value of `after` to ask for them."""

    rooms: list[Room]
    next: str | None


class Alarm(BaseModel):
    """A room that is too warm or cold (`threshold` in degrees Celsius), or silent (in seconds), until `cleared`.

    `temperature` is that of the reading with which it began, or of the last one before the silence. It was `noticed`
    when the readings had arrived that tell of it.
    """

    id: str
    building_id: str
    room_id: str
    kind: Literal["high", "low", "silent"]
    severity: Literal["info", "warning", "critical"]
    threshold: float
    temperature: float
    raised: str
    cleared: str | None
    noticed: str


class Alarms(BaseModel):
    """Alarms: first those that are open, each the newest first.

    `open` says how many are open; where there are more alarms, `next` is the value of `after` to ask for them.
    """

    alarms: list[Alarm]
    open: int
    next: str | None


class Health(BaseModel):
    """The function is alive."""

    status: str
    message: str


class Settings(BaseModel):
    """The settings that are no secret; `alignment_interval` is in minutes."""

    app_name: str
    debug: bool
    alignment_interval: int


JSON = "application/json"
_ROOM = {"building_id": "B1", "room_id": "101"}
_INTERVAL = {"start": "2024-12-01T12:00:00Z", "end": "2024-12-01T13:00:00Z"}
_VALUES = {"average_temperature": 22.5, "count": 60, "min": 22.25, "max": 22.75}
_POINT = {"start": "2024-12-01T12:00:00Z", **_VALUES}


def _get(
    path: str, summary: str, answer: type, example: Any, csv: str = "", *, token: bool = True, **query: Any
) -> Operation:
    contents = [Content(JSON, schema_of(answer), example)]
    if csv:
        contents.append(Content("text/csv", schema_of(str), csv))
    refusals = [HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE] if query else []
    return Operation(
        method="get",
        path=path,
        summary=summary,
        answers={HTTPStatus.OK: contents},
        problems=[HTTPStatus.METHOD_NOT_ALLOWED, *refusals],
        token=token,
        **query,
    )


def document(*, token: bool = False) -> dict[str, Any]:
    """The OpenAPI document; `token` says whether the settings list some."""
    return described(
        "average",
        "Answers questions about temperature readings, each exact to the reading.",
        [
            _get(
                "/v1/temperature/average",
                "The average over an interval; by default from the aligned boundary before the last one until now",
                Average,
                {**_VALUES, **_ROOM, **_INTERVAL},
                query=AVERAGE,
                query_examples={**_ROOM, **_INTERVAL},
            ),
            _get(
                "/v1/temperature/series",
                "The averages of the buckets of an interval",
                Series,
                {**_ROOM, **_INTERVAL, "bucket_seconds": 3600, "series": [_POINT]},
                "start,average_temperature,count,min,max\n2024-12-01T12:00:00Z,22.5,60,22.25,22.75\n",
                query=SERIES,
                query_examples={**_ROOM, **_INTERVAL, "bucket": "1h"},
            ),
            _get(
                "/v1/temperature/rooms",
                "The rooms, each with its latest reading",
                Rooms,
                {
                    "rooms": [{**_ROOM, "latest": {"temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}}],
                    "next": None,
                },
                query=ROOMS,
            ),
            _get(
                "/v1/temperature/alarms",
                "The alarms that are open, and those that were in an interval, by default within the last 7 days",
                Alarms,
                {
                    "alarms": [
                        {
                            "id": "0196f5a2-6c1e-4b0f-9d5b-1f5a3c0e7d42",
                            **_ROOM,
                            "kind": "high",
                            "severity": "warning",
                            "threshold": 28.0,
                            "temperature": 28.5,
                            "raised": "2024-12-01T12:34:56Z",
                            "cleared": None,
                            "noticed": "2024-12-01T12:35:40Z",
                        }
                    ],
                    "open": 1,
                    "next": None,
                },
                query=ALARMS,
            ),
            _get(
                "/health",
                "Whether the function is alive",
                Health,
                {"status": "ok", "message": "Service is healthy"},
                token=False,
            ),
            _get(
                "/settings",
                "The settings that are no secret",
                Settings,
                {"app_name": "Temperature monitoring", "debug": False, "alignment_interval": 4},
            ),
        ],
        token=token,
    )
