"""The tables as SQLAlchemy knows them, for `alembic check` and new revisions."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    Index,
    MetaData,
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
