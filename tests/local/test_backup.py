"""What is stored can be brought back from another disk, to the last second, and to an instant before."""

import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from local.backup import Backup, newest, restore
from local.postgres import Postgres
from local.user import PostgresError
from tests.local.machine import place, serving
from tests.support import wait_until


@contextmanager
def backed_up(server: Postgres, folder: Path) -> Iterator[list[str]]:
    """Keep a backup of the server; yields what is said."""
    said: list[str] = []
    stopping = threading.Event()
    backup = Backup(server, folder, said.append)
    keeper = threading.Thread(target=backup.keep, args=(stopping,))
    keeper.start()
    try:
        yield said
    finally:
        stopping.set()
        keeper.join()
        backup.end()


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


def received(server: Postgres, folder: Path) -> bool:
    """Whether all that is stored is in a whole backup: a server that was restored may need a new one."""
    statement = "SELECT FROM pg_stat_replication WHERE flush_lsn >= pg_current_wal_flush_lsn()"
    with psycopg.connect(server.url()) as connection:
        return all((each / "base").exists() for each in folder.iterdir()) and bool(
            connection.execute(statement).rowcount
        )


def lost(server: Postgres) -> None:
    """The machine's disk, and the server with it."""
    server.process.kill()
    server.process.wait()
    shutil.rmtree(server.folder)


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
                if last_file_is_full if number == 39 else chance.random() < 0.1:
                    # A file of the log is full.
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


def test_what_went_wrong_can_be_left_out() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere"):
            store(server, 1)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            # The name of a backup has whole seconds.
            time.sleep(1.1)
            store(server, 2)
            until = datetime.now(UTC)
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("DELETE FROM stored")
            server.stop()
        shutil.rmtree(server.folder)
        restore(server, folder / "elsewhere", until)
        assert found(server) == [1, 2]


def test_a_backup_goes_on_over_the_end_of_the_server_and_of_what_writes_it() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        with backed_up(server, folder / "elsewhere") as said:
            store(server, 1)
            wait_until(lambda: newest(folder / "elsewhere") is not None)
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait()
            server.start()
            store(server, 2)
            # The program that takes the log is looked at each second.
            time.sleep(3)
            store(server, 3)
            server.stop()
        assert [line.split()[0] for line in said] == ["Backup"] * len(said)
        shutil.rmtree(server.folder)
        restore(server, folder / "elsewhere", None)
        assert found(server) == [1, 2, 3]


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
