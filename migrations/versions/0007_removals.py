"""Which readings were removed, by whom and why, and until when they do not come back."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

INSTANT = sa.TIMESTAMP(timezone=True)
FUNCTIONS = (
    "withdraw_alarms",
    "remove_slice",
    "continue_removal",
    "begin_removal",
    "preview_removal",
    "refuse_dropped",
    "forget_hours",
    "find_latest",
    "summarize_again",
    "delete_readings",
    "is_beyond",
)


def upgrade() -> None:
    """Add the table, and the column of alarms whose readings were removed."""
    text = sa.Text(collation="C")
    op.create_table(
        "removals",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("building_id", text, nullable=False),
        sa.Column("room_id", text),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("before", INSTANT, nullable=False),
        sa.Column("above", sa.Double()),
        sa.Column("below", sa.Double()),
        sa.Column("everything", sa.Boolean(), nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("asked", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("removed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished", INSTANT),
        sa.Column("reached_room", text, server_default=sa.text("''"), nullable=False),
        sa.Column("reached", INSTANT, server_default=sa.text("'-infinity'"), nullable=False),
        sa.Column("known_until", INSTANT, nullable=False),
        sa.Column("writers", postgresql.ARRAY(sa.Text())),
        sa.PrimaryKeyConstraint("id", name="removals_pkey"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("removals_until", "removals", ["until"])
    op.create_index("removals_asked", "removals", ["asked", "id"])
    op.create_index("removals_unfinished", "removals", ["asked"], postgresql_where="finished IS NULL")
    op.add_column("alarms", sa.Column("removed", INSTANT))
    op.create_index("alarms_removed", "alarms", ["id"], postgresql_where="removed IS NOT NULL")


def downgrade() -> None:
    """Forget what was removed: it may come back."""
    # It looks for removals; the next upgrade makes it again.
    op.execute("DROP TRIGGER IF EXISTS mark_rooms ON temperatures")
    op.execute("DROP TRIGGER IF EXISTS forget_rooms ON temperatures")
    op.execute("DROP FUNCTION IF EXISTS mark_rooms()")
    op.execute("DROP FUNCTION IF EXISTS forget_rooms()")
    op.execute("DROP PROCEDURE IF EXISTS finish_removals")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {name}")
    op.execute("DELETE FROM alarms WHERE removed IS NOT NULL")
    op.drop_column("alarms", "removed")
    op.drop_table("removals")
