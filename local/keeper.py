"""Has PostgreSQL started again when it ended by itself."""

import threading
import time
from collections.abc import Callable

from local.postgres import Postgres

LOOK_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1, 60
"""Between two starts: twice as long each time."""
STEADY_SECONDS = 60
"""A server that ran so long is well again."""


def keep_running(postgres: Postgres, stopping: threading.Event, say: Callable[[str], None]) -> None:
    """Start the server again whenever it ended, until `stopping` is set.

    Each thing is said once until the server is well again, and it is tried ever less often: a disk that is full stays
    so for a while, and nobody reads the same sentence twice a second.
    """
    said: set[str] = set()
    pause = FIRST_PAUSE_SECONDS
    started = next_start = time.monotonic()
    starts = 0

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    while not stopping.wait(LOOK_SECONDS):
        now = time.monotonic()
        if postgres.process.poll() is None:
            if starts and now - started > STEADY_SECONDS:
                said.clear()
                pause, starts = FIRST_PAUSE_SECONDS, 0
            continue
        if now < next_start:
            continue
        once("PostgreSQL    ended by itself; starting it again")
        if starts == 2:
            once(f"PostgreSQL    ends again and again; {postgres.log} says why. It is started again ever less often")
        try:
            postgres.start()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the next start may do
            if not stopping.is_set():
                once(f"              {error}")
        starts += 1
        started = time.monotonic()
        next_start = started + pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
