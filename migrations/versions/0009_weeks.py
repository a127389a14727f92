"""Weeks of rooms: a year of a room is some fifty rows of summaries, and not some four hundred.

Those of days that are summed up already are made after the revisions, room by room; readings come in meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the table, and the column that says how far it is filled."""
    text = sa.Text(collation="C")
    op.create_table(
        "room_weeks",
        sa.Column("building_id", text, nullable=False),
        sa.Column("room_id", text, nullable=False),
        sa.Column("week", INSTANT, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sum", sa.Numeric(), nullable=False),
        sa.Column("min", sa.Double(), nullable=False),
        sa.Column("max", sa.Double(), nullable=False),
        sa.Column("sum_of_squares", sa.Numeric()),
        sa.Column("first_at", INSTANT),
        sa.Column("first_temperature", sa.Double()),
        sa.Column("last_at", INSTANT),
        sa.Column("last_temperature", sa.Double()),
        sa.Column("longest_gap", sa.Interval()),
        sa.Column("degree_microseconds", sa.Numeric()),
        sa.PrimaryKeyConstraint(
            "building_id",
            "room_id",
            "week",
            name="room_weeks_pkey",
            postgresql_include=["count", "sum", "min", "max"],
        ),
    )
    op.add_column("rooms", sa.Column("weeks_until", INSTANT, server_default=sa.text("'-infinity'"), nullable=False))


def downgrade() -> None:
    """Drop the table and the functions that fill it."""
    for name in ("summarize_days", "roll_up_weeks", "roll_up_days", "touched_days", "touched", "summarize_weeks"):
        op.execute(f"DROP FUNCTION IF EXISTS {name}")
    op.drop_column("rooms", "weeks_until")
    op.drop_table("room_weeks")
