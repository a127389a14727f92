"""The alarms, and how far readings are watched."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables of `watch`."""
    op.create_table(
        "alarms",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("building_id", sa.Text(collation="C"), nullable=False),
        sa.Column("room_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.Column("raised", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("cleared", sa.TIMESTAMP(timezone=True)),
        sa.Column("raised_sent", sa.TIMESTAMP(timezone=True)),
        sa.Column("cleared_sent", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="alarms_pkey"),
        sa.CheckConstraint("kind IN ('high', 'low', 'silent')", name="alarm_known"),
        sa.CheckConstraint("raised <= cleared", name="alarm_in_order"),
    )
    # Whatever goes wrong, a room is in alarm once.
    op.create_index(
        "alarms_open", "alarms", ["building_id", "room_id", "kind"], unique=True, postgresql_where="cleared IS NULL"
    )
    op.create_index("alarms_cleared", "alarms", ["cleared"])
    op.create_index(
        "alarms_unsent", "alarms", ["raised"], postgresql_where="raised_sent IS NULL OR cleared_sent IS NULL"
    )
    op.create_table(
        "watched",
        sa.Column("building_id", sa.Text(collation="C"), nullable=False),
        sa.Column("room_id", sa.Text(collation="C"), nullable=False),
        sa.Column("timestamp", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("building_id", "room_id", name="watched_pkey"),
    )


def downgrade() -> None:
    """Drop the alarms; the readings and their averages stay."""
    op.drop_table("watched")
    op.drop_table("alarms")
