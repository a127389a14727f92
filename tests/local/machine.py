"""The embedded PostgreSQL in a process of its own, as any user, and what is at work on a folder."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.postgres import Postgres
from tests.stack import Stack
from tests.support import MEMORY, ROOT

DAEMON = pwd.getpwnam("daemon").pw_uid
DISK = Path("/tmp")
"""Where everybody may write; memory too, on some systems."""
NOBODY = pwd.getpwnam("nobody").pw_uid
ROOTED = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
START = """
import json, os, sys
from pathlib import Path
import psycopg
from local.postgres import Postgres
folder = Path(os.fsencode(sys.argv[1]).decode(errors="surrogateescape"))
server = Postgres(folder, log=folder.with_name("postgres.log"), tell=lambda line: print(line, file=sys.stderr))
server.start()
with psycopg.connect(server.url()) as connection:
    asked = "timezone", "log_timezone", "client_encoding"
    told = [connection.execute(f"SHOW {each}").fetchone()[0] for each in asked]
    collation = connection.execute("SELECT datcollate FROM pg_database WHERE datname = current_database()").fetchone()
with open(f"/proc/{server.process.pid}/environ", "rb") if sys.platform == "linux" else open(os.devnull, "rb") as file:
    environment = file.read().decode().split("\\0")
uid = os.stat(folder).st_uid
server.stop()
print(json.dumps({"told": told, "collation": collation, "environment": environment, "uid": uid}))
"""


def start(
    folder: Path, *, user: Any = 0, before: Any = (), umask: Any = -1, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Start a server on the folder and stop it again, as the user with the number."""
    who: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    interpreter, packages = python_of_all() if user else (sys.executable, "")
    path = ":".join(filter(None, (environment.pop("PYTHONPATH", ""), str(ROOT / "functions"), str(ROOT), packages)))
    return subprocess.run(
        [*before, interpreter, "-B", "-c", START, folder],
        capture_output=True,
        check=False,
        cwd="/",
        env={**os.environ, **environment, "PYTHONPATH": path},
        text=True,
        umask=umask,
        timeout=60,
        **who,
    )


def python_of_all() -> tuple[str, str]:
    """An interpreter that every user may run, and the folder of its packages; that of root is in his home at times."""
    packages = sysconfig.get_path("purelib")
    for found in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                [found, "-c", "import pydantic_core, starlette"],
                env={"PYTHONPATH": packages},
                user=DAEMON,
                check=True,
                capture_output=True,
            )
            return found, packages
    pytest.skip("there is no Python of this version that every user may run")


def answer(done: "subprocess.CompletedProcess[str]") -> Any:
    """What the server said of itself."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The sentence with which a start was refused."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


@contextmanager
def place(mode: int = 0o755, parent: Path = MEMORY or DISK) -> Iterator[Path]:
    """A folder that every user gets to, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="temperature-test-", dir=parent))
    try:
        folder.chmod(mode)
        yield folder
    finally:
        if list(folder.rglob("postmaster.pid")):
            end_all(folder)
        shutil.rmtree(folder)


@contextmanager
def serving(folder: Path) -> Iterator[Postgres]:
    """A server on the folder, in this process."""
    server = Postgres(folder, log=folder.with_name("postgres.log"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def running(folder: Path, who: Any = None, **environment: str) -> Iterator[Stack]:
    """`make run` on the folder, by whom the arguments of subprocess say."""
    if who:
        environment["INTERPRETER"], packages = python_of_all()
        environment["PYTHONPATH"] = f"functions:.:{packages}"
    stack = Stack(folder, None, who, **environment)
    with stack.process:
        try:
            yield stack
        finally:
            stack.stop()


def end_all(folder: Path) -> None:
    """End every process of PostgreSQL that works below the folder, as a loss of power does."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() in {"postgres", "initdb"} and str(folder) in f"{process.cwd()} {process.cmdline()}":
                process.send_signal(signal.SIGKILL)
                process.wait(10)
