"""What is broken under a steady load recovers by itself: nothing acknowledged is lost, nothing is stored twice."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import requests

from local.postgres import OWNER, READER, WRITER
from tests.faults.endurance import TIMES, Expected, Fault, Record, endure
from tests.faults.load import Reading
from tests.faults.powerloss import PowerLoss
from tests.faults.stack import DEADLINE, Stack
from tests.support import LONG, ROOT, alembic, leave_out, python, wait_until

SECONDS = 30 if LONG else 4
"""How long a fault lasts that does not say it itself."""


def ingest_is_killed(stack: Stack) -> None:
    for _ in range(TIMES):
        stack.end("ingest", signal.SIGKILL)
        stack.start("ingest")
        time.sleep(0.5)


def average_is_killed(stack: Stack) -> None:
    for _ in range(TIMES):
        stack.end("average", signal.SIGKILL)
        stack.start("average")
        time.sleep(0.5)


def ingest_is_told_to_end(stack: Stack) -> None:
    for _ in range(TIMES):
        assert stack.end("ingest", signal.SIGTERM) == -signal.SIGTERM
        stack.start("ingest")
        time.sleep(0.5)


def postgresql_is_killed(stack: Stack) -> None:
    for _ in range(TIMES):
        stack.kill_postgres()
        stack.postgres.start()
        time.sleep(0.5)


def postgresql_is_stopped(stack: Stack, seconds: float) -> None:
    stack.postgres.stop()
    time.sleep(seconds)
    stack.postgres.start()


def postgresql_is_frozen(stack: Stack) -> None:
    stack.signal_postgres(signal.SIGSTOP)
    time.sleep(SECONDS)
    stack.signal_postgres(signal.SIGCONT)


def connections_run_out(stack: Stack) -> None:
    with ExitStack() as connections:
        administrator = connections.enter_context(stack.connected("postgres"))
        with suppress(psycopg.OperationalError):
            while True:
                connections.enter_context(stack.connected())
                # The functions have to connect again, and find no place in the end.
                administrator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN (%s, %s)", (WRITER, READER)
                )
        time.sleep(SECONDS)


def the_table_is_locked(stack: Stack) -> None:
    with stack.connected() as connection, connection.transaction():
        connection.execute("LOCK TABLE temperatures")
        time.sleep(SECONDS)


def the_network_stalls(stack: Stack) -> None:
    stack.link.stall()
    time.sleep(SECONDS)
    stack.link.resume()


def connections_are_reset(stack: Stack) -> None:
    for _ in range(10 * SECONDS):
        stack.link.reset()
        time.sleep(0.1)


def the_network_is_slow(stack: Stack) -> None:
    stack.link.delay = 0.2
    time.sleep(SECONDS)
    stack.link.delay = 0.0


# Nobody is there for a moment: on a cluster there is another instance, or the request waits. A function that is told to
# end breaks none of the requests that it has, but may close an idle connection while a request comes in.
GONE = Expected(answers=frozenset({"refused", "broken"}))
FAULTS: dict[str, tuple[Fault, Expected]] = {
    f"`ingest` is killed, {TIMES} times": (ingest_is_killed, GONE),
    f"`average` is killed, {TIMES} times": (average_is_killed, GONE),
    f"`ingest` is told to end, {TIMES} times": (ingest_is_told_to_end, GONE),
    f"PostgreSQL is killed, {TIMES} times": (postgresql_is_killed, Expected()),
    "PostgreSQL is stopped for 5 s": (lambda stack: postgresql_is_stopped(stack, 5), Expected()),
    f"PostgreSQL is frozen for {SECONDS} s": (postgresql_is_frozen, Expected()),
    f"connections run out for {SECONDS} s": (connections_run_out, Expected()),
    f"the table is locked for {SECONDS} s": (the_table_is_locked, Expected()),
    f"the network stalls for {SECONDS} s": (the_network_stalls, Expected()),
    f"connections are reset 10 times a second for {SECONDS} s": (connections_are_reset, Expected()),
    f"the network takes 0.2 s each way for {SECONDS} s": (the_network_is_slow, Expected()),
}
if LONG:
    FAULTS["PostgreSQL is stopped for 60 s"] = (lambda stack: postgresql_is_stopped(stack, 60), Expected())


def test_requests_that_it_has_are_answered_before_it_ends(stack: Stack) -> None:
    bodies = [Reading.of("drained", number).json("drained") for number in range(8)]
    with ThreadPoolExecutor(len(bodies) + 1) as pool:
        with stack.connected() as connection, connection.transaction():
            connection.execute("LOCK TABLE temperatures")
            waiting = [pool.submit(requests.post, stack.address("ingest"), json=body, timeout=30) for body in bodies]
            metrics = f"{stack.address('ingest')}/metrics"
            wait_until(lambda: "\ntemperature_waiting_readings 8.0\n" in requests.get(metrics, timeout=10).text)
            ending = pool.submit(stack.end, "ingest", signal.SIGTERM)
            time.sleep(DEADLINE / 2)
        assert [each.result().status_code for each in waiting] == [201] * len(bodies)
        assert ending.result() == -signal.SIGTERM
    stack.start("ingest")


def test_it_recovers_where_the_disk_is_full(tmp_path: Path, record_property: Record) -> None:
    if sys.platform != "linux":
        pytest.skip("a disk that is small is made with Linux's tmpfs")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", "size=256m,mode=777", "tmpfs", disk], check=True)

    def fill(stack: Stack) -> None:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(100_000))
        time.sleep(SECONDS)
        # Nothing is stored any more: otherwise it was no fault.
        assert "No space left" in stack.log("postgres")
        ballast.unlink()
        if stack.postgres.process.poll() is not None:
            stack.postgres.start()

    try:
        with Stack.running(disk) as stack:
            endure(stack, f"the disk is full for {SECONDS} s", fill, Expected(), record_property)
    finally:
        subprocess.run([*root, "umount", disk], check=True)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="writes are watched as Linux names files")
def test_a_loss_of_power_takes_nothing_that_is_acknowledged(record_property: Record) -> None:
    with tempfile.TemporaryDirectory(prefix="temperature-power-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        power = PowerLoss(folder, folder / "postgres")
        with Stack.running(folder) as stack, pytest.MonkeyPatch.context() as patch:
            stack.postgres.stop()
            for variable, value in power.variables.items():
                patch.setenv(variable, value)
            stack.postgres.start()

            def fail(_: Stack) -> None:
                for _number in range(TIMES):
                    time.sleep(0.5)
                    stack.kill_postgres()
                    assert power.happen() > 0
                    stack.postgres.start()

            endure(stack, f"the power fails, {TIMES} times", fail, Expected(slowest=5), record_property)


@pytest.mark.skipif(sys.platform != "linux", reason="writes are watched as Linux names files")
def test_a_loss_of_power_takes_what_was_not_fsynced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    power = PowerLoss(tmp_path, data)
    script = (
        "import os; file = open('kept', 'wb', buffering=0); file.write(b'one two'); os.fsync(file);"
        " os.pwrite(file.fileno(), b'TWO and three', 4); os.pwrite(file.fileno(), b'ONE', 0); file.truncate(1)"
    )
    variables = {**os.environ, **power.variables}
    subprocess.run([sys.executable, "-c", script], cwd=data, env=variables, check=True)
    assert (data / "kept").read_bytes() == b"O"
    assert power.happen() == 3
    assert (data / "kept").read_bytes() == b"one two"


def test_it_does_not_mind_a_clock_that_is_moved(tmp_path: Path, record_property: Record) -> None:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        if sys.platform != "linux":
            pytest.skip("libfaketime is where Linux has it")
        leave_out("libfaketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")

    def move(stack: Stack) -> None:
        for days in (-1, 400, 0):
            clock.write_text(f"{days:+}d")
            time.sleep(SECONDS / 3)
            answer = requests.get(f"{stack.address('average')}/v1/temperature/average?building_id=B1", timeout=10)
            moved = datetime.fromisoformat(answer.json()["end"]) - datetime.now(UTC)
            assert round(moved / timedelta(days=1)) == days

    faked = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A clock that is set moves no monotonic one.
        "DONT_FAKE_MONOTONIC": "1",
    }
    with Stack.running(tmp_path, **faked) as stack:
        endure(stack, "the clock is moved by -1, +400 and 0 days", move, Expected(), record_property)


def test_two_migrations_at_once_are_waited_for(stack: Stack, record_property: Record) -> None:
    owner = stack.postgres.url(OWNER)
    alembic(owner, "downgrade", "base")

    def run() -> int:
        return python("-m", "migrations", DATABASE_URL=owner).returncode

    def migrate(_: Stack) -> None:
        time.sleep(SECONDS)
        with ThreadPoolExecutor(2) as pool:
            assert [each.result() for each in [pool.submit(run), pool.submit(run)]] == [0, 0]

    endure(stack, "there is no schema, then two migrations at once", migrate, Expected(), record_property, works=False)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.running(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_it_recovers_by_itself(stack: Stack, name: str, record_property: Record) -> None:
    fault, expected = FAULTS[name]
    endure(stack, name, fault, expected, record_property)


def test_the_documentation_has_a_row_for_each_fault() -> None:
    document = (ROOT / "docs" / "reliability.md").read_text()
    for name in FAULTS:
        # How long and how often differs between the short and the long form.
        assert re.search(r"\| " + re.sub(r"\d+", r"\\d+", re.escape(name)) + r" \|", document), name
