"""Has PostgreSQL started again when it ended by itself."""

import time
from collections.abc import Callable
from threading import Event

from local.postgres import Postgres
from shared.backoff import Backoff

LOOK_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1, 60
"""Between two starts."""
STEADY_SECONDS = 60
"""A server that ran so long is well again."""


class Keeper:
    """Starts a server again whenever it ended.

    Each thing is said once until the server is well again, and it is tried ever less often: a disk that is full stays
    so for a while, and nobody reads the same sentence twice a second.
    """

    def __init__(self, postgres: Postgres, say: Callable[[str], None]) -> None:
        self._postgres = postgres
        self._say = say
        self._said: set[str] = set()
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._starts = 0
        self._started = self._next_start = time.monotonic()

    def keep(self, stopping: Event) -> None:
        """Have the server run until `stopping` is set."""
        while not stopping.wait(LOOK_SECONDS):
            now = time.monotonic()
            if self._postgres.process.poll() is not None:
                if now >= self._next_start:
                    self._start(stopping)
            elif self._starts and now - self._started > STEADY_SECONDS:
                self._said.clear()
                self._backoff.reset()
                self._starts = 0

    def _start(self, stopping: Event) -> None:
        self._once("PostgreSQL    ended by itself; starting it again")
        if self._starts == 2:
            log = self._postgres.log
            self._once(f"PostgreSQL    ends again and again; {log} says why. It is started again ever less often")
        try:
            self._postgres.start()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the next start may do
            if not stopping.is_set():
                self._once(f"              {error}")
        self._starts += 1
        self._started = time.monotonic()
        self._next_start = self._started + self._backoff.pause_seconds()

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)
