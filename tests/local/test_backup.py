"""What is stored can be brought back from another disk, to the last second, and to an instant before."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import pytest

from local.backup import begun, is_being_kept, newest, shares_a_disk, whole_at
from local.locks import held
from local.postgres import OWNER, PROGRAMS, Postgres
from local.restore import restore, start
from local.user import PostgresError
from tests.local.backups import backed_up, lost, received
from tests.local.machine import DISK, place, running, serving
from tests.support import ROOT, python, wait_until


def store(server: Postgres, number: int) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS stored (number int)")
        connection.execute("INSERT INTO stored VALUES (%s)", (number,))


def found(server: Postgres) -> list[int]:
    with psycopg.connect(server.url()) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM stored ORDER BY number").fetchall()]


def writes(server: Postgres) -> bool:
    """Whether it is done with the log of before."""
    with psycopg.connect(server.url()) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


@pytest.mark.parametrize("last_file_is_full", [False, True])
def test_a_disk_that_is_lost_takes_no_more_than_the_last_second(last_file_is_full: bool) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere") as said:
            store(server, 0)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            for number in range(1, 40):
                store(server, number)
                is_full = last_file_is_full if number == 39 else chance.random() < 0.1
                if is_full:
                    with psycopg.connect(server.url(), autocommit=True) as connection:
                        connection.execute("SELECT pg_switch_wal()")
            wait_until(lambda: received(server, folder / "elsewhere"))
            lost(server)
        assert len(said) == 1
        restore(server, folder / "elsewhere", None)
        assert found(server) == [*range(40)]
        # It has a history of its own now, and can be restored again.
        with backed_up(server, folder / "elsewhere"):
            wait_until(lambda: writes(server))
            store(server, 40)
            wait_until(lambda: received(server, folder / "elsewhere"))
            lost(server)
        restore(server, folder / "elsewhere", None)
        assert found(server) == [*range(41)]


def test_a_restore_waits_for_the_end_of_a_long_log() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("CREATE TABLE much AS SELECT repeat('x', 200) FROM generate_series(1, 400000)")
            store(server, 1)
            wait_until(lambda: received(server, backups))
            lost(server)
        restore(server, backups, None)
        assert found(server) == [1]


def test_what_went_wrong_can_be_left_out() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere"):
            store(server, 1)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            store(server, 2)
            until = datetime.now(UTC)
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("DELETE FROM stored")
            server.stop()
        shutil.rmtree(server.folder)
        restore(server, folder / "elsewhere", until)
        assert found(server) == [1, 2]
        # Nothing of the restore is left.
        assert not (server.folder / "restored-wal").exists()
        assert not re.search("recover|restore|standby", (server.folder / "postgresql.auto.conf").read_text())


def test_who_went_back_too_far_can_go_forward_again() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        instants: list[datetime] = []
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            for number in range(2):
                store(server, number)
                instants.append(datetime.now(UTC))
            store(server, 2)
            wait_until(lambda: received(server, backups))
            lost(server)
        first = restore(server, backups, instants[0])
        assert found(server) == [0]
        # A copy is named after the second in which it begins.
        wait_until(lambda: datetime.now(UTC) - begun(first) > timedelta(seconds=1))
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) != first)
            store(server, 3)
            wait_until(lambda: received(server, backups))
            lost(server)
        restore(server, backups, instants[1])
        assert found(server) == [0, 1]
        lost(server)
        restore(server, backups, None)
        assert found(server) == [0, 3]


def another_disk(server: Postgres, folder: Path) -> None:
    """Put the disk `elsewhere`, with the backup of another database, in the place of the one that has the server's."""
    (folder / "mount").symlink_to(folder / "own")
    (folder / "own").mkdir()
    with backed_up(server, folder / "mount") as said:
        wait_until(lambda: bool(said))
        (folder / "mount").unlink()
        (folder / "mount").symlink_to(folder / "elsewhere")
        wait_until(lambda: len(said) > 1)
    assert "has the backup of another database, and is left as it is" in said[1]


