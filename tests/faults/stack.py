"""What faults are done to: PostgreSQL, a network, and the functions as their image serves them."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from bench.stack import Served, command, family, megabytes, serve, target
from local.postgres import OWNER, READER, WRITER, Postgres
from tests.faults.link import Link
from tests.support import embedded, free_port

DEADLINE = 1
"""DEADLINE_SECONDS of the functions, so that what takes longer need not take long."""
ROLES = {"ingest": WRITER, "average": READER}


class Stack:
    """The parts, each of which can be hurt and mended."""

    def __init__(self, folder: Path, variables: Mapping[str, str], parts: ExitStack) -> None:
        self.postgres: Postgres = parts.enter_context(embedded(folder / "postgres", log=folder / "postgres.log"))
        self.link = Link(self._socket)
        parts.callback(self.link.close)
        self._parts = parts
        self._folder = folder
        self._variables = variables
        self._ports = {name: free_port() for name in ROLES}
        self._served: dict[str, Served] = {}
        for name in ROLES:
            self.start(name)

    @classmethod
    @contextmanager
    def running(cls, folder: Path, **variables: str) -> Iterator[Self]:
        """All parts, working; the functions have the variables."""
        with ExitStack() as parts:
            yield cls(folder, variables, parts)

    def start(self, name: str) -> None:
        """Start a function, at the address that it had before."""
        url = f"postgresql://{ROLES[name]}@127.0.0.1:{self.link.port}/temperature?sslmode=disable"
        variables = {**target(name, url), "DEADLINE_SECONDS": str(DEADLINE), **self._variables}
        served = serve(command(), variables, port=self._ports[name], log=self._folder / f"{name}.log")
        self._served[name] = self._parts.enter_context(served)

    def address(self, name: str) -> str:
        """Where a function is."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def end(self, name: str, number: signal.Signals) -> int:
        """End a function with a signal, and return its exit code."""
        process = self._served[name].process
        process.send_signal(number)
        return process.wait(30)

    def megabytes(self, name: str) -> float:
        """The resident memory of a function."""
        return megabytes(self._served[name])

    def log(self, name: str) -> str:
        """What a function, or `postgres`, wrote."""
        return (self._folder / f"{name}.log").read_text()

    def kill_postgres(self) -> None:
        """End PostgreSQL as a loss of power does, as far as it can notice."""
        self.signal_postgres(signal.SIGKILL)
        self.postgres.process.wait()

    def signal_postgres(self, number: signal.Signals) -> None:
        """Send a signal to every process of PostgreSQL."""
        for process in family(self.postgres.process):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @contextmanager
    def connected(self, role: str = OWNER) -> Iterator[psycopg.Connection]:
        """A connection that no fault is between."""
        with psycopg.connect(self.postgres.url(role), autocommit=True) as connection:
            yield connection

    def _socket(self) -> Path:
        (folder,) = parse_qs(urlsplit(self.postgres.url()).query)["host"]
        return Path(folder) / ".s.PGSQL.5432"
