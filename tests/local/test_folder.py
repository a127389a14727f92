"""Whatever an earlier run left in the folder, and wherever that is: it works, or says what to do; nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import psycopg
import pytest

from local.postgres import PROGRAMS, Postgres
from local.user import PostgresError
from tests.local.machine import end_all, place, serving
from tests.support import LONG, ROOT, python, wait_until, without_locks

DATABASES = "SELECT count(*) FROM pg_database WHERE datname = 'temperature'"


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as place_:
        yield place_ / "postgres"


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data folder that was in use, to be copied."""
    with place() as folder:
        with serving(folder / "postgres"):
            pass
        yield folder / "postgres"


def copy(made: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder


def assert_it_works(folder: Path) -> None:
    with serving(folder) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute(DATABASES).fetchone() == (1,)
    assert not [path.name for path in folder.parent.iterdir() if "half-made" in path.name]


@pytest.fixture
def stranger(made: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of somebody, whom the server may send signals."""
    owner = made.stat().st_uid
    with subprocess.Popen(["/bin/sleep", "60"], user=owner if os.geteuid() == 0 else None) as process:
        yield process
        process.kill()


def test_a_stale_lock_whose_number_is_that_of_somebody_else_now(
    folder: Path, made: Path, stranger: "subprocess.Popen[bytes]", postgres: Postgres
) -> None:
    copy(made, folder)
    # One of them on a folder whose name only begins like this one.
    with serving(copy(made, folder.with_name("postgres-of-others"))) as others:
        for pid in (stranger.pid, postgres.process.pid, others.process.pid, 1):
            (folder / "postmaster.pid").write_text(f"{pid}\n{folder}\n1700000000\n5432\n/tmp\n\n  1  2\nready   \n")
            assert_it_works(folder)
        assert [each.poll() for each in (stranger, postgres.process, others.process)] == [None] * 3


def test_a_person_at_work_on_the_folder_is_left_alone(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.postgres.STOPPING_SECONDS", 1)
    copy(made, folder)
    uid = folder.stat().st_uid
    who: Any = {"user": uid} if os.geteuid() == 0 else {}
    program = PROGRAMS / "postgres"
    pipe = subprocess.PIPE
    with subprocess.Popen([program, "--single", "-D", folder, "postgres"], stdin=pipe, stdout=pipe, **who) as single:
        lock = folder / "postmaster.pid"
        wait_until(lambda: lock.exists() and lock.read_text().startswith(f"-{single.pid}\n"))
        with pytest.raises(PostgresError, match=r"End it .+, then start again"):
            assert_it_works(folder)
        assert single.poll() is None
        single.communicate()
    assert_it_works(folder)


@pytest.mark.parametrize("content", ["", "nonsense", "-1\n", "\0" * 40])
def test_a_lock_that_says_nothing(folder: Path, made: Path, content: str) -> None:
    copy(made, folder)
    (folder / "postmaster.pid").write_text(content)
    assert_it_works(folder)


def test_a_server_that_is_at_work_on_the_folder_by_another_name_is_stopped_first(folder: Path, made: Path) -> None:
    """One that a person started by hand."""
    copy(made, folder)
    with serving(folder) as server:
        program = Path(f"/proc/{server.process.pid}/exe")
        program = program.resolve() if program.exists() else Path(str(server.process.args[0]))  # type: ignore[index]
    uid = folder.stat().st_uid
    who = {"user": uid} if os.geteuid() == 0 else {}
    command = [program, "-D", ".", "-k", folder, "-c", "listen_addresses="]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **who) as other:  # type: ignore[call-overload]
        wait_until(lambda: other.poll() is not None or (folder / ".s.PGSQL.5432").exists())
        assert other.poll() is None
        if sys.platform == "linux":
            assert_it_works(folder)
            assert other.wait(10) == 0
        else:
            with pytest.raises(PostgresError, match="may be a PostgreSQL that is at work on"):
                assert_it_works(folder)
            assert other.poll() is None
            other.terminate()


def test_processes_of_a_killed_server_are_waited_for(folder: Path, made: Path) -> None:
    copy(made, folder)
    with serving(folder) as server:
        # A process of the server that does not notice for a second that the server is gone.
        connection = psycopg.connect(server.url(), autocommit=True)
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        with subprocess.Popen(["/bin/sh", "-c", f"sleep 1.5; kill -CONT {pid}"]):
            assert_it_works(folder)
        connection.close()


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"eighteen\n"])
def test_a_damaged_version_is_told(folder: Path, made: Path, content: bytes) -> None:
    copy(made, folder)
    (folder / "PG_VERSION").write_bytes(content)
    with pytest.raises(PostgresError, match=r"PG_VERSION is damaged.* move the folder away"):
        assert_it_works(folder)
    assert (folder / "PG_VERSION").read_bytes() == content


def test_a_place_with_any_name_behind_a_link_and_a_folder_for_temporary_files_that_no_socket_can_be_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = folder.parent
    odd = parent / "my 'data', \"ümläut\" 日本 $HOME `id` % & ; \\ #"
    # Bytes that are no text; macOS has none in a name.
    odd = odd.with_name(odd.name + ("\udcff" if sys.platform == "linux" else ""))
    odd.mkdir()
    (parent / "link").symlink_to(odd)
    # One that is too long for a socket, and one that libpq would take for a list.
    for name in ("temporary-" * 20, "a, b"):
        temporary = parent / name
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr("tempfile.tempdir", None)
        assert_it_works(parent / "link" / "postgres")
        assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in odd.iterdir()) == ["postgres", "postgres.log"]


def test_a_path_that_is_too_long_is_told(folder: Path) -> None:
    deep = folder.parent
    while len(str(deep)) < 1_200:
        deep = deep / ("x" * 200)
    deep.mkdir(parents=True)
    with pytest.raises(PostgresError, match="choose another DATA_DIR"):
        assert_it_works(deep / "postgres")


@pytest.mark.parametrize("name", ["postgres.new", ".temperature-half-made-thesis"])
def test_a_folder_of_somebody_beside_it_is_left_as_it_is(folder: Path, name: str) -> None:
    mine = folder.parent / name / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with serving(folder):
        pass
    assert mine.read_text() == "mine"


STEPS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.chmod", "os.chown", "subprocess.Popen", "socket.connect"}
CUT_SHORT = f"""
import os, signal, sys, threading
from pathlib import Path
from local.postgres import Postgres
folder, step, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
taken = []
def look(event, arguments):
    if event in {STEPS!r} and ("temperature" in str(arguments) or event == "subprocess.Popen"):
        taken.append(event)
        if len(taken) == step:
            # What PostgreSQL does in a program of its own is cut short somewhere.
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start() if delay else os.kill(
                os.getpid(), signal.SIGKILL
            )
sys.addaudithook(look)
server = Postgres(folder, log=folder.with_name("postgres.log"))
server.start()
print(len(taken))
server.stop()
"""


def cut_short(folder: Path, step: int, delay: float = 0) -> str:
    """Start a server for the first time, and lose the power at a step of it, or some seconds later."""
    done = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, folder, str(step), str(delay)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'functions'}:{ROOT}"},
        text=True,
        timeout=60,
    )
    end_all(folder.parent)
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


def steps() -> int:
    """How many there are in a first start."""
    with place() as folder:
        return int(cut_short(folder / "postgres", 0))


@pytest.mark.parametrize("round_", range(3))
def test_after_a_loss_of_power_at_some_step_of_the_first_start_the_next_works(folder: Path, round_: int) -> None:
    seed = SystemRandom().randrange(2**32)
    random = Random(seed)
    step, delay = random.randrange(1, 30), random.choice([0, random.uniform(0.01, 0.6)])
    print(f"seed {seed}: step {step}, {delay:.2f} s later")
    cut_short(folder, step, delay)
    assert_it_works(folder)


@pytest.mark.long
def test_after_a_loss_of_power_at_each_step_of_the_first_start_the_next_works() -> None:
    for step in range(1, steps() + 1):
        for delay in (0, 0.02, 0.1, 0.3):
            with place() as folder:
                cut_short(folder / "postgres", step, delay)
                assert_it_works(folder / "postgres")


@pytest.mark.parametrize("round_", range(60 if LONG else 2))
def test_files_that_lost_their_end_are_told_or_do_no_harm(folder: Path, made: Path, round_: int) -> None:
    seed = SystemRandom().randrange(2**32)
    random = Random(seed)
    copy(made, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    # Of those at the top and of the control file more than of the thousand others.
    weighed = [path for path in files if path.parent == folder or path.name == "pg_control"]
    hurt = random.choice(weighed if random.random() < 0.7 else files)
    length = random.choice([0, random.randrange(hurt.stat().st_size)])
    print(f"seed {seed}: {hurt.relative_to(folder)} cut to {length} bytes")
    os.truncate(hurt, length)
    before = {path for path in folder.rglob("*") if path.is_file()}
    began = time.monotonic()
    try:
        assert_it_works(folder)
    except PostgresError as error:
        sentence = str(error)
        # "18" cut to one digit is another version of PostgreSQL.
        told = ("left as it", "could not make its database", "was made by PostgreSQL 1,")
        assert any(part in sentence for part in told), sentence
        assert "it said nothing" not in sentence
        assert (hurt.stat().st_size == length) or hurt.name == "postgresql.auto.conf"
        lost = before - {path for path in folder.rglob("*") if path.is_file()}
        assert {path.name for path in lost} <= {"postmaster.pid", "pg_internal.init"}
    except psycopg.Error:
        # The server runs, and its database does not answer: the migration that comes next tells what it says.
        assert hurt.parent != folder
    assert time.monotonic() - began < 30


def test_a_data_folder_that_cannot_be_made_is_told_with_the_first_reason(folder: Path) -> None:
    """initdb may also fail to remove what it made by then, and says so last."""
    programs = folder.parent / "pg" / "bin"
    programs.mkdir(parents=True)
    (programs / "postgres").symlink_to(PROGRAMS / "postgres")
    (programs / "initdb").write_text(
        f"""#!/bin/sh
ulimit -f 100
'{PROGRAMS}/initdb' "$@"
echo 'initdb: error: failed to remove contents of data directory' >&2
exit 1
"""
    )
    (programs / "initdb").chmod(0o755)
    server = Postgres(folder, log=folder.with_name("postgres.log"), programs=programs)
    with pytest.raises(PostgresError, match=r"could not be made: could not write to file .+: File too large\. Mend"):
        server.start()


def test_a_file_system_without_locks_is_told(tmp_path: Path) -> None:
    done = python("-m", "local", DATA_DIR=str(tmp_path / "data"), PYTHONPATH=without_locks(tmp_path))
    told = f"The folder {tmp_path / 'data'} cannot be used (No locks available); choose another DATA_DIR\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_what_the_system_refuses_is_told(folder: Path) -> None:
    folder.symlink_to(folder)
    with pytest.raises(PostgresError, match="choose another DATA_DIR"):
        assert_it_works(folder)
