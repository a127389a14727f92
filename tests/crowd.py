"""Many at once: some write, some ask, some sum up and drop. Each answer is a state between its question and itself."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
from starlette.testclient import TestClient

from average.intervals import DAY, HOUR, floor
from local.postgres import OWNER, WRITER
from tests.exactness import Reading, summary
from tests.support import Urls

DAYS = 3
ROOMS = ["101", "102", "103"]
# As `ingest` does: one order for all.
_INSERT = """
    INSERT INTO temperatures SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::float8[]) AS reading
    ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING
"""


@dataclass
class Writer:
    """What one writer has sent, batch after batch, and how many of them were acknowledged."""

    sent: list[list[Reading]] = field(default_factory=list)
    acknowledged: int = 0
    longest: float = 0


class Crowd:
    """Writers, askers and runners of summarize() on one database, for some seconds."""

    def __init__(self, urls: Urls, average: TestClient, seed: int, *, compressing: bool = False) -> None:
        self.urls = urls
        self.compressing = compressing
        self.average = average
        self.seed = seed
        self.today = floor(datetime.now(UTC), DAY)
        self.writers = [Writer() for _ in range(3)]
        self.answers = 0
        self.errors: list[BaseException] = []
        self._over = threading.Event()

    def play(self, seconds: float) -> None:
        """Play; what went wrong is raised in the end."""
        print(f"seed {self.seed}")
        threads = [
            *(self._thread(self._write, number, writer) for number, writer in enumerate(self.writers)),
            *(self._thread(self._summarize, number) for number in range(2)),
            *(self._thread(self._ask, number) for number in range(2)),
            *(self._thread(self._compress) for _ in range(self.compressing)),
        ]
        time.sleep(seconds)
        self._over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]
        with psycopg.connect(self.urls(OWNER), autocommit=True) as connection:
            connection.execute("CALL summarize()")
        for room in (None, *ROOMS):
            self._question(room)
        batches = sum(writer.acknowledged for writer in self.writers)
        longest = max(writer.longest for writer in self.writers)
        print(f"{batches} batches, {self.answers} answers, longest wait of a writer {longest:.3f} s")
        assert batches > 3
        assert self.answers > 3

    def _thread(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                while not self._over.is_set():
                    work(*arguments)
            except BaseException as error:  # noqa: BLE001 - it is raised where the game is played
                self.errors.append(error)
                self._over.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def _write(self, number: int, writer: Writer) -> None:
        chance = random.Random(f"{self.seed} {number}")
        with psycopg.connect(self.urls(WRITER), autocommit=True) as connection:
            while not self._over.is_set():
                # Of all the days, the more of them the present; each has microseconds of its own.
                batch = [
                    (
                        "B1",
                        chance.choice(ROOMS),
                        self._instant(chance) + timedelta(microseconds=number),
                        chance.randint(-500, 500) / 10,
                    )
                    for _ in range(chance.choice([1, 1, 30, 300]))
                ]
                batch = list({row[1:3]: row for row in batch if not self._known(writer, row)}.values())
                writer.sent.append(batch)
                started = time.monotonic()
                connection.execute(_INSERT, [list(column) for column in zip(*batch, strict=True)] or [[]] * 4)
                writer.longest = max(writer.longest, time.monotonic() - started)
                writer.acknowledged += 1
                time.sleep(chance.choice([0, 0.01, 0.05]))

    def _known(self, writer: Writer, row: Reading) -> bool:
        return any(row in batch for batch in writer.sent)

    def _instant(self, chance: random.Random) -> datetime:
        if chance.random() < 0.5:
            return datetime.now(UTC) - timedelta(seconds=chance.randint(0, 60))
        return self.today - DAYS * DAY + timedelta(seconds=chance.randint(0, DAYS * 24 * 3600))

    def _summarize(self, number: int) -> None:
        chance = random.Random(f"{self.seed} summarize {number}")
        with psycopg.connect(self.urls(OWNER), autocommit=True) as connection:
            while not self._over.is_set():
                if number:
                    # More and more is dropped.
                    age = chance.choice([DAYS * DAY, DAYS * DAY - HOUR, 2 * DAY, DAY])
                    connection.execute(
                        "UPDATE upkeep SET retention = make_interval(secs => %s)", (age.total_seconds(),)
                    )
                connection.execute("CALL summarize(0, %s)", (chance.choice(['{"seconds": 0.05}', "{}"]),))
                time.sleep(chance.choice([0, 0.05, 0.3]))

    def _compress(self) -> None:
        chance = random.Random(f"{self.seed} compress")
        with psycopg.connect(self.urls(OWNER), autocommit=True) as connection:
            while not self._over.is_set():
                age = chance.choice([HOUR, DAY, 2 * DAY])
                try:
                    connection.execute("CALL compress(0, jsonb_build_object('compress_after', %s::interval))", (age,))
                except psycopg.errors.RaiseException as refused:
                    # Somebody held a chunk for too long.
                    print(refused)
                time.sleep(chance.choice([0, 0.05, 0.3]))

    def _ask(self, number: int) -> None:
        chance = random.Random(f"{self.seed} ask {number}")
        while not self._over.is_set():
            self._question(chance.choice([None, *ROOMS]), chance.choice([None, "7m", "1h", "1d"]))

    def _question(self, room: str | None, bucket: str | None = None) -> None:
        """Ask for everything, and compare count and average with what they can be: some batches of each writer."""
        query = {
            "building_id": "B1",
            "start": (self.today - (DAYS + 1) * DAY).isoformat(),
            "end": (self.today + 2 * DAY).isoformat(),
            **({"room_id": room} if room else {}),
        }
        before = [writer.acknowledged for writer in self.writers]
        if bucket:
            points = self.average.get("/v1/temperature/series", params={**query, "bucket": bucket}).json()["series"]
            found = (sum(point["count"] for point in points),)
        else:
            answer = self.average.get("/v1/temperature/average", params=query).json()
            found = tuple(answer[name] for name in ("count", "average_temperature", "min", "max"))
        after = [len(writer.sent) for writer in self.writers]
        ranges = [range(least, most + 1) for least, most in zip(before, after, strict=True)]
        states = (
            summary(
                [
                    row[3]
                    for writer, batches in zip(self.writers, chosen, strict=True)
                    for batch in writer.sent[:batches]
                    for row in batch
                    if room in {None, row[1]}
                ]
            )
            for chosen in product(*ranges)
        )
        assert any(state[: len(found)] == found for state in states), (query, bucket, found, before, after)
        self.answers += 1
