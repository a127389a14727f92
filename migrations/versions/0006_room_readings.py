"""The readings of one room by a function of their own, which the desired state makes."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Leave it to the desired state."""


def downgrade() -> None:
    """Drop the function."""
    op.execute("DROP FUNCTION IF EXISTS room_readings")