def test_the_backup_of_another_database_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with place() as folder:
        with serving(folder / "postgres") as server:
            with backed_up(server, folder / "elsewhere"):
                store(server, 1)
                wait_until(lambda: newest(folder / "elsewhere") is not None and received(server, folder / "elsewhere"))
            lost(server)
            before = sorted((folder / "elsewhere").rglob("*"))
        with serving(folder / "new") as other:
            with backed_up(other, folder / "elsewhere") as said:
                wait_until(lambda: bool(said))
                store(other, 2)
                # It looks each second.
                time.sleep(3)
                assert len(said) == 1
                assert "has the backup of another database, and is left as it is" in said[0]
                # Who does not see the screen finds it in the log.
                assert caplog.text.count("has the backup of another database") == 1
            another_disk(other, folder)
        assert sorted((folder / "elsewhere").rglob("*")) == before
        with serving(folder / "later") as again:
            again.stop()
            shutil.rmtree(again.folder)
            restore(again, folder / "elsewhere", None)
            assert found(again) == [1]


def moved(backup: Path, difference: timedelta) -> None:
    """Have the backup begin and end earlier or later."""
    instant = (whole_at(backup) + difference).timestamp()
    os.utime(backup / "base" / "backup_manifest", (instant, instant))
    backup.rename(backup.with_name(f"{begun(backup) + difference:%Y%m%dT%H%M%SZ}"))


def days_later(folder: Path) -> None:
    """Make each backup two days older."""
    for each in sorted(folder.iterdir()):
        moved(each, timedelta(days=-2))


def test_the_last_two_backups_stay_and_what_there_was_before_the_last_can_be_brought_back() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        instants: list[datetime] = []
        before: list[Path | None] = [None]
        for number in range(3):
            with backed_up(server, backups):
                wait_until(lambda: newest(backups) not in before and received(server, backups))
                store(server, number)
                instants.append(datetime.now(UTC))
            if number < 2:
                days_later(backups)
            before.append(newest(backups))
        kept = sorted(backups.iterdir())
        assert len(kept) == 2
        server.stop()
        shutil.rmtree(server.folder)
        # Nothing was stored between that instant and the end of the log.
        assert restore(server, backups, instants[1]) == kept[0]
        assert found(server) == [0, 1]
        # Nor does the copy that begins then take anything away: the instant may have been the wrong one.
        (backups / "photos" / "base").mkdir(parents=True)
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) not in before and received(server, backups))
        lost(server)
        assert (backups / "photos" / "base").exists()
        assert restore(server, backups, instants[1]) == kept[0]
        assert found(server) == [0, 1]


def test_a_copy_that_was_not_whole_yet_gives_way_to_the_one_before() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        store(server, 1)
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            store(server, 2)
            until = datetime.now(UTC)
            store(server, 3)
            wait_until(lambda: received(server, backups))
        days_later(backups)
        with backed_up(server, backups):
            wait_until(lambda: len(list(backups.glob("*/base"))) == 2)
        server.stop()
        # As if the second copy had taken that long.
        second = max(backups.iterdir())
        second.rename(second.with_name(f"{until - timedelta(seconds=1):%Y%m%dT%H%M%SZ}"))
        shutil.rmtree(server.folder)
        assert restore(server, backups, until) == min(backups.iterdir())
        assert found(server) == [1, 2]
        server.stop()
        shutil.rmtree(server.folder)
        shutil.rmtree(min(backups.iterdir()))
        with pytest.raises(PostgresError, match=r"was whole at .+, later than UNTIL"):
            restore(server, backups, until)
        assert not server.folder.exists()


def test_a_new_database_is_not_begun_where_there_is_the_backup_of_one() -> None:
    with place() as folder:
        with serving(folder / "lost" / "postgres") as server, backed_up(server, folder / "elsewhere"):
            wait_until(lambda: newest(folder / "elsewhere") is not None)
        with running(folder / "data", BACKUP_DIR=str(folder / "elsewhere")) as stack:
            said = stack.process.communicate(timeout=60)[0]
            assert stack.process.returncode == 1
        assert f"make restore BACKUP_DIR={folder}/elsewhere DATA_DIR={folder}/data" in said
        assert "Traceback" not in said
        assert not (folder / "data" / "postgres").exists()


