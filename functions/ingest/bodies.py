"""What a request body may hold: readings as JSON, NDJSON or CSV, or CloudEvents that carry readings."""

import asyncio
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from pydantic_core import SchemaValidator, ValidationError, core_schema, from_json, to_json

from ingest.refusals import MOST_READINGS, refused, too_many
from ingest.timestamps import TimestampLimits
from shared.problems import MOST_FAULTS_LISTED, Fault, Problem, fault
from shared.readings import READING, Reading
from shared.validation import details, faults, not_json, only_error, rule, why_not_json

DEFAULT_LIMITS = TimestampLimits()
MOST_COMMAS, MOST_CONTAINERS = 25 * MOST_READINGS, 10 * MOST_READINGS
"""Of a body. A parser makes all of them before the first is looked at, and an object of 7 bytes takes 750 in memory."""
LEAST_COUNTED_BYTES = 2 * MOST_CONTAINERS
"""Of a body. A shorter one cannot hold many values."""
SLICE_READINGS = 100
"""Readings that are looked through at a time if there may be many faults. Other requests are served in between."""
NDJSON_TYPES = {
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
}
CSV_TYPE = "text/csv"
EVENTS_TYPE, EVENT_TYPE = "application/cloudevents-batch+json", "application/cloudevents+json"

_TEXT = core_schema.str_schema(strict=True, min_length=1)
_ATTRIBUTES = {
    "specversion": core_schema.typed_dict_field(core_schema.literal_schema(["1.0"])),
    "id": core_schema.typed_dict_field(_TEXT),
    "source": core_schema.typed_dict_field(_TEXT),
    "type": core_schema.typed_dict_field(_TEXT),
}
"""The attributes that every CloudEvent must have (CloudEvents 1.0.2, Required Attributes)."""


_DATA_CONTENT_TYPE = rule(
    core_schema.str_schema(strict=True, pattern=r"^[^/;]+/([^/;]+\+)?[Jj][Ss][Oo][Nn][ \t]*(;.*)?$"),
    "a JSON media type, such as application/json",
    examples=["application/json"],
)
_ONE_KIND_OF_DATA = {
    "oneOf": [
        {"required": ["data"], "properties": {"data": {"type": "object"}}},
        {"required": ["data_base64"], "properties": {"data_base64": {"type": "string"}}},
    ]
}


class _Allowance:
    """How many values a body may still hold, in it and in what is encoded in it."""

    def __init__(self) -> None:
        self._containers, self._commas = MOST_CONTAINERS, MOST_COMMAS

    def take(self, text: bytes) -> None:
        """Count what is about to be parsed. Raises Problem 413 if it is more than readings can have.

        Signs in strings count too: to tell them apart would cost as much as parsing.
        """
        self._containers -= text.count(b"{") + text.count(b"[")
        self._commas -= text.count(b",")
        if self._containers < 0 or self._commas < 0:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A request holds at most {MOST_READINGS} readings, {MOST_CONTAINERS} objects and arrays and "
                f"{MOST_COMMAS} commas; send them in parts",
            )


def _allowed(encoded: bytes, info: core_schema.ValidationInfo) -> bytes:
    allowance: _Allowance = info.context  # type: ignore[assignment]
    allowance.take(encoded)
    return encoded


