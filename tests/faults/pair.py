"""Two PostgreSQL servers, of which one is to have all that the other acknowledges, and a network between them."""

import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import psutil

from bench.stack import family
from local.postgres import Postgres
from tests.faults.link import Link
from tests.faults.stack import Stack
from tests.support import wait_until

SETTINGS = {
    # Whoever follows confirms. Nobody acknowledges anything alone: as Patroni's synchronous_mode_strict.
    "synchronous_standby_names": "*",
    # A standby that was away for long finds what it missed, at once.
    "wal_keep_size": "1GB",
    "wal_retrieve_retry_interval": "100ms",
}


class Pair(Stack):
    """A Stack whose `postgres` is the primary of two; the functions always find the one that is primary."""

    def __init__(self, folder: Path, variables: Mapping[str, str], parts: ExitStack) -> None:
        super().__init__(folder, {"COPIES": "2", **variables}, parts)
        self.replication = Link(self._socket)
        parts.callback(self.replication.close)
        self._numbers = count(1)
        self._standby: Postgres | None = None
        with self.connected("postgres") as connection:
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
        parts.callback(self._stop_both)
        self.join()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, **variables: str) -> Iterator[Self]:
        """All parts, working; the functions have the variables."""
        with ExitStack() as parts:
            yield cls(folder, variables, parts)

    @property
    def standby(self) -> Postgres:
        """The server that follows."""
        assert self._standby
        return self._standby

    def join(self) -> None:
        """Have another server follow the primary, and wait until it confirms what it has."""
        number = next(self._numbers)
        folder = self._folder / f"standby-{number}"
        folder.mkdir(mode=0o700)
        self.postgres.give(folder)
        (host,) = parse_qs(urlsplit(self.postgres.url()).query)["host"]
        copied = self.postgres.program(
            "pg_basebackup", "-D", folder, "-h", host, "-U", "postgres", "-X", "stream", "-c", "fast"
        )
        assert copied.returncode == 0, copied.stderr
        source = f"host=127.0.0.1 port={self.replication.port} user=postgres sslmode=disable"
        with (folder / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{source}'\n")
        (folder / "standby.signal").touch()
        self._standby = Postgres(folder, log=self._folder / "postgres.log")
        self._standby.start()
        self._wait_until_it_confirms()

    def fail_over(self) -> None:
        """Lose the primary with its disk, have the other one take over, and a new one follow that."""
        self.kill_postgres()
        # Its sockets.
        self.postgres.stop()
        shutil.rmtree(self.postgres.folder)
        self.postgres, self._standby = self.standby, None
        with self.connected("postgres") as connection:
            connection.execute("SELECT pg_promote()")
        # Who was connected to what is gone now learns of it, as where a machine is gone.
        self.link.reset()
        self.replication.resume()
        self.join()

    def signal_standby(self, number: signal.Signals) -> None:
        """Send a signal to every process of the standby."""
        for process in family(self.standby.process):
            process.send_signal(number)

    def of_those_that_wait(self, function: str) -> int:
        """Call a function of PostgreSQL on each backend that waits for the standby; return how many there were."""
        with self.connected("postgres") as connection:
            found = connection.execute(f"SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            return found.rowcount

    def _wait_until_it_confirms(self) -> None:
        follows = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"
        with self.connected("postgres") as connection:
            wait_until(
                lambda: connection.execute(follows).rowcount, seconds=30, otherwise="the standby does not follow"
            )

    def _stop_both(self) -> None:
        # The one that is primary in the end was not always.
        for server in (self._standby, self.postgres):
            if server:
                for process in _processes(server):
                    process.kill()
                server.stop()


def _processes(server: Postgres) -> list[psutil.Process]:
    return family(server.process) if server.process.poll() is None else []