def test_a_copy_begins_when_its_log_is_being_written() -> None:
    """So that nothing is between them, however late the log comes."""
    with place() as folder:
        programs = folder / "programs"
        programs.mkdir()
        for program in PROGRAMS.iterdir():
            (programs / program.name).symlink_to(program)
        (programs / "pg_receivewal").unlink()
        (programs / "pg_receivewal").write_text(f'#!/bin/sh\nsleep 3\nexec {PROGRAMS}/pg_receivewal "$@"\n')
        (programs / "pg_receivewal").chmod(0o755)
        server = Postgres(folder / "postgres", log=folder / "log", programs=programs)
        server.start()
        try:
            with backed_up(server, folder / "elsewhere"):
                wait_until(lambda: newest(folder / "elsewhere") is not None)
                assert [*(folder / "elsewhere").glob("*/wal/*")] != []
        finally:
            server.stop()


@pytest.mark.parametrize(
    ("senders", "words"),
    [(0, "the log cannot be written to "), (1, "no copy could be made in ")],
)
def test_what_hinders_a_backup_again_and_again_is_said_once(senders: int, words: str) -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute(f"ALTER SYSTEM SET max_wal_senders = {senders}")
        server.stop()
        server.start()
        places: set[Path] = set()

        def it_was_tried_again_and_again() -> bool:
            places.update((folder / "elsewhere").glob("*"))
            return len(places) > 2

        with backed_up(server, folder / "elsewhere") as said:
            wait_until(it_was_tried_again_and_again)
    assert [line.startswith(f"Backup        {words}{folder}/elsewhere") for line in said] == [True]


def test_a_backup_goes_on_over_the_end_of_the_server_and_of_what_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # It was long at work before.
    monkeypatch.setattr("local.backup.FAILED_RECEIVER_SECONDS", 0)
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere") as said:
            store(server, 1)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait()
            server.start()
            # The log of that is not in the way of a checkpoint, and there for who comes back.
            for number in range(2, 5):
                store(server, number)
                with psycopg.connect(server.url(), autocommit=True) as connection:
                    connection.execute("SELECT pg_switch_wal()")
                    connection.execute("CHECKPOINT")
            # The program that takes the log is looked at each second.
            time.sleep(3)
            store(server, 5)
            server.stop()
        copied = [line for line in said if line.endswith("and all that is written from now on")]
        assert (len(copied), copied[:1]) == (1, said[:1])
        shutil.rmtree(server.folder)
        restore(server, folder / "elsewhere", None)
        assert found(server) == [*range(1, 6)]


def test_the_end_does_not_wait_for_a_copy_that_is_being_made() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        # A copy begins with a checkpoint, which this one makes.
        [checkpointer] = [
            each
            # Those that end meanwhile are left out, and have no command line.
            for each in psutil.process_iter(["ppid", "cmdline"])
            if each.info["ppid"] == server.process.pid and "checkpointer" in " ".join(each.info["cmdline"] or ())
        ]
        checkpointer.suspend()
        at_last = threading.Timer(10, checkpointer.resume)
        at_last.start()
        try:
            with psycopg.connect(server.url(), autocommit=True) as connection:
                with backed_up(server, folder / "elsewhere") as said:
                    wait_until(
                        lambda: (
                            connection.execute(
                                "SELECT FROM pg_stat_progress_basebackup WHERE phase ~ 'checkpoint'"
                            ).rowcount
                        )
                    )
                    began = time.monotonic()
                assert time.monotonic() - began < 5
        finally:
            at_last.cancel()
            checkpointer.resume()
        assert said == []
        assert list((folder / "elsewhere").iterdir()) == []


def test_nothing_is_restored_over_what_is_there_or_from_nothing() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        store(server, 1)
        with pytest.raises(PostgresError, match="has no backup"):
            restore(server, folder / "elsewhere", None)
        with backed_up(server, folder / "elsewhere"):
            wait_until(lambda: newest(folder / "elsewhere") is not None)
        with pytest.raises(PostgresError, match="is not empty"):
            restore(server, folder / "elsewhere", None)
        other = Postgres(folder / "other", log=folder / "log")
        with pytest.raises(PostgresError, match="later than UNTIL"):
            restore(other, folder / "elsewhere", datetime(2020, 1, 1, tzinfo=UTC))
        assert found(server) == [1]


