"""Which timestamps are believed: those that a clock which is right can have made."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared import settings
from shared.readings import READING, TIMESTAMP, timestamp_schema, written
from shared.validation import rule

MOST_HOURS_SETTABLE = 100_000_000
"""Beyond the year 9999, whenever it is."""


@dataclass(frozen=True, slots=True)
class TimestampLimits:
    """Between which a timestamp must be; beyond them, the clock of the device is wrong."""

    earliest: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    """A timestamp before this is of a clock that was never set: EARLIEST_TIMESTAMP."""
    most_ahead_hours: int = 24
    """How far ahead of now a timestamp may be: MOST_AHEAD_HOURS."""

    def reading(self, now: datetime) -> core_schema.TypedDictSchema:
        """The schema of a reading that is sent now."""
        return _with_timestamp(
            core_schema.chain_schema(
                [
                    TIMESTAMP,
                    rule(
                        core_schema.datetime_schema(ge=self.earliest),
                        f"{written(self.earliest)} or later: the clock of the device may never have been set",
                    ),
                    rule(
                        core_schema.datetime_schema(le=self._latest(now)),
                        f"at most {self.most_ahead_hours} hours ahead of now: the clock of the device may be wrong",
                    ),
                ]
            )
        )

    def reading_unexplained(self, now: datetime) -> core_schema.TypedDictSchema:
        """The same, which does not say why a timestamp is refused, and takes two thirds of the time."""
        return _with_timestamp(timestamp_schema(self.earliest, self._latest(now)))

    def _latest(self, now: datetime) -> datetime:
        try:
            return now + timedelta(hours=self.most_ahead_hours)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)


def _with_timestamp(schema: core_schema.CoreSchema) -> core_schema.TypedDictSchema:
    return {**READING, "fields": {**READING["fields"], "timestamp": core_schema.typed_dict_field(schema)}}


def load() -> TimestampLimits:
    """The settings from the environment. Raises SettingError for some that make no sense."""
    value = settings.text("EARLIEST_TIMESTAMP", written(TimestampLimits().earliest))
    try:
        earliest: datetime = SchemaValidator(TIMESTAMP).validate_python(value)
    except ValidationError:
        raise settings.SettingError(
            f"EARLIEST_TIMESTAMP must be an RFC 3339 timestamp such as 2000-01-01T00:00:00Z, not {value!r}"
        ) from None
    hours = settings.number("MOST_AHEAD_HOURS", TimestampLimits().most_ahead_hours, least=0, most=MOST_HOURS_SETTABLE)
    return TimestampLimits(earliest, hours)
