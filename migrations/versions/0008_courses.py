"""Courses of the temperature: what a room's summaries need for averages over time, and hours above a limit.

Hours that are summed up already get theirs little by little from `summarize()`; averages of readings go on meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Add the columns. Rooms that are there get 'infinity' without being written; those that come later get nothing."""
    for table in ("room_hours", "room_days"):
        for name, kind in (
            ("sum_of_squares", sa.Numeric()),
            ("first_at", INSTANT),
            ("first_temperature", sa.Double()),
            ("last_at", INSTANT),
            ("last_temperature", sa.Double()),
            ("longest_gap", sa.Interval()),
            ("degree_microseconds", sa.Numeric()),
        ):
            op.add_column(table, sa.Column(name, kind))
    op.add_column("rooms", sa.Column("courses_missing_before", INSTANT, server_default=sa.text("'infinity'")))
    op.alter_column("rooms", "courses_missing_before", server_default=None)


def downgrade() -> None:
    """Drop the columns and the functions that need them."""
    for name in ("complete_courses", "summarize_days", "find_extremes", "summarize_hours", "courses", "microseconds"):
        op.execute(f"DROP FUNCTION IF EXISTS {name}")
    op.execute("DROP FUNCTION IF EXISTS exact_total, exact_temperature, readings_by_bucket, first_spans")
    op.drop_column("rooms", "courses_missing_before")
    for table in ("room_days", "room_hours"):
        for name in (
            "degree_microseconds",
            "longest_gap",
            "last_temperature",
            "last_at",
            "first_temperature",
            "first_at",
            "sum_of_squares",
        ):
            op.drop_column(table, name)
