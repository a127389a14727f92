"""What a request body may hold: readings as JSON or NDJSON, or CloudEvents that carry readings."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared.problems import Fault, Problem
from shared.readings import READING, Reading, faults, not_json, only_error, rule

MOST_READINGS = 10_000

_TEXT = core_schema.str_schema(strict=True, min_length=1)
_ATTRIBUTES = {
    "specversion": core_schema.typed_dict_field(core_schema.literal_schema(["1.0"])),
    "id": core_schema.typed_dict_field(_TEXT),
    "source": core_schema.typed_dict_field(_TEXT),
    "type": core_schema.typed_dict_field(_TEXT),
}
"""The attributes that every CloudEvent must have (CloudEvents 1.0.2, Required Attributes)."""

EVENT = core_schema.typed_dict_schema(
    {
        **_ATTRIBUTES,
        "datacontenttype": core_schema.typed_dict_field(
            # As every attribute of the JSON format, null where it is not set.
            core_schema.nullable_schema(
                rule(
                    core_schema.str_schema(strict=True, pattern=r"^[^/;]+/([^/;]+\+)?[Jj][Ss][Oo][Nn][ \t]*(;.*)?$"),
                    "a JSON media type, such as application/json",
                    examples=["application/json"],
                )
            ),
            required=False,
        ),
        "data": core_schema.typed_dict_field(READING, required=False),
        "data_base64": core_schema.typed_dict_field(
            core_schema.chain_schema(
                [core_schema.bytes_schema(), core_schema.json_schema(READING)],
                metadata={"pydantic_js_updates": {"format": "byte", "contentMediaType": "application/json"}},
            ),
            required=False,
        ),
    },
    cls_name="Event",
    ref="Event",
    config={"val_json_bytes": "base64"},
    metadata={"pydantic_js_updates": {"oneOf": [{"required": ["data"]}, {"required": ["data_base64"]}]}},
)
READINGS = core_schema.list_schema(READING, max_length=MOST_READINGS)
EVENTS = core_schema.list_schema(EVENT, max_length=MOST_READINGS)

_reading = SchemaValidator(READING)
_readings = SchemaValidator(READINGS)
_event = SchemaValidator(EVENT)
_events = SchemaValidator(EVENTS)
_HEADERS = {f"ce-{name}": field for name, field in _ATTRIBUTES.items()}
_headers = SchemaValidator(core_schema.typed_dict_schema(_HEADERS))
# A quotation that does not end goes to the end of the header: looking for its end once for each quote takes long.
_QUOTED, _ESCAPED = re.compile(r'"((?:[^"\\]|\\.)*)"?'), re.compile(r"\\(.)")


def parse(headers: Mapping[str, str], body: bytes) -> Sequence[Reading]:
    """The readings in a body, told by its headers (lower case) what it is.

    Raises Problem: 400 for what is not JSON or not a CloudEvent, 413 for too many readings, 415 for another media type,
    422 for readings that break a rule, with every fault.
    """
    media_type = _media_type(headers.get("content-type", ""))
    if media_type == "application/cloudevents-batch+json":
        return _data(_validated(_events, body))
    if media_type == "application/cloudevents+json":
        return _data([_validated(_event, body)])
    if event := not _HEADERS.keys().isdisjoint(headers):
        _check_attributes(headers)
    elif media_type == "application/x-ndjson":
        return _lines(body)
    if not _is_json(media_type):
        raise _unsupported(media_type)
    if body.lstrip(b" \t\r\n").startswith(b"[") and not event:
        readings: list[Reading] = _validated(_readings, body)
        return readings
    return [_validated(_reading, body)]


def _check_attributes(headers: Mapping[str, str]) -> None:
    """Raise Problem 400 unless the headers are those of a CloudEvent in binary mode."""
    attributes: dict[str, str] = {}
    found: list[Fault] = []
    for name, value in headers.items():
        if name.startswith("ce-"):
            try:
                attributes[name] = _decoded(value) if "%" in value or '"' in value else value
            except UnicodeDecodeError:
                found.append({"index": 0, "field": name, "message": "must be UTF-8 where it is percent-encoded"})
    if found:
        raise _not_an_event(found)
    try:
        _headers.validate_python(attributes)
    except ValidationError as error:
        raise _not_an_event(faults(error)) from None


def _decoded(value: str) -> str:
    """The value of an attribute as a header holds it (HTTP Protocol Binding for CloudEvents 1.0.2, 3.1.3.2).

    Raises UnicodeDecodeError.
    """
    return unquote(_QUOTED.sub(lambda quoted: _ESCAPED.sub(r"\1", quoted[1]), value), errors="strict")


def _validated(validator: SchemaValidator, body: bytes) -> Any:
    try:
        return validator.validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError, line: int | None = None) -> Problem:
    """The Problem of a body that did not validate; `line` is the number of its line in NDJSON."""
    if problem := not_json(error, "The body" if line is None else f"Line {line}"):
        return problem
    if (only := only_error(error)) and only["type"] == "too_long":
        return _too_many()
    found = faults(error)
    fields = {fault["field"] for fault in found}
    if "datacontenttype" in fields:
        return _unsupported("The data of an event", found)
    if fields & _ATTRIBUTES.keys() or (error.title in {"Event", "list[Event]"} and "" in fields):
        return _not_an_event(found)
    return _refused(found)


def _refused(found: Sequence[Fault]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was stored: some readings break a rule", faults=found)


def _not_an_event(found: Sequence[Fault]) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "This is not a CloudEvent of version 1.0", faults=found)


def _too_many() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request holds at most {MOST_READINGS} readings; send them in parts"
    )


def _unsupported(what: str, found: Sequence[Fault] = ()) -> Problem:
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"{what} cannot be read; send application/json, application/x-ndjson, application/cloudevents+json, "
        "application/cloudevents-batch+json, or a CloudEvent in binary mode whose data is JSON",
        faults=found,
    )


def _lines(body: bytes) -> Sequence[Reading]:
    """The readings of NDJSON, one a line; empty lines are passed over."""
    readings: list[Reading] = []
    found: list[Fault] = []
    index = 0
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        if index == MOST_READINGS:
            raise _too_many()
        try:
            readings.append(_reading.validate_json(line))
        except ValidationError as error:
            refusal = _refusal(error, number)
            if not refusal.faults:
                raise refusal from None
            found += [{**fault, "index": index} for fault in refusal.faults]
        index += 1
    if found:
        raise _refused(found)
    return readings


def _data(events: Sequence[Mapping[str, Any]]) -> Sequence[Reading]:
    """The readings that events carry. Raises Problem 400 with every event that carries two, 422 for those with none."""
    if both := [index for index, event in enumerate(events) if "data" in event and "data_base64" in event]:
        raise _not_an_event(
            [{"index": index, "field": "data_base64", "message": "must not be there beside data"} for index in both]
        )
    readings = [event.get("data", event.get("data_base64")) for event in events]
    missing: list[Fault] = [
        {"index": index, "field": "data", "message": "Field required"}
        for index, reading in enumerate(readings)
        if reading is None
    ]
    if missing:
        raise _refused(missing)
    return readings


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    """Whether data of the media type is JSON; without a media type it is taken for JSON."""
    return media_type in {"", "application/json"} or (
        # Of CloudEvents those that can be read are known by name.
        media_type.endswith(("/json", "+json")) and not media_type.startswith("application/cloudevents")
    )