def _event(reading: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """The schema of a CloudEvent that carries a reading. It is validated in the context of an _Allowance."""
    encoded = core_schema.chain_schema(
        [
            core_schema.bytes_schema(),
            core_schema.with_info_plain_validator_function(_allowed),
            core_schema.json_schema(reading),
        ],
        metadata={"pydantic_js_updates": {"format": "byte", "contentMediaType": "application/json"}},
    )
    # As every member of the JSON format, null where it is not set.
    optional = {
        name: core_schema.typed_dict_field(core_schema.nullable_schema(schema), required=False)
        for name, schema in {"datacontenttype": _DATA_CONTENT_TYPE, "data": reading, "data_base64": encoded}.items()
    }
    return core_schema.typed_dict_schema(
        {**_ATTRIBUTES, **optional},
        cls_name="Event",
        ref="Event",
        config={"val_json_bytes": "base64"},
        metadata={"pydantic_js_updates": _ONE_KIND_OF_DATA},
    )


def _array_of(items: core_schema.CoreSchema) -> core_schema.ListSchema:
    return core_schema.list_schema(items, max_length=MOST_READINGS)


EVENT = _event(READING)
READINGS = _array_of(READING)
EVENTS = _array_of(EVENT)


class _ArrayValidators:
    """Validators of an array: up to its first item that breaks a rule, and with every fault of all, explained."""

    def __init__(self, unexplained: core_schema.CoreSchema, explained: core_schema.CoreSchema) -> None:
        self.first = SchemaValidator({**_array_of(unexplained), "fail_fast": True})
        # Made when it is needed: a start would pay for it.
        self.every = cache(lambda: SchemaValidator(_array_of(explained)))


class _Validators:
    """The validators of all bodies that are sent now; each is made when it is needed."""

    def __init__(self, limits: TimestampLimits, now: datetime) -> None:
        self._schema, self._unexplained = limits.reading(now), limits.reading_unexplained(now)

    @cached_property
    def reading(self) -> SchemaValidator:
        return SchemaValidator(self._schema)

    @cached_property
    def readings(self) -> _ArrayValidators:
        return _ArrayValidators(self._unexplained, self._schema)

    @cached_property
    def event(self) -> SchemaValidator:
        return SchemaValidator(_event(self._schema))

    @cached_property
    def events(self) -> _ArrayValidators:
        return _ArrayValidators(_event(self._unexplained), _event(self._schema))

    @cached_property
    def table(self) -> SchemaValidator:
        from ingest import tables

        return SchemaValidator(tables.schema(self._schema))


@lru_cache(1)
def _validators_of_minute(limits: TimestampLimits, minute: int) -> _Validators:
    """Those of a minute, since 1970: what is too far ahead moves on, and to make them anew takes next to no time."""
    return _Validators(limits, datetime.fromtimestamp(60 * (minute + 1), UTC))


_EVENT_HEADERS = {f"ce-{name}": field for name, field in _ATTRIBUTES.items()}
_event_headers = SchemaValidator(core_schema.typed_dict_schema(_EVENT_HEADERS))
# A quotation that does not end goes to the end of the header: looking for its end once for each quote takes long.
_QUOTED, _ESCAPED = re.compile(r'"((?:[^"\\]|\\.)*)"?'), re.compile(r"\\(.)")


async def parse(headers: Mapping[str, str], body: bytes, limits: TimestampLimits = DEFAULT_LIMITS) -> Sequence[Reading]:
    """The readings in a body, told by its headers (lower case) what it is.

    Raises Problem: 400 for what is not JSON or not a CloudEvent, 413 for too many readings or values, 415 for another
    media type, 422 for readings that break a rule, with every fault.
    """
    # RFC 8259 lets a reader pass over the byte order mark that some writers put in front.
    body = body.removeprefix(b"\xef\xbb\xbf")
    allowance = _Allowance()
    if len(body) > LEAST_COUNTED_BYTES:
        allowance.take(body)
    validators = _validators_of_minute(limits, int(time.time()) // 60)
    media_type = _media_type(headers.get("content-type", ""))
    if media_type == EVENTS_TYPE:
        return _data(await _array(validators.events, body, allowance))
    if media_type == EVENT_TYPE:
        return _data([_validated(validators.event, body, allowance)])
    if event := not _EVENT_HEADERS.keys().isdisjoint(headers):
        _check_attributes(headers)
    elif media_type in NDJSON_TYPES:
        return await _lines(validators.reading, body)
    elif media_type == CSV_TYPE:
        from ingest import tables

        return await tables.parse(validators.table, headers["content-type"], body)
    if not _is_json(media_type):
        raise _unsupported_data() if event else _unsupported(media_type)
    if body.lstrip(b" \t\r\n").startswith(b"[") and not event:
        return await _array(validators.readings, body)
    return [_validated(validators.reading, body)]


def _check_attributes(headers: Mapping[str, str]) -> None:
    """Raise Problem 400 unless the headers are those of a CloudEvent in binary mode."""
    attributes: dict[str, str] = {}
    found: list[Fault] = []
    for name, value in headers.items():
        if name.startswith("ce-"):
            try:
                attributes[name] = _decoded(value) if "%" in value or '"' in value else value
            except UnicodeDecodeError:
                found.append(fault(name, "must be UTF-8 where it is percent-encoded"))
    if found:
        raise _not_an_event(found)
    try:
        _event_headers.validate_python(attributes)
    except ValidationError as error:
        raise _not_an_event(faults(error)) from None


def _decoded(value: str) -> str:
    """The value of an attribute as a header holds it (HTTP Protocol Binding for CloudEvents 1.0.2, 3.1.3.2).

    Raises UnicodeDecodeError.
    """
    return unquote(_QUOTED.sub(lambda quoted: _ESCAPED.sub(r"\1", quoted[1]), value), errors="strict")


def _validated(validator: SchemaValidator, body: bytes, allowance: _Allowance | None = None) -> Any:
    try:
        return validator.validate_json(body, context=allowance)
    except ValidationError as error:
        raise _refusal(error, body) from None


async def _array(validators: _ArrayValidators, body: bytes, allowance: _Allowance | None = None) -> list[Any]:
    """The valid items of a body that is an array. Raises Problem."""
    try:
        valid: list[Any] = validators.first.validate_json(body, context=allowance)
        return valid
    except ValidationError as error:
        # It holds a body as Python's objects, which may take fifty times its memory: not while others are served.
        title, refusal, why = error.title, _refusal(error, body), why_not_json(error)
        place = details(error)[0]["loc"]
    if place:
        raise _broken(await _faults(validators.every(), body, place[0]), title, body)
    if why and (index := await _index(why, body)) is not None:
        refusal.faults = [fault("", f"is not JSON: {why}", index)]
    raise refusal


_faults_are_listed = False


async def _faults(validator: SchemaValidator, body: bytes, first: int | str) -> Sequence[Fault]:
    """The faults of the items of an array from the first on, more than are listed in an answer if there are more.

    One body at a time, since its items take many times its memory.
    """
    global _faults_are_listed
    # A lock belongs to one event loop.
    while _faults_are_listed:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    _faults_are_listed = True
    try:
        await asyncio.sleep(0)
        items = from_json(body)
        found: list[Fault] = []
        allowance = _Allowance()
        for begin in range(int(first), len(items), SLICE_READINGS):
            await asyncio.sleep(0)
            try:
                some = to_json(items[begin : begin + SLICE_READINGS], inf_nan_mode="constants")
                validator.validate_json(some, context=allowance)
            except ValidationError as error:
                found += [{**each, "index": each["index"] + begin} for each in faults(error)]
            if len(found) > MOST_FAULTS_LISTED:
                break
        return found
    finally:
        _faults_are_listed = False


async def _index(message: str, body: bytes) -> int | None:
    """The index of the item that is not JSON, by the message of the parser; None if to find it takes too long."""
    place = re.search(r"at line (\d+) column (\d+)$", message)
    if not place or int(place[1]) > MOST_CONTAINERS:
        return None
    begin = 0
    for _ in range(int(place[1]) - 1):
        begin = body.find(b"\n", begin) + 1
    before = body[: begin + int(place[2]) - 1].rstrip(_WORD_BYTES)
    await asyncio.sleep(0)
    try:
        items = from_json(before, allow_partial=True)
    except ValueError:
        return None
    if not isinstance(items, list):
        return None
    await asyncio.sleep(0)
    try:
        from_json(before + b"{}]")
    except ValueError:
        return max(0, len(items) - 1)
    # Where another item could begin.
    return len(items)


_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-."


def _refusal(error: ValidationError, body: bytes) -> Problem:
    """The Problem of a body that did not validate, or of a line of it."""
    if problem := not_json(error):
        if "trailing characters" in problem.detail:
            problem.detail += "; a reading on each line is application/x-ndjson"
        return problem
    if (only := only_error(error)) and only["type"] == "too_long":
        return too_many()
    return _broken(faults(error), error.title, body)


def _broken(found: Sequence[Fault], title: str, body: bytes) -> Problem:
    """The Problem of faults that validation of a schema with this title found."""
    fields = {each["field"] for each in found}
    if "datacontenttype" in fields:
        return _unsupported_data(found)
    if fields & _ATTRIBUTES.keys() or (title in {"Event", "list[Event]"} and "" in fields):
        return _not_an_event(found)
    refusal = refused(found)
    if title in {"Reading", "list[Reading]"} and b'"specversion"' in body:
        refusal.detail += f"; a CloudEvent is {EVENT_TYPE}, an array of them {EVENTS_TYPE}"
    return refusal


def _not_an_event(found: Sequence[Fault]) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "This is not a CloudEvent of version 1.0", faults=found)


def _unsupported_data(found: Sequence[Fault] = ()) -> Problem:
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The data of a CloudEvent must be JSON, such as application/json",
        faults=found,
    )


