"""What tests of every kind need: programs, databases, ports, patience."""

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psycopg
import pytest
from alembic import command
from hypothesis import HealthCheck, settings
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

import migrations.__main__ as migrations
from local.postgres import ADMIN, DATABASE, MONITOR, OWNER, PROGRAMS, READER, WATCHER, WRITER, Postgres
from migrations.edition import Edition
from migrations.jobs import ENABLE_COLUMNSTORE

ROOT = Path(__file__).parent.parent
Found = TypeVar("Found")
SUPERUSER = "postgres"
Urls = Callable[[str], str]
"""The connection string for a role."""
LONG = bool(os.environ.get("TORTURE"))
"""Whether the time does not matter: more inputs, longer faults."""
ANY_CLOCK = {"EARLIEST_TIMESTAMP": "0001-01-01T00:00:00Z", "MOST_AHEAD_HOURS": "100000000"}
"""Settings of `ingest` with which every timestamp is taken, whatever clock it is of."""
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
"""What users and developers read."""
SERVERS_PORTS = range(15_000, 30_000)
"""Where tests start servers: no system gives these ports to a client."""
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
"""Where there is no database."""
_ROOM_BYTES = 4 * 1024**3
"""Of the databases of a run, several times over."""


def _memory() -> Path | None:
    folder = Path("/dev/shm")
    if sys.platform != "linux" or not folder.exists():
        return None
    found = os.statvfs(folder)
    # In a container it is small by default, and no library can be loaded from it.
    is_usable = found.f_bavail * found.f_frsize >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC
    return folder if is_usable else None


MEMORY = _memory()
"""A folder in memory for databases, where there is one. They are made and dropped by the hundred, a thousand files a
second. ext4 gets ever slower by that: it passes over each inode that was in use less than five seconds ago."""


def leave_out(name: str) -> NoReturn:
    """Skip the test for want of a program of the system; in CI fail it."""
    assert "CI" not in os.environ, f"{name} was not found, and CI leaves no test out"
    pytest.skip(f"{name} was not found")


def program(name: str) -> str:
    """The path of a program of the system, which the tests that need it are skipped without; in CI they fail then."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or leave_out(name)


def examples(number: int) -> settings:
    """How many inputs a test makes up: the number, or ten times as many where TORTURE is set."""
    return settings(
        max_examples=number * (10 if LONG else 1),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def wait_until(condition: Callable[[], Found], *, seconds: float = 20, otherwise: str = "") -> Found:
    """Ask until the answer is true, and return it; the test fails with the words where that takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, otherwise or f"it is not so after {seconds} seconds"
        time.sleep(0.01)
    return found


async def turns_beside(work: Awaitable[object]) -> int:
    """How many turns others get in the event loop until the work is done."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    serving = asyncio.create_task(others())
    await work
    serving.cancel()
    return turns


def wait_for_locks(urls: "Urls", sessions: int = 1) -> None:
    """Wait until so many sessions of the database wait for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as observer:
        wait_until(lambda: observer.execute(waiting).rowcount >= sessions)


def remove(
    connection: psycopg.Connection[Any],
    place: tuple[str, str],
    since: datetime,
    before: datetime,
    above: float | None = None,
) -> None:
    """Remove readings of a room, those above a temperature or all, which may come again."""
    [(removal,)] = connection.execute(
        "SELECT begin_removal(%s, %s, %s, %s, %s, NULL, 'who', NULL, interval '0')", (*place, since, before, above)
    )
    finished = "SELECT is_finished FROM continue_removal(%s)"
    wait_until(lambda: connection.execute(finished, (removal,)).fetchone() == (True,))


def slow_down(connection: psycopg.Connection[Any], what: str, seconds: float) -> None:
    """Have each statement take longer that is `what`, such as `INSERT ON room_hours`: as on a busy machine."""
    body = f"BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END"
    connection.execute(f"CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$".encode())
    connection.execute(f"CREATE TRIGGER slow BEFORE {what} EXECUTE FUNCTION pause()".encode())