@pytest.mark.parametrize("until", ["2026-11-26", "2026-11-26T08:30:00", "yesterday", "0001-01-01T00:00:00+01:00"])
def test_a_restore_takes_no_time_that_could_be_of_any_zone_or_is_of_none(tmp_path: Path, until: str) -> None:
    variables = {"BACKUP_DIR": str(tmp_path / "elsewhere"), "DATA_DIR": str(tmp_path / "to"), "UNTIL": until}
    restored = python("-m", "local.restore", **variables)
    words = f"UNTIL is {until!r}; it must be an instant, such as 2026-11-26T08:30:00Z\n"
    assert (restored.returncode, restored.stderr) == (1, words)


def test_a_backup_is_not_kept_within_what_it_is_a_copy_of(tmp_path: Path) -> None:
    with running(tmp_path / "data", BACKUP_DIR=f"{tmp_path}/data/../data/postgres/backup") as stack:
        said = stack.process.communicate(timeout=60)[0]
    assert f"backup is in {tmp_path}/data/postgres: each copy would hold the copies before it" in said
    assert "Traceback" not in said


def test_a_folder_that_nobody_may_look_into_is_on_the_disk_of_the_last_that_there_is(tmp_path: Path) -> None:
    # The system refuses a name so long as it does a folder of others, which root may see.
    assert shares_a_disk(tmp_path / ("x" * 300) / "backup", tmp_path)


def stopped_restore(backups: Path, data: Path, number: int, **environment: str) -> tuple[int, str]:
    """Stop a restore with a signal as soon as its server begins; what it returned, and said."""
    restoring = subprocess.Popen(
        [sys.executable, "-m", "local.restore"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": "functions:.",
            "BACKUP_DIR": str(backups),
            "DATA_DIR": str(data),
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((data / "postgres" / "postmaster.pid").exists)
    restoring.send_signal(number)
    said = restoring.communicate()[1]
    return restoring.returncode, said


@pytest.mark.parametrize(
    "until",
    [pytest.param(timedelta(0), marks=pytest.mark.long), timedelta(days=1)],
    ids=["all of it", "an instant after the end"],
)
def test_what_a_restore_that_was_stopped_left_is_in_no_later_backup(until: timedelta) -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            store(server, 1)
            wait_until(lambda: received(server, backups))
            lost(server)
        instant = {"UNTIL": (datetime.now(UTC) + until).isoformat()} if until else {}
        stopped_restore(backups, folder, signal.SIGINT, **instant)
        # As `make run` does.
        start(server)
        assert found(server) == [1]
        days_later(backups)
        before = newest(backups)
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) != before)
            store(server, 2)
            wait_until(lambda: received(server, backups))
            lost(server)
        restore(server, backups, None)
        assert found(server) == [1, 2]


def test_the_log_of_a_restore_that_is_in_a_backup_hinders_no_restore() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        store(server, 1)
        (server.folder / "restored-wal").mkdir()
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
        lost(server)
        restore(server, backups, None)
        assert found(server) == [1]


def several_files(server: Postgres, number: int) -> None:
    """Store so much, each in a file of the log of its own."""
    store(server, 0)
    for each in range(1, number):
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_switch_wal()")
        store(server, each)


def test_a_log_that_cannot_be_copied_is_not_taken_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is full for a moment."""
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere"):
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            several_files(server, 4)
            wait_until(lambda: received(server, folder / "elsewhere"))
            lost(server)
        fails_once = folder / "programs" / "cp"
        fails_once.parent.mkdir()
        fails_once.write_text(
            f"""#!/bin/sh
