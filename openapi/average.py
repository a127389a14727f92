"""The description of `average`."""

import json
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import CoreSchema

from average.questions import ALARMS, AVERAGE, FORGET, READINGS, REMOVALS, REMOVE, ROOMS, SERIES
from openapi.document import JSON, LEFT_OUT, Content, Operation, of_every_function, schema_of
from openapi.document import document as described


class Dated(BaseModel):
    """When a reading was, and its temperature."""

    temperature: float
    timestamp: datetime


class Beyond(BaseModel):
    """For how long a temperature was beyond a limit, and how far times how long.

    Both are null where nobody can know it any more, since readings were dropped.
    """

    seconds: float | None
    degree_hours: float | None


class Average(BaseModel):
    """The readings of a room, or of a building where `room_id` is null, in [start, end).

    `covered_seconds` is for how long a temperature is known, in all rooms together.
    """

    average_temperature: float | None
    count: int
    min: float | None
    max: float | None
    covered_seconds: float = LEFT_OUT
    above: Beyond = LEFT_OUT
    below: Beyond = LEFT_OUT
    stddev: float | None = LEFT_OUT
    first: Dated | None = LEFT_OUT
    last: Dated | None = LEFT_OUT
    weighting: Literal["time"] = LEFT_OUT
    building_id: str
    room_id: str | None
    start: datetime
    end: datetime
    tz: str = LEFT_OUT
    message: str = LEFT_OUT


class Point(BaseModel):
    """The readings of a bucket, which begins at `start`."""

    start: datetime
    average_temperature: float | None
    count: int
    min: float | None
    max: float | None
    covered_seconds: float = LEFT_OUT
    above: Beyond = LEFT_OUT
    below: Beyond = LEFT_OUT
    stddev: float | None = LEFT_OUT
    first: Dated | None = LEFT_OUT
    last: Dated | None = LEFT_OUT


class Series(BaseModel):
    """The buckets of an interval that hold readings. Those of a calendar have no `bucket_seconds`."""

    building_id: str
    room_id: str | None
    start: datetime
    end: datetime
    tz: str = LEFT_OUT
    weighting: Literal["time"] = LEFT_OUT
    bucket: str
    bucket_seconds: int | None
    series: list[Point]


class StoredReading(BaseModel):
    """A reading as it is stored."""

    building_id: str
    room_id: str
    timestamp: datetime
    temperature: float


class Readings(BaseModel):
    """Readings in the order of room, timestamp and temperature.

    Where there are more, `next` is the value of `after` to ask for them.
    """

    building_id: str
    room_id: str | None
    start: datetime
    end: datetime
    tz: str = LEFT_OUT
    next: str | None
    readings: list[StoredReading]


class Room(BaseModel):
    """A room that has readings."""

    building_id: str
    room_id: str
    latest: Dated


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
    raised: datetime
    cleared: datetime | None
    noticed: datetime


class Alarms(BaseModel):
    """Alarms: first those that are open, each the newest first.

    `open` says how many are open; where there are more alarms, `next` is the value of `after` to ask for them.
    """

    alarms: list[Alarm]
    open: int
    next: str | None


class Removal(BaseModel):
    """Readings that were removed: how many so far, and when that was `finished`, null if it goes on.

    Only those above or below a limit, if there is one. Without `start` and `end` everything was meant that was known.
    None of it is stored again until `kept_out_until`. `asked_by` is a digest of the token.
    """

    id: str
    building_id: str
    room_id: str | None
    start: datetime | None
    end: datetime | None
    above: float | None
    below: float | None
    reason: str | None
    asked: datetime
    asked_by: str
    kept_out_until: datetime
    removed: int
    finished: datetime | None
    message: str = LEFT_OUT


class Share(BaseModel):
    """What would be removed of a room."""

    room_id: str
    readings: int
    first: datetime
    last: datetime


class Preview(BaseModel):
    """What would be removed."""

    dry_run: Literal[True]
    building_id: str
    room_id: str | None
    start: datetime | None
    end: datetime | None
    above: float | None
    below: float | None
    readings: int
    rooms: list[Share]


class Removals(BaseModel):
    """Removals, the newest first; where there are more, `next` is the value of `after` to ask for them."""

    removals: list[Removal]
    next: str | None


class Settings(BaseModel):
    """The settings that are no secret; `alignment_interval` is in minutes."""

    app_name: str
    debug: bool
    alignment_interval: int