@contextmanager
def unconfirmed(urls: Urls) -> Iterator[None]:
    """Commits wait for a standby that there is not, and somebody ends each of these waits."""
    over = threading.Event()

    def end_waits() -> None:
        with psycopg.connect(urls(SUPERUSER), autocommit=True) as connection:
            while not over.wait(0.02):
                connection.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser, ThreadPoolExecutor(1) as pool:
        superuser.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        superuser.execute("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: superuser.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
            ending = pool.submit(end_waits)
            yield
        finally:
            superuser.execute("ALTER SYSTEM RESET synchronous_standby_names")
            superuser.execute("SELECT pg_reload_conf()")
            over.set()
    ending.result()


def free_port() -> int:
    """A port of this machine that nobody listens at.

    The system gives the ports from 32,768 on (Linux) or 49,152 on (macOS) to any client that connects. A port among
    them may be taken before a server has begun to listen at it.
    """
    while listens(port := secrets.choice(SERVERS_PORTS)):
        pass
    return port


def listens(place: int | Path) -> bool:
    """Whether somebody listens at a port of 127.0.0.1, or at a socket."""
    ports = isinstance(place, int)
    with socket.socket(socket.AF_INET if ports else socket.AF_UNIX) as client:
        return client.connect_ex(("127.0.0.1", place) if ports else str(place)) == 0


def migrate(url: str) -> Edition:
    """Run the migrations as an operator does."""
    with _database(url):
        return migrations.main()


def compress(owner: psycopg.Connection[Any]) -> None:
    """Put the readings of every chunk into TimescaleDB's columnstore, those too that came after the last time."""
    owner.execute(ENABLE_COLUMNSTORE)
    owner.execute("SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('temperatures') AS chunk")


def alembic(url: str, name: str, *arguments: str) -> None:
    """Run a command of Alembic."""
    with _database(url):
        getattr(command, name)(migrations.config(), *arguments)


@contextmanager
def _database(url: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        yield


@contextmanager
def embedded(folder: Path, *, log: Path, programs: Path = PROGRAMS) -> Iterator[Postgres]:
    """An embedded PostgreSQL with the newest schema and no readings; its folder is gone in the end."""
    server = Postgres(folder, log=log, programs=programs)
    try:
        server.start()
        migrate(server.url(OWNER))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def copied(server: Postgres, name: str, template: str = DATABASE) -> Iterator[Urls]:
    """A database of its own on the server, until the end of the context: by default migrated and empty."""
    with psycopg.connect(server.url(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}")
        yield lambda role: server.url(role, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TimescaleMissing(Exception):
    """There is no TimescaleDB; the message says how to get one."""


@contextmanager
def timescale(url: str | None) -> Iterator[Urls]:
    """TimescaleDB's community edition: the server at the URL (as superuser), or one in WebAssembly under Node.

    It has the roles of the product and no schema yet. Raises TimescaleMissing.
    """
    folder = ROOT / "tests" / "timescale" / "server"
    if url:
        yield _prepared(lambda role: make_conninfo(url, user=role) if role != SUPERUSER else url)
        return
    if not ((node := shutil.which("node")) and (folder / "node_modules").exists()):
        raise TimescaleMissing("TimescaleDB needs Node.js (`make install` installs the rest), or TIMESCALE_URL")
    with subprocess.Popen([node, folder / "server.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin and server.stdout
        port = json.loads(server.stdout.readline())["port"]
        yield _prepared(lambda role: f"postgresql://{role}:postgres@127.0.0.1:{port}/postgres?sslmode=disable")
        server.stdin.close()


def _prepared(urls: Urls) -> Urls:
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        # Jobs are run where they are wanted: one refresh refuses another at the same time.
        connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
        for role in (OWNER, WRITER, READER, WATCHER, ADMIN, MONITOR):
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'postgres'")
        connection.execute(f"GRANT CREATE ON SCHEMA public TO {OWNER}")
    return urls


def post_in_parts(client: TestClient, parts: Iterable[bytes], **headers: str) -> tuple[int, Any]:
    """The status and the JSON of the answer to a body that comes in these parts; TestClient would join them."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    answered: list[dict[str, Any]] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answered.append(message)

    sent = {"transfer-encoding": "chunked"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }
    assert client.portal is not None, "the client must be entered: its function has a loop then"
    client.portal.call(client.app, scope, receive, send)
    assert not messages, "the body was not read to its end"
    return answered[0]["status"], json.loads(b"".join(message.get("body", b"") for message in answered))


def without_locks(folder: Path) -> str:
    """The PYTHONPATH with which Python finds no locks in any file system; the folder gets what that takes."""
    (folder / "sitecustomize.py").write_text(
        "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOLCK, 'no locks')\nfcntl.flock = flock\n"
    )
    return f"{folder}:functions:."


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the root of the project, as the README has users do, with these variables set."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "functions:.", **environment},
        text=True,
    )
