"""Brings the summaries up to date, and says how far it is. The work itself is the schema's: `sql/summarize.sql`."""

import logging
import time

from migrations.database import connect

log = logging.getLogger("migrations")

STEP_SECONDS = 5
"""After so long it is said how far the work is."""
MOST_SECONDS = 270
"""After so long the rest is left to the timer."""

_HOURS_LEFT = """
    SELECT coalesce(sum(extract(epoch FROM until - since) / 3600), 0)::bigint
    FROM unsummarized
"""


def bring_up_to_date(url: str, seconds: float = MOST_SECONDS) -> None:
    """Sum up what came since the last time. It may be ended anywhere, and run twice at once.

    Raises psycopg.Error if the database is away.
    """
    deadline = time.monotonic() + seconds
    with connect(url) as connection:
        connection.autocommit = True
        before: int | None = None
        while True:
            connection.execute(f"CALL summarize(0, '{{\"seconds\": {STEP_SECONDS}}}')")
            [(left,)] = connection.execute(_HOURS_LEFT).fetchall()
            assert isinstance(left, int)
            # Another runner at work, or rooms that writers hold, are no reason to stay.
            if left == 0 or left == before or time.monotonic() > deadline:
                break
            log.info("summaries: %d hours of rooms are left", left)
            before = left
    if left:
        log.info("summaries: the timer goes on with the %d hours of rooms that are left", left)
    elif before:
        log.info("summaries are up to date")