PATH={os.environ["PATH"]}
case "$1" in *3) [ -e {folder}/failed/once ] || {{ touch {folder}/failed/once; exit 1; }};; esac
cp "$@"
"""
        )
        fails_once.chmod(0o755)
        (folder / "failed").mkdir()
        (folder / "failed").chmod(0o777)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{fails_once.parent}:{os.environ['PATH']}")
            with pytest.raises(PostgresError, match=r"could not restore file .+ The data was left as it is"):
                restore(server, folder / "elsewhere", None)
            assert (folder / "failed" / "once").exists()
            start(server)
        assert found(server) == [*range(4)]


def test_a_log_that_is_damaged_is_told() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere"):
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            several_files(server, 5)
            wait_until(lambda: received(server, folder / "elsewhere"))
            lost(server)
        *_, third_last, _, _ = sorted((folder / "elsewhere").glob("*/wal/*"))
        third_last.write_bytes(bytes(third_last.stat().st_size))
        said: list[str] = []
        restored = Postgres(folder / "to", log=folder / "log", tell=said.append)
        restore(restored, folder / "elsewhere", None)
        restored.stop()
        [line] = [line for line in said if "damaged" in line]
        assert line == "The log of the backup is damaged, or lacks a file: its last 2 files are not restored"


def test_the_backup_of_a_server_does_not_give_way_to_what_was_restored_from_it() -> None:
    """Who tries whether it can be restored takes nothing from it, even if that is begun with the same settings."""
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            store(server, 0)
            wait_until(lambda: received(server, backups))
            tried = Postgres(folder / "tried", log=folder / "tried.log")
            restore(tried, backups, None)
            try:
                store(server, 1)
                with backed_up(tried, backups) as said:
                    store(tried, 1000)
                    wait_until(lambda: bool(said))
                assert "Another `make run` keeps its backup in" in said[0]
            finally:
                tried.stop()
            store(server, 2)
            wait_until(lambda: received(server, backups))
            lost(server)
        restore(server, backups, None)
        assert found(server) == [0, 1, 2]


def test_a_backup_goes_on_in_a_new_copy_after_another_server_was_made_of_it() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            # The log of the other one could go on from the same file.
            store(server, 0)
            wait_until(lambda: received(server, backups))
            tried = Postgres(folder / "tried", log=folder / "tried.log")
            restore(tried, backups, None)
            store(server, 1)
            wait_until(lambda: received(server, backups))
        before = newest(backups)
        try:
            with backed_up(tried, backups):
                store(tried, 1000)
                wait_until(lambda: newest(backups) != before)
        finally:
            tried.stop()
        shutil.rmtree(tried.folder)
        assert before
        shutil.rmtree(max(backups.iterdir()))
        restore(tried, backups, None)
        try:
            assert found(tried) == [0, 1]
        finally:
            tried.stop()


@pytest.mark.parametrize("days", [*(pytest.param(days, marks=pytest.mark.long) for days in (-20_000, -3)), 3])
def test_a_clock_that_was_wrong_costs_no_backup(days: int) -> None:
    """It is ahead or behind while two copies are made, and then set right."""
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        before: list[Path | None] = [None]
        for number in range(2):
            with backed_up(server, backups):
                wait_until(lambda: newest(backups) not in before)
                store(server, number)
                wait_until(lambda: received(server, backups))
            days_later(backups)
            before.append(newest(backups))
        for each in sorted(backups.iterdir(), reverse=days > 0):
            moved(each, timedelta(days=days + 2))
        wrong = newest(backups)
        with backed_up(server, backups) as said:
            wait_until(lambda: newest(backups) != wrong)
            store(server, 2)
            wait_until(lambda: received(server, backups))
            # It looks twice a second whether there must be another.
            time.sleep(2)
            assert len(said) == 1
            assert len([*backups.iterdir()]) == 2
            lost(server)
        restore(server, backups, None)
        assert found(server) == [0, 1, 2]


def test_a_backup_that_somebody_removed_begins_anew() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
            store(server, 1)
            # It writes to a file that is open, and has no reason to look for another one.
            wait_until(lambda: received(server, backups))
            shutil.rmtree(backups)
            store(server, 2)
            wait_until(lambda: newest(backups) is not None)
            assert is_being_kept(backups)
            lost(server)
        restore(server, backups, None)
        assert found(server) == [1, 2]


def test_a_disk_that_is_not_there_any_more_has_no_backup_on_that_of_the_data() -> None:
    memory = Path("/dev/shm")
    with place(parent=DISK) as folder, serving(folder / "postgres") as server:
        if not memory.exists() or memory.stat().st_dev == folder.stat().st_dev:
            pytest.skip("there is no second disk")
        with place(parent=memory) as disk:
            disk.chmod(0o777)
            mount = folder / "mount"
            mount.symlink_to(disk)
            with backed_up(server, mount) as said:
                store(server, 1)
                wait_until(lambda: newest(mount) is not None)
                mount.unlink()
                mount.mkdir()
                server.process.send_signal(signal.SIGQUIT)
                server.process.wait()
                server.start()
                store(server, 2)
                wait_until(lambda: len(said) > 1)
                assert "was on a disk of its own, which is not there any more" in said[1]
                assert [*mount.iterdir()] == []
                mount.rmdir()
                mount.symlink_to(disk)
                wait_until(lambda: received(server, mount))
                lost(server)
            restore(server, mount, None)
            assert found(server) == [1, 2]


def refused_restore(folder: Path, *before: str) -> str:
    """What a restore says that ends before there is any data."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "local.restore"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": "functions:.",
            "BACKUP_DIR": str(folder / "elsewhere"),
            "DATA_DIR": str(folder / "to"),
        },
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 1
    assert [path.name for path in (folder / "to").iterdir()] == ["lock"]
    return done.stderr


