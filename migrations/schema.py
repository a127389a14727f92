"""The tables as SQLAlchemy knows them, for `alembic check` and new revisions."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    Interval,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

BUCKET_AVERAGES = "avg_temperature_time_interval"
"""The averages that people read by SQL: a continuous aggregate or a view, which is no table of these."""

metadata = MetaData()

temperatures = Table(
    "temperatures",
    metadata,
    # Identifiers are compared byte by byte: quicker, and an index that no change of the system's locale can break.
    Column("building_id", Text(collation="C"), nullable=False),
    Column("room_id", Text(collation="C"), nullable=False),
    Column("timestamp", TIMESTAMP(timezone=True), nullable=False),
    Column("temperature", Double(), nullable=False),
    # A reading is its own identity: delivered twice, it is stored once.
    PrimaryKeyConstraint("building_id", "room_id", "timestamp", "temperature", name="temperatures_pkey"),
    CheckConstraint("temperature BETWEEN -50 AND 50", name="temperature_plausible"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Uuid(), server_default=text("gen_random_uuid()"), nullable=False),
    Column("building_id", Text(collation="C"), nullable=False),
    Column("room_id", Text(collation="C"), nullable=False),
    Column("kind", Text(), nullable=False),
    # Degrees Celsius, or seconds of silence.
    Column("threshold", Double(), nullable=False),
    # The reading that raised it, or the last one before the silence.
    Column("temperature", Double(), nullable=False),
    Column("raised", TIMESTAMP(timezone=True), nullable=False),
    Column("cleared", TIMESTAMP(timezone=True)),
    # When `watch` found it: later than `raised` where its reading came late.
    Column("noticed", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    Column("severity", Text(), server_default=text("'warning'"), nullable=False),
    # The sink that is told of it, see alarm_events.
    Column("sink", Text()),
    # When its readings were removed. It is there until the sink has been told that it is over, and nobody sees it.
    Column("removed", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("id", name="alarms_pkey"),
    CheckConstraint("kind IN ('high', 'low', 'silent')", name="alarm_known"),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="alarm_severe"),
    CheckConstraint("raised <= cleared", name="alarm_in_order"),
    Index("alarms_open", "building_id", "room_id", "kind", unique=True, postgresql_where=text("cleared IS NULL")),
    Index("alarms_cleared", "cleared"),
    Index("alarms_raised", "raised", "id"),
    Index("alarms_removed", "id", postgresql_where=text("removed IS NOT NULL")),
    Index("alarms_of_room", "building_id", "room_id", "raised"),
)
alarm_events = Table(
    "alarm_events",
    metadata,
    # What a sink is still to be told, and what it was not told in the end. It is gone once the sink has taken it.
    Column("alarm", Uuid(), nullable=False),
    Column("state", Text(), nullable=False),
    # A digest of its URL; empty for whichever sink there was before there were digests.
    Column("sink", Text(), nullable=False),
    # As they were when the event was made: a reading that comes late may be found to have begun the alarm.
    Column("raised", TIMESTAMP(timezone=True), nullable=False),
    Column("cleared", TIMESTAMP(timezone=True)),
    # Events of the version before have none: that of the alarm counts.
    Column("temperature", Double()),
    Column("dataschema", Text()),
    # That of the request which raised or cleared the alarm.
    Column("traceparent", Text()),
    Column("made", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    Column("attempts", Integer(), server_default=text("0"), nullable=False),
    Column("next_attempt", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    # When it was decided that the sink is not told any more, and why.
    Column("given_up", TIMESTAMP(timezone=True)),
    Column("reason", Text()),
    PrimaryKeyConstraint("alarm", "state", name="alarm_events_pkey"),
    ForeignKeyConstraint(["alarm"], ["alarms.id"], name="alarm_events_alarm", ondelete="CASCADE"),
    CheckConstraint("state IN ('raised', 'cleared')", name="alarm_event_known"),
    Index("alarm_events_due", "sink", "attempts", "next_attempt", postgresql_where=text("given_up IS NULL")),
    postgresql_with={"fillfactor": 80},
)
watching = Table(
    "watching",
    metadata,
    # There is one row.
    Column("single", Boolean(), server_default=text("true"), nullable=False),
    # When alarms were looked for last, and since when readings have been able to arrive without a long pause.
    Column("checked", TIMESTAMP(timezone=True)),
    Column("listening_since", TIMESTAMP(timezone=True), server_default=text("'-infinity'"), nullable=False),
    # Whether the last look came after a long pause too: then looks are rare, and a pause is none.
    Column("rarely", Boolean(), server_default=text("false"), nullable=False),
    PrimaryKeyConstraint("single", name="watching_pkey"),
    CheckConstraint("single", name="watching_once"),
)

rooms = Table(
    "rooms",
    metadata,
    Column("building_id", Text(collation="C"), nullable=False),
    Column("room_id", Text(collation="C"), nullable=False),
    # The reading with the latest instant.
    Column("timestamp", TIMESTAMP(timezone=True), nullable=False),
    Column("temperature", Double(), nullable=False),
    # The readings before this instant are summed up,
    Column("summed_until", TIMESTAMP(timezone=True), nullable=False),
    # without those of this span, to which readings came since.
    Column("late_from", TIMESTAMP(timezone=True)),
    Column("late_to", TIMESTAMP(timezone=True)),
    # The readings up to this instant were compared with the rules,
    Column("watched_until", TIMESTAMP(timezone=True), server_default=text("'-infinity'"), nullable=False),
    # without some of this span, which came since,
    Column("came_from", TIMESTAMP(timezone=True)),
    Column("came_to", TIMESTAMP(timezone=True)),
    # and all that came since is from `low` to `high` degrees Celsius.
    Column("low", Double()),
    Column("high", Double()),
    # Hours before this instant were summed up by an older version, and lack their course or their quarters.
    Column("courses_missing_before", TIMESTAMP(timezone=True)),
    # The weeks before this instant are put together; '-infinity' is for days that were there before there were weeks.
    Column("weeks_until", TIMESTAMP(timezone=True), server_default=text("'-infinity'"), nullable=False),
    PrimaryKeyConstraint("building_id", "room_id", name="rooms_pkey"),
    CheckConstraint("late_from < late_to AND late_to <= summed_until", name="room_late_before_summed"),
    CheckConstraint("isfinite(timestamp) AND isfinite(summed_until)", name="room_within_time"),
    postgresql_with={"fillfactor": 50},
)


def _summaries(name: str, *key: Column[Any], course: tuple[Column[Any], ...] = ()) -> Table:
    return Table(
        name,
        metadata,
        Column("building_id", Text(collation="C"), nullable=False),
        *key,
        Column("count", BigInteger(), nullable=False),
        # Without any rounding.
        Column("sum", Numeric(), nullable=False),
        Column("min", Double(), nullable=False),
        Column("max", Double(), nullable=False),
        *course,
        PrimaryKeyConstraint(
            "building_id",
            *(column.name for column in key),
            name=f"{name}_pkey",
            postgresql_include=["count", "sum", "min", "max"],
        ),
    )


def _room_id() -> Column[Any]:
    return Column("room_id", Text(collation="C"), nullable=False)


def _start(name: str) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True), nullable=False)


def _course() -> tuple[Column[Any], ...]:
    """The course of the temperature from the first reading to the last; NULL where it is not known."""
    return (
        Column("sum_of_squares", Numeric()),
        Column("first_at", TIMESTAMP(timezone=True)),
        Column("first_temperature", Double()),
        Column("last_at", TIMESTAMP(timezone=True)),
        Column("last_temperature", Double()),
        # Between two readings that follow each other.
        Column("longest_gap", Interval()),
        # The sum of each temperature, in degrees Celsius, times the microseconds until the next reading.
        Column("degree_microseconds", Numeric()),
    )


def _quarters() -> tuple[Column[Any], ...]:
    """The counts, sums, lowest and highest readings of the quarters of an hour; NULL where they are not known."""
    return (
        Column("counts", ARRAY(Integer())),
        Column("sums", ARRAY(Numeric())),
        Column("mins", ARRAY(Double())),
        Column("maxs", ARRAY(Double())),
    )


room_hours = _summaries("room_hours", _room_id(), _start("hour"), course=(*_course(), *_quarters()))
room_days = _summaries("room_days", _room_id(), _start("day"), course=_course())
room_weeks = _summaries("room_weeks", _room_id(), _start("week"), course=_course())
building_hours = _summaries("building_hours", _start("hour"))
building_days = _summaries("building_days", _start("day"))
upkeep = Table(
    "upkeep",
    metadata,
    # There is one row.
    Column("single", Boolean(), server_default=text("true"), nullable=False),
    # The age from which readings are dropped; and the instant before which they were, so that only their summaries are
    # left. What is there of before came late, and is in no summary yet.
    Column("retention", Interval()),
    Column("dropped_before", TIMESTAMP(timezone=True), server_default=text("'-infinity'"), nullable=False),
    # Whether all rooms of readings that came before there were rooms have a row.
    Column("rooms_known", Boolean(), server_default=text("false"), nullable=False),
    PrimaryKeyConstraint("single", name="upkeep_pkey"),
    CheckConstraint("single", name="upkeep_once"),
)

removals = Table(
    "removals",
    metadata,
    # Which readings were removed: since <= timestamp < before, of a room or of a building, beyond the limits if there
    # are some. What was measured later than it was asked for is stored.
    Column("id", Uuid(), server_default=text("gen_random_uuid()"), nullable=False),
    Column("building_id", Text(collation="C"), nullable=False),
    Column("room_id", Text(collation="C")),
    Column("since", TIMESTAMP(timezone=True), nullable=False),
    Column("before", TIMESTAMP(timezone=True), nullable=False),
    Column("above", Double()),
    Column("below", Double()),
    # Whether summaries of readings that were dropped, and all alarms, are meant too.
    Column("everything", Boolean(), nullable=False),
    # Until when none of it is stored again.
    Column("until", TIMESTAMP(timezone=True), nullable=False),
    Column("asked", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    # A digest of the token, and what was given as the reason.
    Column("asked_by", Text(), nullable=False),
    Column("reason", Text()),
    Column("removed", BigInteger(), server_default=text("0"), nullable=False),
    Column("finished", TIMESTAMP(timezone=True)),
    # How far it is: all rooms before this one, of this one the readings before an instant.
    Column("reached_room", Text(collation="C"), server_default=text("''"), nullable=False),
    Column("reached", TIMESTAMP(timezone=True), server_default=text("'-infinity'"), nullable=False),
    # No reading that is meant was later when it was asked for; and who was storing readings then.
    Column("known_until", TIMESTAMP(timezone=True), nullable=False),
    Column("writers", ARRAY(Text())),
    PrimaryKeyConstraint("id", name="removals_pkey"),
    Index("removals_until", "until"),
    Index("removals_asked", "asked", "id"),
    Index("removals_unfinished", "asked", postgresql_where=text("finished IS NULL")),
    # It is updated with each step.
    postgresql_with={"fillfactor": 50},
)
