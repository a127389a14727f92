"""The tables as SQLAlchemy knows them, for `alembic check` and new revisions."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Interval,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

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
    # When the sink took the event of each.
    Column("raised_sent", TIMESTAMP(timezone=True)),
    Column("cleared_sent", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("id", name="alarms_pkey"),
    CheckConstraint("kind IN ('high', 'low', 'silent')", name="alarm_known"),
    CheckConstraint("raised <= cleared", name="alarm_in_order"),
    Index("alarms_open", "building_id", "room_id", "kind", unique=True, postgresql_where=text("cleared IS NULL")),
    Index("alarms_cleared", "cleared"),
    Index("alarms_unsent", "raised", postgresql_where=text("raised_sent IS NULL OR cleared_sent IS NULL")),
)
watched = Table(
    "watched",
    metadata,
    # For each room the last reading that was compared with its thresholds.
    Column("building_id", Text(collation="C"), nullable=False),
    Column("room_id", Text(collation="C"), nullable=False),
    Column("timestamp", TIMESTAMP(timezone=True), nullable=False),
    Column("temperature", Double(), nullable=False),
    PrimaryKeyConstraint("building_id", "room_id", name="watched_pkey"),
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
    PrimaryKeyConstraint("building_id", "room_id", name="rooms_pkey"),
    CheckConstraint("late_from < late_to AND late_to <= summed_until", name="room_late_before_summed"),
    CheckConstraint("isfinite(timestamp) AND isfinite(summed_until)", name="room_within_time"),
    postgresql_with={"fillfactor": 50},
)


def _summaries(name: str, *key: Column[Any]) -> Table:
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
        PrimaryKeyConstraint("building_id", *(column.name for column in key), name=f"{name}_pkey"),
    )


def _room_id() -> Column[Any]:
    return Column("room_id", Text(collation="C"), nullable=False)


def _start(name: str) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True), nullable=False)


room_hours = _summaries("room_hours", _room_id(), _start("hour"))
room_days = _summaries("room_days", _room_id(), _start("day"))
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
