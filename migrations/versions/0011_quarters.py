"""Quarters of hours: days of a time zone that begin within an hour are made of summaries too.

Hours that are summed up already get theirs little by little from `summarize()`, as they got their courses.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns. Rooms that are there get 'infinity' without being written; those that come later get nothing.

    What the version before sums up would have no quarters. So it can do nothing until its functions are replaced.
    """
    op.execute("DROP FUNCTION IF EXISTS summarize_hours, complete_courses")
    for name, kind in (("counts", sa.Integer()), ("sums", sa.Numeric()), ("mins", sa.Double()), ("maxs", sa.Double())):
        op.add_column("room_hours", sa.Column(name, sa.ARRAY(kind)))
    op.drop_column("rooms", "courses_missing_before")
    op.add_column(
        "rooms", sa.Column("courses_missing_before", sa.TIMESTAMP(timezone=True), server_default=sa.text("'infinity'"))
    )
    op.alter_column("rooms", "courses_missing_before", server_default=None)


def downgrade() -> None:
    """Drop the columns and the functions that need them."""
    op.execute("DROP FUNCTION IF EXISTS courses_of_hours, summarize_hours, whole_parts")
    for name in ("maxs", "mins", "sums", "counts"):
        op.drop_column("room_hours", name)
