"""What the query string of a request asks."""

import csv
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema, to_json
from starlette.datastructures import QueryParams

from average.intervals import DAY, HOUR, default_start
from average.queries import AlarmPlace, AlarmScope, Place, Scope
from average.readings import FORMS
from shared import negotiation
from shared.formulas import unguarded
from shared.problems import Fault, Problem
from shared.readings import IDENTIFIER, READING, TIMESTAMP, faults, rule

MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}
"""By the names that a link may have in its place, which sends no Accept."""
MOST_BUCKETS = 10_000
_WIDEST = timedelta(days=3650)
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": HOUR, "d": DAY}
_ROUND_WIDTHS = [
    *(timedelta(seconds=seconds) for seconds in (1, 5)),
    *(timedelta(minutes=minutes) for minutes in (1, 2, 5, 15, 30, 60, 180, 360, 720, 1440, 10_080)),
]
_GOOD_NUMBER = 500
"""Buckets that a chart has room for; chosen from when the request names no width."""

_WIDTH = rule(
    core_schema.str_schema(pattern=r"^[1-9][0-9]{0,6}[smhd]$"),
    "a number of seconds, minutes, hours or days, such as 15m",
    examples=["15m"],
)


def _fields(required: Mapping[str, CoreSchema], optional: Mapping[str, CoreSchema]) -> core_schema.TypedDictSchema:
    """The schema of a query string. Another name is refused: misspelt, it would change the answer unseen."""
    fields = {name: core_schema.typed_dict_field(schema) for name, schema in required.items()}
    fields |= {name: core_schema.typed_dict_field(schema, required=False) for name, schema in optional.items()}
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid")


_LINE = "the last whole line of the CSV or NDJSON before, or the value of `next` in the JSON before"
_TIMESTAMPS = dict.fromkeys(("start", "end", "query_datetime"), TIMESTAMP)
_INTERVAL = {"room_id": IDENTIFIER, **_TIMESTAMPS}
AVERAGE = _fields({"building_id": IDENTIFIER}, _INTERVAL)
SERIES = _fields({"building_id": IDENTIFIER}, {**_INTERVAL, "bucket": _WIDTH})
MOST_READINGS = 10_000
"""Readings in one answer, except where all are asked for as CSV or NDJSON."""
READINGS = _fields(
    {"building_id": IDENTIFIER},
    {
        **_INTERVAL,
        "format": rule(core_schema.literal_schema(["json", "csv", "ndjson"]), "json, csv or ndjson"),
        "limit": rule(core_schema.int_schema(ge=1, le=MOST_READINGS), f"a whole number from 1 to {MOST_READINGS}"),
        "after": rule(core_schema.str_schema(max_length=8192), _LINE),
    },
)
MOST_ROOMS = 10_000
"""Rooms in one answer."""
_CURSOR = rule(core_schema.str_schema(max_length=4096), "the value of `next` in the answer before")
ROOMS = _fields(
    {},
    {
        "building_id": IDENTIFIER,
        "limit": rule(core_schema.int_schema(ge=1, le=MOST_ROOMS), f"a whole number from 1 to {MOST_ROOMS}"),
        "after": _CURSOR,
    },
)
MOST_ALARMS = 10_000
"""Alarms in one answer."""
RECENT = timedelta(days=7)
"""Alarms that were cleared longer ago have to be asked for."""
ALARMS = _fields(
    {},
    {
        "building_id": IDENTIFIER,
        "room_id": IDENTIFIER,
        "kind": rule(core_schema.literal_schema(["high", "low", "silent"]), "high, low or silent"),
        "state": rule(core_schema.literal_schema(["open", "cleared"]), "open or cleared"),
        "start": TIMESTAMP,
        "end": TIMESTAMP,
        "limit": rule(core_schema.int_schema(ge=1, le=MOST_ALARMS), f"a whole number from 1 to {MOST_ALARMS}"),
        "after": _CURSOR,
    },
)

_average = SchemaValidator(AVERAGE)
_series = SchemaValidator(SERIES)
_readings = SchemaValidator(READINGS)
# Made when it is needed: a start would pay for it.
_reading = cache(lambda: SchemaValidator(READING))
_rooms = SchemaValidator(ROOMS)
_cursor = SchemaValidator(core_schema.tuple_schema([IDENTIFIER, IDENTIFIER]))
_alarms = SchemaValidator(ALARMS)
_alarm_cursor = SchemaValidator(
    core_schema.tuple_schema(
        [
            core_schema.bool_schema(strict=True),
            TIMESTAMP,
            IDENTIFIER,
            IDENTIFIER,
            core_schema.str_schema(strict=True, pattern="^[a-z]{1,10}$"),
            core_schema.uuid_schema(),
        ]
    )
)


def average(query: QueryParams, now: datetime, alignment: timedelta) -> Scope:
    """The readings to average. Raises Problem 422 with every fault."""
    return _scope(_validated(_average, query), now, alignment)


def series(query: QueryParams, now: datetime, alignment: timedelta) -> tuple[Scope, timedelta]:
    """The readings of a series and the width of its buckets. Raises Problem 422 with every fault."""
    found = _validated(_series, query)
    scope = _scope(found, now, alignment)
    length = scope.end - scope.start
    if "bucket" not in found:
        return scope, next((width for width in _ROUND_WIDTHS if length <= width * _GOOD_NUMBER), _ROUND_WIDTHS[-1])
    bucket = int(found["bucket"][:-1]) * _UNITS[found["bucket"][-1]]
    if bucket > _WIDEST:
        raise _refused([_fault("bucket", f"must be at most {_WIDEST.days}d")])
    if length / bucket > MOST_BUCKETS:
        raise _refused(
            [_fault("bucket", f"makes more than {MOST_BUCKETS} buckets of the interval; ask for wider ones")]
        )
    return scope, bucket