_DESCRIPTIONS = {
    "building_id": "The building",
    "room_id": "The room; without it, all rooms of the building",
    "start": "The beginning of the interval, which belongs to it; by default the last boundary of the alignment"
    " interval before the end, minus one alignment interval",
    "end": "The end of the interval, which does not belong to it; by default now",
    "query_datetime": "Another name of `start`",
    "tz": "The time zone of local dates and times in `start` and `end`, of the buckets, and of `start` and `end` in the"
    " answer; by default UTC",
    "bucket": "The width of a bucket: a number of seconds (s), minutes (m), hours (h), days (d), weeks (w), months (mo)"
    " or years (y); by default one that suits a chart",
    "weighting": "`reading`: each reading counts the same; `time`: as long as it holds, which is until the next one of"
    " its room, for `max_gap` at most, and not beyond now; by default `reading`",
    "max_gap": "For how long a reading holds at most, with weighting=time, `above` or `below`; by default 1d",
    "above": "Degrees Celsius: for how long it was warmer, and how far times how long",
    "below": "Degrees Celsius: for how long it was colder, and how far times how long",
    "statistics": "Of the readings: the standard deviation (that of a population), the first, or the last one",
    "kind": "Alarms of this kind only",
    "state": "Alarms that are open, or that are cleared, only",
    "limit": "How many one answer holds at most; by default as many as there may be",
    "after": "The value of `next` in the answer before, for those after that; by default the first ones",
    "format": "What the answer is written as, instead of the header `Accept`, which links have none of",
}
_ROOM = {"building_id": "B1", "room_id": "101"}
_INTERVAL = {"start": "2024-12-01T12:00:00Z", "end": "2024-12-01T13:00:00Z"}
_VALUES = {"average_temperature": 22.5, "count": 60, "min": 22.25, "max": 22.75}
_POINT = {"start": "2024-12-01T12:00:00Z", **_VALUES}
_ALARM = {
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


_STORED = {**_ROOM, "timestamp": "2024-12-01T12:34:56Z", "temperature": 22.5}
_LINE = json.dumps(_STORED, separators=(",", ":"))


def _get(
    name: str, path: str, answer: type, example: Any, csv: str = "", *others: Content, after: str = "", **more: Any
) -> Operation:
    contents = [Content(JSON, schema_of(answer), example)]
    if csv:
        contents.append(Content("text/csv", schema_of(str), csv))
    contents += others
    refusals = [HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE] if "query" in more else []
    return Operation(
        name=name,
        method="get",
        path=path,
        answers={HTTPStatus.OK: contents},
        problems=[HTTPStatus.METHOD_NOT_ALLOWED, *refusals],
        query_descriptions={**_DESCRIPTIONS, **({"after": after} if after else {})},
        **more,
    )


_REMOVAL = {
    "id": "0196f5a2-6c1e-4b0f-9d5b-1f5a3c0e7d43",
    **_ROOM,
    **_INTERVAL,
    "above": 40.0,
    "below": None,
    "reason": "The sensor was in the sun",
    "asked": "2024-12-02T08:00:00Z",
    "asked_by": "9f86d081884c",
    "kept_out_until": "2025-01-01T08:00:00Z",
    "removed": 12,
    "finished": "2024-12-02T08:00:00.012345Z",
}
_REMOVING = {
    **_DESCRIPTIONS,
    "start": "The beginning of the interval, which belongs to it",
    "end": "The end of the interval, which does not belong to it",
    "above": "Degrees Celsius: only readings that are warmer, or colder than `below`",
    "below": "Degrees Celsius: only readings that are colder, or warmer than `above`",
    "reason": "Why; it is kept with the removal",
    "keep_out": "For how long none of it is stored again; 0 for not at all; by default as long as the settings say",
    "dry_run": "Whether only to say what would be removed",
}


def _delete(name: str, path: str, query: CoreSchema, *problems: HTTPStatus, **more: Any) -> Operation:
    return Operation(
        name=name,
        method="delete",
        path=path,
        answers={
            HTTPStatus.OK: [Content(JSON, schema_of(Removal | Preview), _REMOVAL)],
            HTTPStatus.ACCEPTED: [
                Content(JSON, schema_of(Removal), {**_REMOVAL, "finished": None, "message": "It goes on"})
            ],
        },
        problems=[
            HTTPStatus.FORBIDDEN,
            HTTPStatus.METHOD_NOT_ALLOWED,
            *problems,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ],
        query=query,
        query_descriptions=_REMOVING,
        **more,
    )


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return described(
        "average",
        "Answers questions about temperature readings, each exact to the reading.",
        [
            _get(
                "getAverage",
                "/v1/temperature/average",
                Average,
                {**_VALUES, **_ROOM, **_INTERVAL},
                summary="The average over an interval",
                description="`/temperature/average` answers the same. Where there are no readings, the average is null"
                " and the count 0; with weighting=time one from before may hold.",
                query=AVERAGE,
                query_examples={**_ROOM, **_INTERVAL},
            ),
            _get(
                "getSeries",
                "/v1/temperature/series",
                Series,
                {**_ROOM, **_INTERVAL, "bucket": "1h", "bucket_seconds": 3600, "series": [_POINT]},
                "start,average_temperature,count,min,max\r\n2024-12-01T12:00:00Z,22.5,60,22.25,22.75\r\n",
                summary="The averages of the buckets of an interval",
                description="In the order of time, without buckets in which there are no readings and none holds; at"
                " most 10,000. With `tz` days, weeks, months and years are those of the zone, and widths that divide a"
                " day begin anew at each midnight. As CSV with `Accept: text/csv`.",
                query=SERIES,
                query_examples={**_ROOM, **_INTERVAL, "bucket": "1h"},
            ),
            _get(
                "listReadings",
                "/v1/temperature/readings",
                Readings,
                {**_ROOM, **_INTERVAL, "next": None, "readings": [_STORED]},
                "building_id,room_id,timestamp,temperature\r\nB1,101,2024-12-01T12:34:56Z,22.5\r\n",
                Content("application/x-ndjson", schema_of(str), f"{_LINE}\n"),
                after="Readings after this one: the value of `next` in the JSON before, or the last whole line of the"
                " CSV or NDJSON before, with the same `start` and `end`; by default the first ones",
                summary="The readings of an interval",
                description="In the order of room, timestamp and temperature. As JSON up to 10,000; as CSV and NDJSON"
                " all, or those up to `limit`. A download that broke off goes on with `after`, then without a header.",
                query=READINGS,
                query_examples={**_ROOM, **_INTERVAL},
            ),
            _delete(
                "removeReadings",
                "/v1/temperature/readings",
                REMOVE,
                HTTPStatus.CONFLICT,
                summary="Remove wrong readings of an interval",
                description="With what was made of them. It needs one of `ADMIN_TOKENS`. `202` says that it goes on.",
                query_examples={**_ROOM, **_INTERVAL, "above": 40, "dry_run": True},
            ),
            _get(
                "listRooms",
                "/v1/temperature/rooms",
                Rooms,
                {
                    "rooms": [{**_ROOM, "latest": {"temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}}],
                    "next": None,
                },
                summary="The rooms, each with its latest reading",
                description="All rooms, or those of a building.",
                query=ROOMS,
            ),
            _delete(
                "forgetRooms",
                "/v1/temperature/rooms",
                FORGET,
                summary="Forget a room or a building",
                description="Its readings, summaries and alarms. It needs one of `ADMIN_TOKENS`. `202` says that it"
                " goes on.",
                query_examples={**_ROOM, "dry_run": True},
            ),
            replace(
                _get(
                    "listRemovals",
                    "/v1/temperature/removals",
                    Removals,
                    {"removals": [_REMOVAL], "next": None},
                    summary="What was removed, by whom and why",
                    description="The newest first. It needs one of `ADMIN_TOKENS`.",
                    query=REMOVALS,
                ),
                problems=[
                    HTTPStatus.FORBIDDEN,
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    HTTPStatus.SERVICE_UNAVAILABLE,
                ],
            ),
            _get(
                "listAlarms",
                "/v1/temperature/alarms",
                Alarms,
                {"alarms": [_ALARM], "open": 1, "next": None},
                summary="The alarms that are open, and those that were in an interval, by default the last 7 days",
                description="Of all rooms, of a building, or of a room.",
                query=ALARMS,
            ),
            _get(
                "getSettings",
                "/settings",
                Settings,
                {"app_name": "Temperature monitoring", "debug": False, "alignment_interval": 4},
                summary="The settings that are no secret",
                description="Those of `average`.",
            ),
            *of_every_function(ready=True),
        ],
    )
