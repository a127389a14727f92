"""A fault under a steady load, after which nothing acknowledged is lost and nothing is stored twice."""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any

import pytest
import requests

from local.postgres import PROGRAMS
from tests.faults.load import DAYS, Load, Reading
from tests.faults.stack import DEADLINE, Stack
from tests.support import LONG

TIMES = 10 if LONG else 2
"""How often one happens that lasts for an instant."""
SPARE = 25
"""Megabytes that a function may be larger after a fault than before."""
_buildings = count(1)
Fault = Callable[[Stack], None]
Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Expected:
    """What clients may see of a fault, beside 2xx and 503 with Retry-After."""

    answers: frozenset[str] = frozenset()
    slowest: float = DEADLINE + 2.5
    """Seconds until an answer: fewer than a fault lasts."""
    recovered: float = 3
    """Seconds from the end of the fault until readings are acknowledged again."""
    steady: bool = True
    """Whether what was counted once stays."""


def endure(stack: Stack, name: str, fault: Fault, expected: Expected, record: Record, *, works: bool = True) -> None:
    """Do the fault under load, and see that all is well afterwards."""
    load = Load(f"F{next(_buildings)}", stack.address("ingest"), stack.address("average"), steady=expected.steady)
    with load.running():
        if works:
            load.wait_for_acknowledgement()
        time.sleep(0.5)
        before = stack.megabytes("ingest")
        fault(stack)
        recovered = load.wait_for_acknowledgement()
        time.sleep(0.5)
    grown = stack.megabytes("ingest") - before
    rows = stored(stack, load.building_id)
    lost = set(load.acknowledged) - rows.keys()
    twice = [reading for reading, times in rows.items() if times > 1]
    record("fault", name)
    record("acknowledged", len(load.acknowledged))
    record("lost", len(lost))
    record("twice", len(twice))
    record("answers", ", ".join(f"{times} {answer}" for answer, times in sorted(load.answers.items())))
    record("slowest", f"{load.slowest:.1f} s")
    record("recovered", f"{recovered:.2f} s")
    record("memory", f"{grown:+.0f} MB")
    assert not lost
    assert not twice
    # All that was begun was sent until it was acknowledged: nothing else may be there.
    assert rows.keys() == set(load.acknowledged)
    assert not load.problems
    assert load.answers.keys() <= {"200", "201", "503"} | expected.answers
    assert load.slowest < expected.slowest
    assert recovered < expected.recovered
    assert grown < SPARE
    assert_averages_are_exact(stack, load)
    redeliver(stack, load)
    assert stored(stack, load.building_id) == rows
    assert_undamaged(stack)


def stored(stack: Stack, building_id: str) -> Counter[Reading]:
    with stack.connected() as connection:
        rows = connection.execute(
            "SELECT room_id, timestamp, temperature FROM temperatures WHERE building_id = %s", (building_id,)
        )
        return Counter(Reading(*row) for row in rows)


def assert_averages_are_exact(stack: Stack, load: Load) -> None:
    for room_id in {reading.room_id for reading in load.acknowledged}:
        temperatures = [reading.temperature for reading in load.acknowledged if reading.room_id == room_id]
        asked = {"building_id": load.building_id, "room_id": room_id, **DAYS}
        answer = requests.get(f"{stack.address('average')}/v1/temperature/average", params=asked, timeout=10).json()
        found = (answer["count"], answer["min"], answer["max"])
        assert found == (len(temperatures), min(temperatures), max(temperatures))
        assert answer["average_temperature"] == pytest.approx(fmean(temperatures), rel=1e-12, abs=1e-12)


def assert_undamaged(stack: Stack) -> None:
    """Let PostgreSQL compare each row with its indexes, and each page that it read with its checksum."""
    program = PROGRAMS / "pg_amcheck"
    checks = ["--install-missing", "--heapallindexed", "--parent-check"]
    run = subprocess.run([program, *checks, stack.postgres.url()], capture_output=True, check=False, text=True)
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr
    with stack.connected("postgres") as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
        failures = connection.execute("SELECT sum(checksum_failures) FROM pg_stat_database")
        assert failures.fetchone() == (0,)


def redeliver(stack: Stack, load: Load) -> None:
    """Send everything again, twice, in another order and other batches."""
    readings = 2 * load.acknowledged
    random.Random(1).shuffle(readings)
    batches = [readings[first : first + 777] for first in range(0, len(readings), 777)]
    bodies = [[reading.json(load.building_id) for reading in batch] for batch in batches]

    def send(body: list[dict[str, Any]]) -> requests.Response:
        end = time.monotonic() + 30
        while (answer := requests.post(stack.address("ingest"), json=body, timeout=30)).status_code == 503:
            assert time.monotonic() < end
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, bodies))
    for batch, answer in zip(batches, answers, strict=True):
        assert (answer.status_code, answer.json()["accepted"]) == (201, len(batch))
        assert answer.json()["duplicates"] == len(batch)
