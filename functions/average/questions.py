"""Questions: what a query string asks for."""

import csv
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema, to_json
from starlette.datastructures import QueryParams

from average.courses import CourseOptions
from average.intervals import DAY, WIDTH_OF_UNIT, Bucket, Buckets, default_start, first_instant, has_local_time
from average.queries import AlarmPlace, AlarmScope, Place, Scope
from average.readings import FORMS
from shared import negotiation, zones
from shared.alarms import KINDS, STATES
from shared.formulas import unguarded
from shared.periods import period
from shared.problems import Fault, Problem, fault
from shared.readings import IDENTIFIER, READING, TEMPERATURE_RULE, TIMESTAMP, temperature_schema
from shared.validation import faults, of_text, rule

MEDIA_TYPE_OF_FORMAT = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}
"""By the names that a link may have in its place, which sends no Accept."""
MOST_BUCKETS = 10_000
_WIDEST_DAYS = 3650
_MOST_OF_UNIT = {"d": _WIDEST_DAYS, "w": 520, "mo": 120, "y": 10}
_ROUND_WIDTHS = [
    *(Bucket(count, "s") for count in (1, 5)),
    *(Bucket(count, "m") for count in (1, 2, 5, 15, 30)),
    *(Bucket(count, "h") for count in (1, 3, 6, 12)),
    Bucket(1, "d"),
]
_WEEK, _DECADE = Bucket(7, "d"), Bucket(_WIDEST_DAYS, "d")
_WEEK_OF_ZONE, _MONTH_OF_ZONE, _YEAR_OF_ZONE = (Bucket(1, unit) for unit in ("w", "mo", "y"))
_CHART_BUCKETS = 500
"""Buckets that a chart has room for; chosen from when the request names no width."""

_WIDTH = rule(
    core_schema.str_schema(pattern=r"^[1-9][0-9]{0,8}(s|m|h|d|w|mo|y)$"),
    "a number of seconds, minutes, hours, days, weeks, months or years, such as 15m, 1d or 3mo",
    examples=["15m"],
)
_ZONE = rule(
    core_schema.no_info_after_validator_function(zones.load, core_schema.str_schema(max_length=255)),
    "the name of an IANA time zone, such as Europe/Zurich",
    examples=["Europe/Zurich"],
)
_LOCAL_PATTERN = r"^[0-9]{4}(-[0-9]{2}){2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?$"
_LOCAL = core_schema.chain_schema(
    [
        core_schema.str_schema(pattern=_LOCAL_PATTERN),
        core_schema.union_schema(
            [core_schema.date_schema(strict=False), core_schema.datetime_schema(tz_constraint="naive")],
            mode="left_to_right",
        ),
    ],
    metadata={"pydantic_js_updates": {"pattern": _LOCAL_PATTERN, "examples": ["2024-12-01"]}},
)
_INSTANT = rule(
    core_schema.union_schema([TIMESTAMP, _LOCAL], mode="left_to_right"),
    "an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z, or with tz a local one, such as"
    " 2024-12-01T12:34 or 2024-12-01",
)


def _fields(required: Mapping[str, CoreSchema], optional: Mapping[str, CoreSchema]) -> core_schema.TypedDictSchema:
    """The schema of a query string. Another name is refused: misspelt, it would change the answer unseen."""
    fields = {name: core_schema.typed_dict_field(schema) for name, schema in required.items()}
    fields |= {name: core_schema.typed_dict_field(schema, required=False) for name, schema in optional.items()}
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid")


def _most(number: int) -> core_schema.CoreSchema:
    """The schema of how many are asked for at most."""
    return rule(of_text(core_schema.int_schema(ge=1, le=number)), f"a whole number from 1 to {number}")


