"""The table as SQLAlchemy knows it, for `alembic check` and new revisions."""

from sqlalchemy import CheckConstraint, Column, Double, MetaData, PrimaryKeyConstraint, Table, Text
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