def test_a_restore_that_cannot_be_done_says_so_in_a_sentence() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        backups = folder / "elsewhere"
        with backed_up(server, backups):
            wait_until(lambda: newest(backups) is not None)
        server.stop()
        base = next(backups.glob("*/base"))
        # As on a disk that is full.
        said = refused_restore(folder, "sh", "-c", 'ulimit -f 1000; exec "$@"', "sh")
        assert said.endswith("(File too large). Nothing was restored\n")
        assert said.count("\n") == 1
        (base / "lost").symlink_to("nowhere")
        assert refused_restore(folder).startswith(f"{base}/lost cannot be copied ([Errno 2] No such file or directory")
        (base / "PG_VERSION").write_text("17\n")
        said = refused_restore(folder)
        assert said.startswith(f"{base} was made by PostgreSQL 17, and this program brings PostgreSQL 18.")
        (base / "PG_VERSION").unlink()
        assert refused_restore(folder) == f"{base}/PG_VERSION cannot be used (No such file or directory)\n"


def test_a_restore_with_a_mask_that_hides_files_from_their_own_user() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with psycopg.connect(server.url(OWNER)) as connection:
            connection.execute("CREATE TABLE temperatures (timestamp timestamptz)")
        with backed_up(server, folder / "elsewhere"):
            wait_until(lambda: newest(folder / "elsewhere") is not None)
        # As on a disk that knows no modes.
        next((folder / "elsewhere").glob("*/base")).chmod(0o755)
        variables = {"BACKUP_DIR": str(folder / "elsewhere"), "DATA_DIR": str(folder / "Büro")}
        done = subprocess.run(
            [sys.executable, "-m", "local.restore"],
            cwd=ROOT,
            # A terminal that cannot show every name.
            env={**os.environ, "PYTHONPATH": "functions:.", "PYTHONIOENCODING": "ascii", **variables},
            capture_output=True,
            check=False,
            text=True,
            umask=0o777,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_restore_that_is_stopped_leaves_no_server_and_goes_on_with_the_next_start(number: signal.Signals) -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere"):
            store(server, 1)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
        returned, said = stopped_restore(folder / "elsewhere", folder / "to", number)
        code = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        assert (returned, said.partition(" Start it, and it goes on")[0]) == (code, "Stopped.")
        assert not (folder / "to" / "postgres" / "postmaster.pid").exists()
        with serving(folder / "to" / "postgres") as restored:
            assert found(restored) == [1]


def test_a_restore_is_alone_on_its_folder() -> None:
    """`make run` beside it would stop its server."""
    with place() as folder, held(folder / "to"):
        done = python("-m", "local.restore", BACKUP_DIR=str(folder / "elsewhere"), DATA_DIR=str(folder / "to"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Another `make run`, or a `make restore`, is at work on the folder {folder / 'to'}.")