_AFTER_RULE = "the last whole line of the CSV or NDJSON before, or the value of `next` in the JSON before"
_TIMESTAMPS = ("start", "end", "query_datetime")
_INTERVAL = {"room_id": IDENTIFIER, **dict.fromkeys(_TIMESTAMPS, _INSTANT), "tz": _ZONE}
STATISTICS = ("stddev", "first", "last")
LONGEST_HOLD_DAYS = 31
_LIMIT = rule(of_text(temperature_schema(strict=False)), TEMPERATURE_RULE, examples=[26])
_COURSE = {
    "weighting": rule(core_schema.literal_schema(["reading", "time"]), "reading or time"),
    "max_gap": period(longest_days=LONGEST_HOLD_DAYS, examples=["1h"]),
    "above": _LIMIT,
    "below": _LIMIT,
    "statistics": rule(
        core_schema.str_schema(pattern="^(stddev|first|last)(,(stddev|first|last))*$"),
        "stddev, first or last, or some of them with commas between",
        examples=["stddev,last"],
    ),
}
AVERAGE = _fields({"building_id": IDENTIFIER}, {**_INTERVAL, **_COURSE})
SERIES = _fields({"building_id": IDENTIFIER}, {**_INTERVAL, **_COURSE, "bucket": _WIDTH})
MOST_READINGS = 10_000
"""Readings in one answer, except where all are asked for as CSV or NDJSON."""
READINGS = _fields(
    {"building_id": IDENTIFIER},
    {
        **_INTERVAL,
        "format": rule(core_schema.literal_schema(["json", "csv", "ndjson"]), "json, csv or ndjson"),
        "limit": _most(MOST_READINGS),
        "after": rule(core_schema.str_schema(max_length=8192), _AFTER_RULE),
    },
)
MOST_ROOMS = 10_000
"""Rooms in one answer."""
# The place of an alarm has 4,192 characters at most: two names of 255 characters that JSON writes as six each.
_CURSOR = rule(core_schema.str_schema(max_length=8192), "the value of `next` in the answer before")
ROOMS = _fields(
    {},
    {
        "building_id": IDENTIFIER,
        "limit": _most(MOST_ROOMS),
        "after": _CURSOR,
    },
)
MOST_ALARMS = 10_000
"""Alarms in one answer."""
RECENTLY_CLEARED = timedelta(days=7)
"""Alarms that were cleared longer ago have to be asked for."""
ALARMS = _fields(
    {},
    {
        "building_id": IDENTIFIER,
        "room_id": IDENTIFIER,
        "kind": rule(core_schema.literal_schema([*KINDS]), "high, low or silent"),
        "state": rule(core_schema.literal_schema([*STATES]), "open or cleared"),
        "start": TIMESTAMP,
        "end": TIMESTAMP,
        "limit": _most(MOST_ALARMS),
        "after": _CURSOR,
    },
)

LONGEST_KEPT_OUT_DAYS = 9_999
MOST_REASON_CHARACTERS = 1_000
"""Characters of the reason for a removal."""
_REMOVAL = {
    "reason": rule(
        core_schema.str_schema(max_length=MOST_REASON_CHARACTERS, pattern=r"^[^\x00]*$"),
        f"a string of at most {MOST_REASON_CHARACTERS} characters, none of them NUL",
    ),
    "keep_out": period(longest_days=LONGEST_KEPT_OUT_DAYS, or_zero=True, examples=["30d"]),
    "dry_run": rule(core_schema.bool_schema(), "true or false"),
}
REMOVE = _fields(
    {"building_id": IDENTIFIER, "start": TIMESTAMP, "end": TIMESTAMP},
    {"room_id": IDENTIFIER, "above": _LIMIT, "below": _LIMIT, **_REMOVAL},
)
FORGET = _fields({"building_id": IDENTIFIER}, {"room_id": IDENTIFIER, **_REMOVAL})
MOST_REMOVALS = 1_000
"""Removals in one answer."""
REMOVALS = _fields(
    {},
    {
        "building_id": IDENTIFIER,
        "limit": _most(MOST_REMOVALS),
        "after": _CURSOR,
    },
)

_average = SchemaValidator(AVERAGE)
_series = SchemaValidator(SERIES)
_readings = SchemaValidator(READINGS)
# Made when they are needed: a start would pay for them.
_reading = cache(lambda: SchemaValidator(READING))
_temperature = cache(lambda: SchemaValidator(_LIMIT))
_remove = cache(lambda: SchemaValidator(REMOVE))
_forget = cache(lambda: SchemaValidator(FORGET))
_removals = cache(lambda: SchemaValidator(REMOVALS))
_removal_cursor = cache(lambda: SchemaValidator(core_schema.tuple_schema([TIMESTAMP, core_schema.uuid_schema()])))
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
            core_schema.literal_schema([*KINDS]),
            core_schema.uuid_schema(),
        ]
    )
)


def average(query: QueryParams, now: datetime, alignment: timedelta) -> tuple[Scope, CourseOptions]:
    """The readings to average, and what is asked for beside that. Raises Problem 422 with every fault."""
    found = _validated(_average, query)
    return _scope(found, now, alignment), _course_options(found)


