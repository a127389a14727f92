"""A reading that was answered 201 is on the standby too: whatever happens to the standby, and then to the primary."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from bench.stack import command, environment, serve, target
from local.postgres import OWNER, WATCHER, WRITER
from tests.faults.endurance import TIMES, Expected, Record, endure
from tests.faults.pair import Pair
from tests.faults.stack import DEADLINE
from tests.support import LONG, ROOT, wait_until

SECONDS = 30 if LONG else 2
"""How long a fault lasts that does not say it itself."""
READING: dict[str, Any] = {
    "building_id": "B1",
    "room_id": "101",
    "temperature": 22.5,
    "timestamp": "2024-12-01T12:34:56Z",
}


def the_standby_hears_nothing(pair: Pair) -> None:
    pair.replication.stall()
    time.sleep(SECONDS)
    pair.replication.resume()


def waits_are_cancelled(pair: Pair) -> None:
    pair.replication.stall()
    for number in range(SECONDS * 2):
        time.sleep(0.5)
        pair.of_those_that_wait("pg_terminate_backend" if number % 3 == 2 else "pg_cancel_backend")
    pair.fail_over()


def the_primary_is_restarted_and_lost(pair: Pair) -> None:
    pair.replication.stall()
    time.sleep(SECONDS / 2)
    pair.kill_postgres()
    pair.postgres.start()
    time.sleep(SECONDS / 2)
    pair.fail_over()


def the_primary_is_lost(pair: Pair) -> None:
    for _ in range(TIMES):
        time.sleep(0.5)
        pair.fail_over()


def the_standby_is_slow(pair: Pair) -> None:
    pair.replication.delay = 0.1
    time.sleep(SECONDS)
    pair.replication.delay = 0.0


def the_standby_is_reset(pair: Pair) -> None:
    for _ in range(10 * SECONDS):
        pair.replication.reset()
        time.sleep(0.1)


# A standby is made anew meanwhile, and nobody confirms anything until there is one.
LOST = Expected(recovered=5, steady=False)
FAULTS: dict[str, tuple[Callable[[Pair], None], Expected]] = {
    f"the standby hears nothing for {SECONDS} s": (the_standby_hears_nothing, Expected()),
    f"the standby hears nothing for {SECONDS} s, waits are cancelled, then the primary is lost": (
        waits_are_cancelled,
        LOST,
    ),
    f"the standby hears nothing for {SECONDS} s, the primary is killed and started, then lost": (
        the_primary_is_restarted_and_lost,
        LOST,
    ),
}
if LONG:
    FAULTS |= {
        f"the primary is lost, {TIMES} times": (the_primary_is_lost, LOST),
        f"the standby takes 0.1 s each way for {SECONDS} s": (the_standby_is_slow, Expected()),
        f"the standby is cut off 10 times a second for {SECONDS} s": (the_standby_is_reset, Expected()),
    }


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_acknowledged_is_on_the_standby(pair: Pair, name: str, record_property: Record) -> None:
    fault, expected = FAULTS[name]
    endure(pair, name, lambda _: fault(pair), expected, record_property)


def test_a_reading_that_the_standby_does_not_have_is_acknowledged_to_nobody(pair: Pair) -> None:
    reading = {**READING, "room_id": "not followed"}

    def send() -> int:
        return requests.post(pair.address("ingest"), json=reading, timeout=10).status_code

    pair.replication.stall()
    # The first is given up, and visible from then on; the others find it.
    assert [send() for _ in range(4)] == [503] * 4
    with pair.connected() as connection:
        assert connection.execute("SELECT FROM temperatures WHERE room_id = 'not followed'").rowcount == 1
    pair.fail_over()
    with pair.connected() as connection:
        assert connection.execute("SELECT FROM temperatures WHERE room_id = 'not followed'").rowcount == 0
    assert send() == 201


def test_a_wait_that_is_cancelled_is_heard_of_where_a_role_gets_no_warnings(pair: Pair) -> None:
    reading = {**READING, "room_id": "silenced"}
    with pair.connected("postgres") as administrator, ThreadPoolExecutor(1) as pool:
        administrator.execute(f"ALTER ROLE {WRITER} SET client_min_messages = 'error'")
        try:
            pair.link.reset()
            assert requests.post(pair.address("ingest"), json=READING, timeout=10).status_code == 201
            pair.replication.stall()
            sent = pool.submit(requests.post, pair.address("ingest"), json=reading, timeout=10)
            # It is tried again, and waits again, until nobody waits for the answer.
            while not sent.done():
                pair.of_those_that_wait("pg_cancel_backend")
                time.sleep(0.05)
            assert sent.result().status_code == 503
        finally:
            pair.replication.resume()
            administrator.execute(f"ALTER ROLE {WRITER} RESET client_min_messages")
            pair.link.reset()


def test_an_alarm_is_raised_for_what_the_standby_has(pair: Pair) -> None:
    url = f"postgresql://{WATCHER}@127.0.0.1:{pair.link.port}/temperature?sslmode=disable"
    variables = {**target("watch", url), "DEADLINE_SECONDS": str(DEADLINE), "ALARM_RULES": '[{"above": 30}]'}
    with serve(command(), variables) as served:

        def look() -> requests.Response:
            return requests.post(f"http://127.0.0.1:{served.port}/watch", timeout=10)

        assert look().status_code == 200
        pair.replication.stall()
        with psycopg.connect(pair.postgres.url(OWNER)) as connection:
            # As a writer does that is gone before the standby confirms.
            connection.execute("SET LOCAL synchronous_commit = local")
            connection.execute("INSERT INTO temperatures VALUES ('W1', '1', now(), 31)")
        assert [look().status_code for _ in range(3)] == [503] * 3
        pair.replication.resume()
        wait_until(lambda: look().status_code == 200)
        # It was raised by a check that could not say so.
        with pair.connected() as connection:
            assert connection.execute("SELECT FROM alarms WHERE building_id = 'W1'").rowcount == 1


def test_the_migrations_end_when_the_standby_has_them(pair: Pair) -> None:
    variables = {"DATABASE_URL": pair.postgres.url(OWNER), "PYTHONPATH": f"{ROOT}/functions:{ROOT}"}

    def migrate() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "migrations"], cwd=ROOT, env=environment(variables))

    pair.replication.stall()
    try:
        # Nobody gets to hear of a success that is none.
        with migrate() as run:
            wait_until(lambda: pair.of_those_that_wait("pg_cancel_backend"))
            assert run.wait(20) == 1
        with migrate() as again:
            wait_until(lambda: pair.of_those_that_wait("abs"))
            assert again.poll() is None
            pair.replication.resume()
            assert again.wait(20) == 0
    finally:
        pair.replication.resume()


def test_an_operator_sees_how_many_copies_confirm(pair: Pair) -> None:
    assert requests.post(pair.address("ingest"), json=READING, timeout=10).status_code == 201

    def seen() -> set[str]:
        lines = requests.get(f"{pair.address('ingest')}/metrics", timeout=10).text.splitlines()
        return {line for line in lines if line.startswith("temperature_copies")}

    # It asks when nobody waits for it.
    wait_until(lambda: seen() == {"temperature_copies 2.0", "temperature_copies_meant 2.0"})


def test_the_documentation_has_a_row_for_each_fault() -> None:
    document = (ROOT / "docs" / "reliability.md").read_text()
    for name in FAULTS:
        assert re.search(r"\| " + re.sub(r"\d+", r"\\d+", re.escape(name)) + r" \|", document), name
