"""The readings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table, a hypertable where there are hypertables."""
    op.create_table(
        "temperatures",
        sa.Column("building_id", sa.Text(collation="C"), nullable=False),
        sa.Column("room_id", sa.Text(collation="C"), nullable=False),
        sa.Column("timestamp", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("building_id", "room_id", "timestamp", "temperature", name="temperatures_pkey"),
        sa.CheckConstraint("temperature BETWEEN -50 AND 50", name="temperature_plausible"),
    )
    if op.get_bind().scalar(sa.text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")):
        op.execute("SELECT create_hypertable('temperatures', by_range('timestamp'), create_default_indexes => false)")


def downgrade() -> None:
    """Drop the table and all readings."""
    op.drop_table("temperatures")