def series(query: QueryParams, now: datetime, alignment: timedelta) -> tuple[Scope, Buckets, CourseOptions]:
    """The readings of a series, its buckets, and what is asked for beside averages.

    Raises Problem 422 with every fault.
    """
    found = _validated(_series, query)
    scope = _scope(found, now, alignment)
    bucket = _bucket(found["bucket"]) if "bucket" in found else _bucket_for_a_chart(scope)
    buckets = Buckets(bucket, scope.zone, scope.start, scope.end)
    # Those of a calendar are counted only where they can be few enough: their width is one on average.
    if (scope.end - scope.start) / bucket.width > MOST_BUCKETS + 2 or buckets.count > MOST_BUCKETS:
        raise _refused([fault("bucket", f"makes more than {MOST_BUCKETS} buckets of the interval; ask for wider ones")])
    return scope, buckets, _course_options(found)


def _course_options(found: Mapping[str, Any]) -> CourseOptions:
    options = CourseOptions(
        by_time=found.get("weighting") == "time",
        longest_hold=timedelta(seconds=found.get("max_gap", DAY.total_seconds())),
        above=found.get("above"),
        below=found.get("below"),
        statistics=[name for name in STATISTICS if name in found.get("statistics", "").split(",")],
    )
    if "max_gap" in found and not options.holds:
        raise _refused([fault("max_gap", "is for weighting=time, above or below; give one of them")])
    return options


def _bucket(text: str) -> Bucket:
    bucket = Bucket.parse(text)
    unit = bucket.unit if bucket.unit in _MOST_OF_UNIT else "d"
    if bucket.number > _MOST_OF_UNIT[unit] * (WIDTH_OF_UNIT[unit] // WIDTH_OF_UNIT[bucket.unit]):
        raise _refused([fault("bucket", f"must be at most {_MOST_OF_UNIT[unit]}{unit}")])
    return bucket


def _bucket_for_a_chart(scope: Scope) -> Bucket:
    """The narrowest width that does not make too many buckets for a chart."""
    length = scope.end - scope.start
    others = [_WEEK_OF_ZONE, _MONTH_OF_ZONE] if scope.zone else [_WEEK]
    widest = _YEAR_OF_ZONE if scope.zone else _WEEK if length <= _WEEK.width * MOST_BUCKETS else _DECADE
    return next((each for each in (*_ROUND_WIDTHS, *others) if length <= each.width * _CHART_BUCKETS), widest)


class ReadingsQuestion(NamedTuple):
    """Which readings are asked for, and how they are to be written."""

    scope: Scope
    after: Place | None
    """The place after which they begin."""
    limit: int | None
    media_type: str


def readings(query: QueryParams, accept: str, now: datetime, alignment: timedelta) -> ReadingsQuestion:
    """The readings that are asked for.

    Raises Problem 422 with every fault.
    """
    found = _validated(_readings, query)
    scope = _scope(found, now, alignment)
    media_type = MEDIA_TYPE_OF_FORMAT[found["format"]] if "format" in found else negotiation.choice(accept, FORMS)
    after = None
    if "after" in found:
        if missing := [name for name in ("start", "end") if name not in found]:
            raise _refused([fault(name, "must be that of the answer that `after` goes on with") for name in missing])
        after = _place(found["after"], scope)
    return ReadingsQuestion(scope, after, found.get("limit"), media_type)


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
                    "temperature": _temperature().validate_python(temperature),
                }
            )
        except (csv.Error, ValueError):
            raise _refused([fault("after", f"must be {_AFTER_RULE}")]) from None
    instant = reading["timestamp"].astimezone(UTC)
    if (
        reading["building_id"] != scope.building_id
        or scope.room_id not in {None, reading["room_id"]}
        or not scope.start <= instant < scope.end
    ):
        raise _refused([fault("after", "must be a reading of the building, room and interval that are asked for")])
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
        raise _refused([fault("after", "must be the value of `next` in the answer before")]) from None


def alarms(query: QueryParams, now: datetime) -> AlarmScope:
    """The alarms that are asked for. Raises Problem 422 with every fault."""
    found = _validated(_alarms, query)
    end = found.get("end")
    try:
        start = found.get("start") or (end or now) - RECENTLY_CLEARED
    except OverflowError:
        start = datetime.min.replace(tzinfo=UTC)
    if end and start > end:
        raise _refused([fault("start", "must not be after end")])
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