def _unsupported(media_type: str) -> Problem:
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"{media_type} cannot be read; send application/json, application/x-ndjson, text/csv,"
        " application/cloudevents+json, application/cloudevents-batch+json, or a CloudEvent in binary mode"
        " whose data is JSON",
    )


# Possessive: what was passed over is not looked at again from every place in it.
_LINE = re.compile(rb"\s*+([^\n]++)")


async def _lines(validator: SchemaValidator, body: bytes) -> Sequence[Reading]:
    """The readings of NDJSON, one a line; empty lines are passed over."""
    readings: list[Reading] = []
    found: list[Fault] = []
    position = 0
    for index in itertools.count():  # pragma: no branch - it ends with the lines
        if not (line := _LINE.match(body, position)) or len(found) > MOST_FAULTS_LISTED:
            break
        if index == MOST_READINGS:
            raise too_many()
        if index % SLICE_READINGS == SLICE_READINGS - 1:
            await asyncio.sleep(0)
        position = line.end()
        try:
            readings.append(validator.validate_json(line[1]))
        except ValidationError as error:
            if why := why_not_json(error):
                raise _no_line(why, index, number=body.count(b"\n", 0, line.start(1)) + 1) from None
            found += [{**each, "index": index} for each in faults(error)]
    if found:
        refusal = _broken(found, "Reading", body)
        if (found[0]["index"], found[0]["field"]) == (0, ""):
            refusal.detail += _NO_LINES
        raise refusal
    return readings


