"""Faults that overlap, chosen at random from a seed: `make torture SEED=...` does the same ones again."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg
import pytest

from local.postgres import OWNER, READER, WRITER
from tests.faults.endurance import Expected, Record, endure
from tests.faults.pair import Pair
from tests.support import LONG

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
RUNS = int(os.environ.get("RUNS") or (20 if LONG else 1))
SECONDS = 8 if LONG else 4
"""In which all faults of a run begin."""
ANY = Expected(
    answers=frozenset({"refused", "broken"}),
    # Some of it is for this machine, where several servers start at the same time.
    slowest=15,
    recovered=15,
    steady=False,
)


@dataclass(frozen=True)
class Incident:
    """A fault, when it begins and how long it lasts, in seconds."""

    kind: str
    begin: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.begin:.1f} for {self.seconds:.1f} s"


def plan(seed: int) -> list[Incident]:
    """The same incidents for the same seed."""
    chance = random.Random(seed)
    return sorted(
        (
            Incident(chance.choice([*KINDS]), SECONDS * chance.random(), 3 * chance.random())
            for _ in range(chance.randint(3, 7))
        ),
        key=lambda incident: incident.begin,
    )


class Theatre:
    """Where incidents happen: those that concern the same server take turns, everything else overlaps."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.primary, self.standby, self.ingest, self.average = (threading.RLock() for _ in range(4))

    def ingest_is_killed(self, _: float) -> None:
        with self.ingest:
            self.pair.end("ingest", signal.SIGKILL)
            self.pair.start("ingest")

    def ingest_is_told_to_end(self, _: float) -> None:
        with self.ingest:
            self.pair.end("ingest", signal.SIGTERM)
            self.pair.start("ingest")

    def average_is_killed(self, _: float) -> None:
        with self.average:
            self.pair.end("average", signal.SIGKILL)
            self.pair.start("average")

    def the_primary_is_killed(self, seconds: float) -> None:
        with self.primary:
            self.pair.kill_postgres()
            time.sleep(seconds / 3)
            self.pair.postgres.start()

    def the_primary_is_frozen(self, seconds: float) -> None:
        with self.primary:
            self.pair.signal_postgres(signal.SIGSTOP)
            time.sleep(seconds)
            self.pair.signal_postgres(signal.SIGCONT)

    def the_standby_is_frozen(self, seconds: float) -> None:
        with self.standby:
            self.pair.signal_standby(signal.SIGSTOP)
            time.sleep(seconds)
            self.pair.signal_standby(signal.SIGCONT)

    def the_standby_hears_nothing(self, seconds: float) -> None:
        self.pair.replication.stall()
        time.sleep(seconds)
        self.pair.replication.resume()

    def the_standby_is_slow(self, seconds: float) -> None:
        self.pair.replication.delay = 0.05
        time.sleep(seconds)
        self.pair.replication.delay = 0.0

    def the_standby_is_cut_off(self, seconds: float) -> None:
        for _ in range(1 + int(5 * seconds)):
            self.pair.replication.reset()
            time.sleep(0.2)

    def the_network_stalls(self, seconds: float) -> None:
        self.pair.link.stall()
        time.sleep(seconds)
        self.pair.link.resume()

    def connections_are_reset(self, seconds: float) -> None:
        for _ in range(1 + int(5 * seconds)):
            self.pair.link.reset()
            time.sleep(0.2)

    def waits_are_cancelled(self, seconds: float) -> None:
        for _ in range(1 + int(5 * seconds)):
            self._ask("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            time.sleep(0.2)

    def sessions_are_ended(self, seconds: float) -> None:
        for _ in range(1 + int(3 * seconds)):
            self._ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE usename IN ('{WRITER}', '{READER}') AND random() < 0.5"
            )
            time.sleep(0.3)

    def the_table_is_locked(self, seconds: float) -> None:
        self._hold("LOCK TABLE temperatures", seconds)

    def the_primary_is_lost(self, _: float) -> None:
        with self.primary, self.standby:
            self.pair.fail_over()

    def _ask(self, statement: str) -> None:
        """Do it where the primary answers; an incident that comes while it does not is none."""
        with suppress(psycopg.OperationalError), psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _hold(self, statement: str, seconds: float) -> None:
        with suppress(psycopg.Error), psycopg.connect(self._url(OWNER)) as connection:
            connection.execute(statement.encode())
            time.sleep(seconds)
            connection.rollback()

    def _url(self, role: str) -> str:
        return f"{self.pair.postgres.url(role)}&connect_timeout=2&options=-c%20statement_timeout%3D3s"


KINDS: dict[str, Callable[[Theatre, float], None]] = {
    name.replace("_", " "): does for name, does in vars(Theatre).items() if not name.startswith("_") and callable(does)
}


@pytest.mark.parametrize("run", range(RUNS))
def test_faults_that_overlap_lose_nothing(pair: Pair, run: int, record_property: Record) -> None:
    seed = SEED + run
    incidents = plan(seed)
    print(f"SEED={seed}:", *incidents, sep="\n  ")
    theatre = Theatre(pair)
    failed: list[BaseException] = []

    def happen(incident: Incident) -> None:
        time.sleep(incident.begin)
        try:
            KINDS[incident.kind](theatre, incident.seconds)
        except BaseException as error:
            failed.append(error)
            raise

    def fault(_: object) -> None:
        threads = [threading.Thread(target=happen, args=(incident,)) for incident in incidents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed

    endure(pair, f"seed {seed}: " + ", ".join(incident.kind for incident in incidents), fault, ANY, record_property)


def test_a_seed_says_what_happens() -> None:
    assert plan(7) == plan(7) != plan(8)
    assert {incident.kind for seed in range(200) for incident in plan(seed)} == KINDS.keys()
