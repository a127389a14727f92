"""A backup of the embedded PostgreSQL that is kept while a test runs, and a disk that is lost."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from local.backup import Backup
from local.postgres import Postgres


@contextmanager
def backed_up(server: Postgres, folder: Path) -> Iterator[list[str]]:
    """Keep a backup of the server; yields what is said."""
    said: list[str] = []
    stopping = threading.Event()
    kept = Backup(server, folder, said.append)
    keeper = threading.Thread(target=kept.keep, args=(stopping,))
    keeper.start()
    try:
        yield said
    finally:
        stopping.set()
        keeper.join()
        kept.end()


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
