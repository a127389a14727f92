"""What a reading is: the rules of the contract, once, for validation and for the API description."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TypedDict

from pydantic_core import core_schema

from shared.validation import rule


class Reading(TypedDict):
    """One temperature, in degrees Celsius, of one room at one instant."""

    building_id: str
    room_id: str
    temperature: float
    timestamp: datetime


IDENTIFIER = rule(
    # PostgreSQL's text holds every character but NUL.
    core_schema.str_schema(strict=True, min_length=1, max_length=255, pattern=r"^[^\x00]*$"),
    "a string of 1 to 255 characters, none of them NUL",
)
_TIMESTAMP_PATTERN = (
    r"^[0-9]{4}(-[0-9]{2}){2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"
)
"""RFC 3339, and what ISO 8601 has beside it that names an instant: Java leaves out seconds that are zero, strftime's %z
the colon of the offset, PostgreSQL its minutes."""
_TIMESTAMP_RULE = "an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z"


# In UTC the year must be one that every client can hold, whatever the offset.
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def timestamp_schema(earliest: datetime = _EARLIEST, latest: datetime = _LATEST) -> core_schema.ChainSchema:
    """The schema of a timestamp from one instant to another."""
    instant = core_schema.datetime_schema(tz_constraint="aware", ge=earliest, le=latest)
    # PostgreSQL leaves out the minutes of an offset.
    completed = core_schema.no_info_before_validator_function("{}:00".format, instant)
    text = core_schema.str_schema(pattern=_TIMESTAMP_PATTERN)
    return core_schema.chain_schema(
        [
            # pydantic alone takes numbers too, and guesses whether they are seconds or milliseconds.
            rule(core_schema.str_schema(strict=True), f"{_TIMESTAMP_RULE}, and no number"),
            rule(
                core_schema.chain_schema([text, core_schema.union_schema([instant, completed], mode="left_to_right")]),
                _TIMESTAMP_RULE,
            ),
        ],
        metadata={
            "pydantic_js_updates": {
                "format": "date-time",
                "pattern": _TIMESTAMP_PATTERN,
                "examples": ["2024-12-01T12:34:56.000Z"],
            }
        },
    )


TIMESTAMP = timestamp_schema()
TEMPERATURE_RULE = "a number from -50 to 50 (degrees Celsius)"
"""What a temperature must be."""


def temperature_schema(*, strict: bool) -> core_schema.CoreSchema:
    """The schema of a temperature: a number only, or text that holds one too."""
    return core_schema.float_schema(strict=strict, ge=-50, le=50)


TEMPERATURE = rule(temperature_schema(strict=True), TEMPERATURE_RULE)
READING = core_schema.typed_dict_schema(
    {
        "building_id": core_schema.typed_dict_field(IDENTIFIER),
        "room_id": core_schema.typed_dict_field(IDENTIFIER),
        "temperature": core_schema.typed_dict_field(TEMPERATURE),
        "timestamp": core_schema.typed_dict_field(TIMESTAMP),
    },
    cls=Reading,
    ref="Reading",
)


def written(instant: datetime, zone: tzinfo | None = None) -> str:
    """The instant in UTC as RFC 3339 writes it, or with the offset that a zone has then."""
    if zone is None:
        return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
    local = instant.astimezone(zone)
    # Offsets of the time before there were zones have seconds, which RFC 3339 does not know.
    offset = timedelta(minutes=(local.utcoffset() or timedelta()) // timedelta(minutes=1))
    return instant.astimezone(timezone(offset)).isoformat()