def readings(
    query: QueryParams, accept: str, now: datetime, alignment: timedelta
) -> tuple[Scope, Place | None, int | None, str]:
    """The readings that are asked for, the place after which they begin, how many at most, and the media type.

    Raises Problem 422 with every fault.
    """
    found = _validated(_readings, query)
    scope = _scope(found, now, alignment)
    media_type = MEDIA_TYPES[found["format"]] if "format" in found else negotiation.choice(accept, FORMS)
    after = None
    if "after" in found:
        if missing := [name for name in ("start", "end") if name not in found]:
            raise _refused([_fault(name, "must be that of the answer that `after` goes on with") for name in missing])
        after = _place(found["after"], scope)
    return scope, after, found.get("limit"), media_type


def _place(line: str, scope: Scope) -> Place:
    """That of a reading of the scope, which is written as JSON or CSV."""
    try:
        reading = _reading().validate_json(line)
    except ValidationError:
        try:
            [row] = csv.reader([line.removesuffix("\n").removesuffix("\r")], strict=True)
            building_id, room_id, timestamp, temperature = row
            reading = _reading().validate_python(
                {
                    "building_id": unguarded(building_id),
                    "room_id": unguarded(room_id),
                    "timestamp": timestamp,
                    "temperature": float(temperature),
                }
            )
        except (csv.Error, ValueError):
            raise _refused([_fault("after", f"must be {_LINE}")]) from None
    instant = reading["timestamp"].astimezone(UTC)
    if (
        reading["building_id"] != scope.building_id
        or scope.room_id not in {None, reading["room_id"]}
        or not scope.start <= instant < scope.end
    ):
        raise _refused([_fault("after", "must be a reading of the building, room and interval that are asked for")])
    return Place(reading["room_id"], instant, reading["temperature"])


def rooms(query: QueryParams) -> tuple[str | None, tuple[str, str], int]:
    """The building whose rooms are asked for, None for all; the room after which they begin; and how many at most.

    Raises Problem 422 with every fault.
    """
    found = _validated(_rooms, query)
    after = _decoded(_cursor, found["after"]) if "after" in found else ("", "")
    return found.get("building_id"), after, found.get("limit", MOST_ROOMS)


def cursor(*place: object) -> str:
    """What `after` must be for what comes after this place."""
    return urlsafe_b64encode(to_json(place)).decode()


def _decoded(validator: SchemaValidator, text: str) -> Any:
    try:
        return validator.validate_json(urlsafe_b64decode(text))
    except (ValueError, ValidationError):
        raise _refused([_fault("after", "must be the value of `next` in the answer before")]) from None


def alarms(query: QueryParams, now: datetime) -> AlarmScope:
    """The alarms that are asked for. Raises Problem 422 with every fault."""
    found = _validated(_alarms, query)
    end = found.get("end")
    try:
        start = found.get("start") or (end or now) - RECENT
    except OverflowError:
        start = datetime.min.replace(tzinfo=UTC)
    if end and start > end:
        raise _refused([_fault("start", "must not be after end")])
    return AlarmScope(
        building_id=found.get("building_id"),
        room_id=found.get("room_id"),
        kind=found.get("kind"),
        state=found.get("state"),
        start=start.astimezone(UTC),
        end=end and end.astimezone(UTC),
        after=AlarmPlace(*_decoded(_alarm_cursor, found["after"])) if "after" in found else None,
        limit=found.get("limit", MOST_ALARMS),
    )


_OFFSET = re.compile(r"(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (?=\d\d(?::?\d\d)?$)")


def _validated(validator: SchemaValidator, query: QueryParams) -> dict[str, Any]:
    names = [name for name, _ in query.multi_items()]
    if repeated := [name for name in query if names.count(name) > 1]:
        raise _refused([_fault(name, "must be given once") for name in repeated])
    # In an offset a plus sign that was not encoded arrives as a space.
    values = {name: _OFFSET.sub(r"\1+", value) if name in _TIMESTAMPS else value for name, value in query.items()}
    try:
        found: dict[str, Any] = validator.validate_python(values)
    except ValidationError as error:
        raise _refused(faults(error)) from None
    return found


def _scope(found: Mapping[str, Any], now: datetime, alignment: timedelta) -> Scope:
    if {"start", "query_datetime"} <= found.keys():
        raise _refused([_fault("query_datetime", "is another name of start; give one of them")])
    end = found.get("end", now).astimezone(UTC)
    start = found.get("start", found.get("query_datetime"))
    if start is None:
        try:
            start = default_start(end, alignment)
        except OverflowError:
            raise _refused([_fault("end", "leaves no room for an interval before it; give start")]) from None
    if start > end:
        raise _refused([_fault("start", "must not be after end, which is now unless it is given")])
    return Scope(found["building_id"], found.get("room_id"), start.astimezone(UTC), end)


def _fault(field: str, message: str) -> Fault:
    return {"index": 0, "field": field, "message": message}


def _refused(found: list[Fault]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The question cannot be answered as it stands", faults=found)