def removal(query: QueryParams, kept_out_days: int) -> dict[str, Any]:
    """Which readings are to be removed, as the statements take it. Raises Problem 422 with every fault."""
    found = _validated(_remove(), query)
    if found["start"] >= found["end"]:
        raise _refused([fault("start", "must be before end")])
    if found.get("above", 50.0) < found.get("below", -50.0):
        raise _refused([fault("above", "must not be less than below: every reading would be beyond one of them")])
    return _removal(found, kept_out_days)


def forgetting(query: QueryParams, kept_out_days: int) -> dict[str, Any]:
    """Which room or building is to be forgotten, as the statements take it. Raises Problem 422 with every fault."""
    return _removal(_validated(_forget(), query), kept_out_days)


def _removal(found: Mapping[str, Any], kept_out_days: int) -> dict[str, Any]:
    given = ("building_id", "room_id", "above", "below", "reason")
    return {
        **{name: found.get(name) for name in given},
        **{name: found[name].astimezone(UTC) if name in found else None for name in ("start", "end")},
        "keep_out": timedelta(seconds=found.get("keep_out", DAY.total_seconds() * kept_out_days)),
        "dry_run": found.get("dry_run", False),
    }


def removals(query: QueryParams) -> tuple[str | None, tuple[datetime, UUID] | None, int]:
    """Of which building removals are asked for, None for all; after which one; and how many at most.

    Raises Problem 422 with every fault.
    """
    found = _validated(_removals(), query)
    after = _decoded(_removal_cursor(), found["after"]) if "after" in found else None
    return found.get("building_id"), after, found.get("limit", MOST_REMOVALS)


_WITH_PLUS = {"tz", "above", "below", "limit"}
_OFFSET = re.compile(r"(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (?=\d\d(?::?\d\d)?$)")


def _validated(validator: SchemaValidator, query: QueryParams) -> dict[str, Any]:
    names = [name for name, _ in query.multi_items()]
    if repeated := [name for name in query if names.count(name) > 1]:
        raise _refused([fault(name, "must be given once") for name in repeated])
    # In an offset, in Etc/GMT+5 and before a number, a plus sign that was not encoded arrives as a space.
    values = {name: _OFFSET.sub(r"\1+", value) if name in _TIMESTAMPS else value for name, value in query.items()}
    values |= {name: values[name].replace(" ", "+") for name in _WITH_PLUS & values.keys()}
    try:
        found: dict[str, Any] = validator.validate_python(values)
    except ValidationError as error:
        raise _refused(faults(error)) from None
    return found


_NO_ROOM = "leaves no room for an interval before it; give start"
_NO_OFFSET = "has no offset; add one, such as Z, or a time zone, such as tz=Europe/Zurich"


def _scope(found: Mapping[str, Any], now: datetime, alignment: timedelta) -> Scope:
    if {"start", "query_datetime"} <= found.keys():
        raise _refused([fault("query_datetime", "is another name of start; give one of them")])
    zone, given = found.get("tz"), {name: found[name] for name in _TIMESTAMPS if name in found}
    if zone is None and (local := [name for name in given if not _aware(given[name])]):
        raise _refused([fault(name, _NO_OFFSET) for name in local])
    given = {name: _instant(value, name, zone) for name, value in given.items()}
    end = given.get("end", now.astimezone(UTC))
    start = given.get("start", given.get("query_datetime"))
    if start is None:
        try:
            start = default_start(end, alignment)
        except OverflowError:
            raise _refused([fault("end", _NO_ROOM)]) from None
        if zone and not has_local_time(start):
            raise _refused([fault("end", _NO_ROOM)])
    if start > end:
        raise _refused([fault("start", "must not be after end, which is now unless it is given")])
    return Scope(found["building_id"], found.get("room_id"), start, end, zone)


def _aware(given: datetime | date) -> bool:
    return isinstance(given, datetime) and given.tzinfo is not None


def _instant(given: datetime | date, field: str, zone: tzinfo | None) -> datetime:
    """The instant in UTC: of an instant, of a local time in the zone, or the first one of a local day."""
    try:
        if isinstance(given, datetime):
            instant = (given if given.tzinfo else given.replace(tzinfo=zone)).astimezone(UTC)
        else:
            instant = first_instant(given, zone or UTC)
    except OverflowError:
        instant = datetime.min.replace(tzinfo=UTC)
    if zone and not has_local_time(instant):
        raise _refused([fault(field, "must be from 0001-01-03 to 9999-12-29 where there is a time zone")])
    return instant


def _refused(found: list[Fault]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The question cannot be answered as it stands", faults=found)
