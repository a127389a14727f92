"""`make run` as a user meets it: a process with a terminal, an address and a folder."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import psycopg
import pytest
import requests

from local.__main__ import Connections, Product
from local.postgres import DATABASE, OWNER
from tests.sink import Sink
from tests.stack import READING, Stack
from tests.support import MEMORY, Urls, free_port, python, wait_until

AT_WORK = "Another `make run`, or a `make restore`, is at work on the folder"


@pytest.fixture
def folder() -> Iterator[Path]:
    # A server that a test leaves behind is told to end, and may not have ended yet.
    with TemporaryDirectory(prefix="temperature-test-", dir=MEMORY, ignore_cleanup_errors=True) as parent:
        yield Path(parent) / "data"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def start(**options: Any) -> Stack:
        stacks.append(Stack(options.pop("folder", folder), **options))
        return stacks[-1]

    yield start
    for stack in stacks:
        with stack.process:
            if stack.process.poll() is None:
                stack.stop()
    for stack in stacks:
        if (pid := _postmaster(stack.folder)) is not None:
            os.kill(pid, signal.SIGQUIT)


def test_tokens_close_it_to_others_and_the_simulator_has_its_own(start: Callable[..., Stack]) -> None:
    write, read = "write-token-0123456789", "read-token-0123456789"
    stack = start(WRITE_TOKENS=write, READ_TOKENS=read, K_SINK="http://127.0.0.1:1/elsewhere")
    assert " 2160 readings" in stack.wait_for("Simulator")
    assert "Tokens" in stack.wait_for("  Tokens")
    assert stack.average()["status"] == 401
    assert requests.post(stack.address, json=READING, timeout=20).status_code == 401
    answer = requests.post(stack.address, json=READING, headers={"Authorization": f"Bearer {write}"}, timeout=20)
    assert answer.status_code == 201
    rooms = requests.get(
        f"{stack.address}/v1/temperature/rooms", headers={"Authorization": f"Bearer {read}"}, timeout=20
    )
    assert len(rooms.json()["rooms"]) == 4
    assert write not in stack.stop() + "".join(stack.lines)


def test_without_the_simulator_there_are_only_readings_that_are_sent(start: Callable[..., Stack]) -> None:
    stack = start(SIMULATE="false")
    stack.wait_for("Simulator     off")
    stack.wait_for("  Rooms")
    assert requests.get(f"{stack.address}/v1/temperature/rooms", timeout=20).json()["rooms"] == []
    assert stack.post(READING).status_code == 201
    assert stack.average()["count"] == 1


def test_its_log_is_where_log_file_says(start: Callable[..., Stack], tmp_path: Path) -> None:
    refused = start(LOG_FILE=str(tmp_path / "missing" / "log"), SIMULATE="false")
    assert refused.process.wait(20) == 1
    assert refused.process.stdout and "choose another LOG_FILE" in refused.process.stdout.read()
    log = tmp_path / "log"
    stack = start(LOG_FILE="~/log", HOME=str(tmp_path), LOG_LEVEL="debug", SIMULATE="false")
    stack.wait_for(f"Log in {log}.")
    assert stack.post(READING).status_code == 201
    assert "stored 1 readings" in log.read_text()
    for target in (60_000 * "x", "?" + 60_000 * "x"):
        assert requests.get(f"{stack.address}/v1/{target}", timeout=20).status_code == 404
    assert max(map(len, log.read_text().splitlines())) < 2_000
    assert not (stack.folder / "app.log").exists()


def test_a_backup_that_is_lost_with_the_data_is_told(start: Callable[..., Stack], folder: Path, tmp_path: Path) -> None:
    stack = start(SIMULATE="false", BACKUP_DIR=str(folder.with_name("not") / "mounted"))
    assert "is on the disk of the data" in stack.wait_for("Backup")
    stack.stop()
    for other in (tmp_path, Path("/dev/shm")):
        if other.is_dir() and other.stat().st_dev != folder.stat().st_dev:
            with TemporaryDirectory(dir=other) as elsewhere:
                stack = start(SIMULATE="false", BACKUP_DIR=elsewhere)
                assert "and all that is written from now on" in stack.wait_for("Backup")
                stack.stop()


def _postmaster(folder: Path) -> int | None:
    file = folder / "postgres" / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.exists() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_readings_posted_and_simulated_are_answered_and_outlive_a_restart(start: Callable[..., Stack]) -> None:
    stack = start()
    assert "2160 readings" in stack.wait_for("Simulator")
    rooms = requests.get(f"{stack.address}/v1/temperature/rooms", timeout=20).json()["rooms"]
    assert [(room["building_id"], room["room_id"]) for room in rooms] == [("B1", "101"), ("B1", "102"), ("B2", "201")]
    for path in ("/", "/v1/temperature", "/temperature/"):
        assert requests.post(f"{stack.address}{path}", json=READING, timeout=20).status_code == 201
    assert (stack.average()["average_temperature"], stack.average()["count"]) == (22.5, 1)
    assert "GET /v1/temperature/average" in (stack.folder / "app.log").read_text()
    assert requests.get(f"{stack.address}/health", timeout=20).json()["status"] == "ok"
    paths = requests.get(f"{stack.address}/openapi.json", timeout=20).json()["paths"]
    assert {"/v1/temperature", "/v1/temperature/average", "/simulate", "/watch"} <= paths.keys()
    postgres = _postmaster(stack.folder)
    assert postgres is not None
    stack.stop()
    assert (stack.process.returncode, _alive(postgres)) == (0, False)
    again = start()
    again.wait_for("Simulator")
    assert (again.average()["average_temperature"], again.average()["count"]) == (22.5, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_other_ways_to_stop_it_leave_no_process_either(start: Callable[..., Stack], number: signal.Signals) -> None:
    stack = start()
    stack.wait_for("Functions")
    postgres = _postmaster(stack.folder)
    assert postgres is not None
    # What fails since it ends is nothing to be told.
    assert stack.stop(number).splitlines()[-1] == "Stopping"
    assert (stack.process.returncode, _alive(postgres)) == (128 + signal.SIGTERM, False)


def test_who_still_waits_when_it_ends_is_told_to_send_it_again(start: Callable[..., Stack]) -> None:
    stack = start()
    stack.wait_for("  Look")
    place = (stack.folder / "postgres" / "postmaster.pid").read_text().splitlines()[4]
    with (
        psycopg.connect(host=place, user=OWNER, dbname=DATABASE) as owner,
        ThreadPoolExecutor(1) as pool,
    ):
        owner.execute("LOCK TABLE temperatures")
        waiting = pool.submit(stack.post, READING)
        wait_until(lambda: owner.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount)
        stack.process.send_signal(signal.SIGTERM)
        answer = waiting.result()
    assert (answer.status_code, answer.json()["detail"]) == (503, "This instance ends; send it again")


def test_below_nohup_it_outlives_the_terminal(start: Callable[..., Stack]) -> None:
    stack = start(who={"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)})
    stack.wait_for("Functions")
    stack.process.send_signal(signal.SIGHUP)
    assert stack.post(READING).status_code == 201
    stack.wait_for("Log in")
    assert stack.average()["count"] == 1
    stack.stop()
    assert stack.process.returncode == 0


def test_ctrl_c_again_and_again_leaves_no_process_either(start: Callable[..., Stack]) -> None:
    stack = start()
    stack.wait_for("Simulator")
    postgres = _postmaster(stack.folder)
    assert postgres is not None
    while stack.process.poll() is None:
        stack.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert (stack.process.returncode, _alive(postgres)) == (0, False)


@pytest.mark.parametrize("name", ["ALARM_RULES", "ALARM_RULES_FILE"])
def test_alarms_are_raised_and_sent_to_the_sink_and_end_with_their_rules(
    start: Callable[..., Stack], sink: Sink, tmp_path: Path, name: str
) -> None:
    token, rules = "write-token-0123456789", '[{"above": -50}]'
    (tmp_path / "rules.json").write_text(rules)
    given = {name: rules if name == "ALARM_RULES" else str(tmp_path / "rules.json")}
    stack = start(**given, ALARM_SINK_URL=sink.url, WRITE_TOKENS=token)
    assert stack.wait_for("Alarms") == "Alarms        3 raised; looked for every minute\n"
    alarms = requests.get(f"{stack.address}/v1/temperature/alarms", timeout=20).json()["alarms"]
    assert sorted(alarm["room_id"] for alarm in alarms) == ["101", "102", "201"]
    assert len(sink.events) == 3
    # The token that lets readings in is not for whoever takes alarms.
    assert token not in str(sink.requests)
    assert "  Alarms    curl" in "\n".join(stack.lines) + stack.stop()
    stack = start(ALARM_SINK_URL=sink.url)
    stack.wait_for("Functions")
    wait_until(lambda: len(sink.events) == 6)
    alarms = requests.get(f"{stack.address}/v1/temperature/alarms", timeout=20).json()["alarms"]
    assert all(alarm["cleared"] for alarm in alarms)


def test_a_second_run_on_the_same_folder_says_so_and_disturbs_nothing(start: Callable[..., Stack]) -> None:
    stack = start(SIMULATE="false")
    stack.wait_for("Functions")
    second = start()
    assert AT_WORK in second.process.communicate(timeout=20)[0]
    assert second.process.returncode == 1
    assert stack.average()["count"] == 0


def test_a_second_run_that_gets_to_the_same_data_by_another_way_says_so_too(
    start: Callable[..., Stack], folder: Path
) -> None:
    stack = start(SIMULATE="false")
    stack.wait_for("Functions")
    other = folder.with_name("other")
    other.mkdir()
    (other / "postgres").symlink_to(folder / "postgres")
    second = start(folder=other)
    assert AT_WORK in second.process.communicate(timeout=20)[0]
    assert stack.average()["count"] == 0


def test_two_run_side_by_side(start: Callable[..., Stack], folder: Path) -> None:
    first, second = (start(folder=folder.with_name(name), SIMULATE="false") for name in ("data", "other"))
    for stack in (first, second):
        stack.wait_for("Functions")
    requests.post(f"{first.address}/", json=READING, timeout=20)
    assert (first.average()["count"], second.average()["count"]) == (1, 0)


def test_a_taken_port_is_said_before_anything_else_happens(start: Callable[..., Stack]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack = start(port=taken.getsockname()[1])
        output = stack.process.communicate(timeout=20)[0]
    assert "cannot be used (Address already in use). Choose another, such as: make run PORT=" in output
    assert (stack.process.returncode, (stack.folder / "postgres").exists()) == (1, False)


def test_a_folder_of_something_else_is_left_as_it_is(start: Callable[..., Stack], folder: Path) -> None:
    mine = folder / "postgres" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    stack = start()
    assert "is not a data folder of PostgreSQL, and not empty" in stack.process.communicate(timeout=20)[0]
    assert (stack.process.returncode, list(mine.parent.iterdir())) == (1, [mine])


def test_a_folder_of_another_postgresql_is_left_as_it_is(start: Callable[..., Stack], folder: Path) -> None:
    version = folder / "postgres" / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("15\n")
    assert "was made by PostgreSQL 15" in start().process.communicate(timeout=20)[0]
    assert list(version.parent.iterdir()) == [version]


def test_a_damaged_folder_is_said_with_the_reason_and_left_as_it_is(start: Callable[..., Stack], folder: Path) -> None:
    stack = start()
    stack.wait_for("Functions")
    stack.stop()
    control = folder / "postgres" / "global" / "pg_control"
    control.write_bytes(b"\0" * 8192)
    stack = start()
    output = stack.process.communicate(timeout=20)[0]
    assert "PostgreSQL could not start on" in output
    assert "The data was left as it is" in output
    assert "Traceback" not in output
    assert control.read_bytes() == b"\0" * 8192


def test_a_folder_that_is_a_file_is_said(start: Callable[..., Stack], folder: Path) -> None:
    folder.write_text("")
    assert "cannot be used (File exists); choose another DATA_DIR" in start().process.communicate(timeout=20)[0]
    folder.unlink()


def test_after_a_kill_the_next_run_goes_on_with_all_readings(start: Callable[..., Stack]) -> None:
    stack = start()
    stack.wait_for("Functions")
    assert requests.post(f"{stack.address}/", json=READING, timeout=20).status_code == 201
    stack.process.kill()
    stack.process.communicate()
    again = start()
    again.wait_for("Functions")
    assert any("stopping the PostgreSQL that an earlier run left behind" in line for line in again.lines)
    assert again.average()["count"] == 1


def test_a_killed_postgresql_is_started_again_and_no_acknowledged_reading_is_lost(start: Callable[..., Stack]) -> None:
    stack = start()
    stack.wait_for("Functions")
    assert requests.post(f"{stack.address}/", json=READING, timeout=20).status_code == 201
    postgres = _postmaster(stack.folder)
    assert postgres is not None
    os.kill(postgres, signal.SIGKILL)
    stack.wait_for("PostgreSQL    ended by itself; starting it again")
    wait_until(lambda: stack.post(READING).status_code == 201)
    assert stack.average()["count"] == 1


def test_it_runs_on_another_database_instead(start: Callable[..., Stack], plain: Urls) -> None:
    stack = start(DATABASE_URL=plain(OWNER))
    stack.wait_for("Functions")
    assert "Database      the one that DATABASE_URL names" in stack.lines
    assert requests.post(f"{stack.address}/", json=READING, timeout=20).status_code == 201
    assert stack.average()["count"] == 1
    assert not (stack.folder / "postgres").exists()
    stack.stop()


def test_a_database_that_does_not_answer_is_said(start: Callable[..., Stack]) -> None:
    stack = start(DATABASE_URL="postgresql://somebody:secret@127.0.0.1:1/none")
    output = stack.process.communicate(timeout=20)[0]
    assert "The database that DATABASE_URL names does not answer" in output
    assert "secret" not in output


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"DATABASE_URL": "postgresql://localhost/temperature", "BACKUP_DIR": "backups"},
            "BACKUP_DIR keeps backups of make run's own PostgreSQL only; unset it, or DATABASE_URL",
        ),
        (
            {"ADMIN_DATABASE_URL": "postgresql://localhost/temperature"},
            "ADMIN_DATABASE_URL is a way into the database that DATABASE_URL names; set that too, or unset it",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_said(tmp_path: Path, variables: dict[str, str], sentence: str) -> None:
    run = python("-m", "local", DATA_DIR=str(tmp_path / "data"), PORT=str(free_port()), **variables)
    assert run.stderr.strip() == sentence
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("PORT", "0"), ("PORT", "65536")])
def test_a_port_that_is_none_is_said(tmp_path: Path, name: str, value: str) -> None:
    run = python("-m", "local", DATA_DIR=str(tmp_path), **{name: value})
    assert run.stderr.strip() == f"PORT must be a whole number from 1 to 65535, not {value!r}"


def test_timers_go_on_where_for_a_moment_nothing_can_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = Product(f"http://localhost:{free_port()}", tmp_path / "log", Connections("", {}), simulates=True)
    stopping = Event()
    stopping.set()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As where clients hold all connections that the system allows.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        product.simulate(stopping)
        product.watch(stopping)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    said = capsys.readouterr().out
    assert "Simulator     no answer (OSError)\n" in said
    assert "Alarms        no answer (OSError)\n" in said