_NO_LINES = "; JSON that is not a reading on each line is application/json"


def _no_line(why: str, index: int, *, number: int) -> Problem:
    """The Problem of a line that is not JSON, by its number, counted from 1."""
    what = f"is not JSON: {why}"
    detail = f"Line {number} {what}{'' if index else _NO_LINES}"
    return Problem(HTTPStatus.BAD_REQUEST, detail, faults=[fault("", what, index)])


def _data(events: Sequence[Mapping[str, Any]]) -> Sequence[Reading]:
    """The readings that events carry. Raises Problem 400 with every event that carries two, 422 for those with none."""
    readings: list[Any] = []
    both: list[Fault] = []
    missing: list[Fault] = []
    for index, event in enumerate(events):
        # As every member of the JSON format, null where it is not set.
        data, encoded = event.get("data"), event.get("data_base64")
        if data is None and encoded is None:
            missing.append(fault("data", "Field required", index))
        elif data is not None and encoded is not None:
            both.append(fault("data_base64", "must not be there beside data", index))
        readings.append(encoded if data is None else data)
    if both:
        raise _not_an_event(both)
    if missing:
        raise refused(missing)
    return readings


def _media_type(content_type: str) -> str:
    """The media type of a Content-Type, which may have been sent twice."""
    media_type = content_type.partition(";")[0].strip().lower()
    if "," in media_type and len(each := {part.strip() for part in media_type.split(",")}) == 1:
        (media_type,) = each
    return media_type


def _is_json(media_type: str) -> bool:
    """Whether data of the media type is JSON; without a media type it is taken for JSON."""
    return media_type in {"", "application/json"} or (
        # Of CloudEvents those that can be read are known by name.
        media_type.endswith(("/json", "+json")) and not media_type.startswith("application/cloudevents")
    )
