"""What is measured: the functions as their image serves them, and the database that `make run` brings."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from local.postgres import OWNER, Postgres
from tests.support import ROOT, Urls, alembic, embedded, free_port, migrate, timescale

WORKPLACE = ROOT / "build" / "bench"
"""On a disk like that of `make run`: the folder for temporary files is memory on some systems."""
BENCH = Path(__file__).parent / "functions"


@dataclass(frozen=True)
class Served:
    """A function at a port of 127.0.0.1."""

    port: int
    process: "subprocess.Popen[bytes]"
    seconds: float
    """From the exec of the server until the first 2xx."""


@contextmanager
def postgres() -> Iterator[Postgres]:
    """An embedded PostgreSQL with the newest schema and no readings."""
    folder = WORKPLACE / "postgres"
    # Of a run that was cut off.
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with embedded(folder, log=WORKPLACE / "postgres.log") as server:
        yield server


@contextmanager
def migrated(urls: Urls) -> Iterator[None]:
    """The newest schema in a database of somebody else, from which it goes again."""
    migrate(urls(OWNER))
    yield
    alembic(urls(OWNER), "downgrade", "base")


@contextmanager
def databases() -> Iterator[dict[str, tuple[Urls, "subprocess.Popen[bytes] | None"]]]:
    """An embedded PostgreSQL, and the TimescaleDB server at TIMESCALE_URL if it is set, with the newest schema.

    Each has its URLs, and its process if it is one of ours.
    """
    with ExitStack() as opened:
        server = opened.enter_context(postgres())
        found: dict[str, tuple[Urls, subprocess.Popen[bytes] | None]] = {"PostgreSQL": (server.url, server.process)}
        if url := os.environ.get("TIMESCALE_URL"):
            urls = opened.enter_context(timescale(url))
            opened.enter_context(migrated(urls))
            found["TimescaleDB"] = urls, None
        yield found


def empty(urls: Urls) -> None:
    """Remove all readings, so that each run starts with the same table."""
    with psycopg.connect(urls(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures")


def function(name: str, url: str = "") -> AbstractContextManager[Served]:
    """Serve a function of the product, or one of those here, with the command of the image."""
    return serve(command(), target(name, url))


def target(name: str, url: str = "") -> dict[str, str]:
    """The variables that tell functions-framework which function it is to serve, and that where its database is."""
    ours = BENCH / f"{name}.py"
    source = ours if ours.exists() else ROOT / "functions" / name / "main.py"
    return {"FUNCTION_TARGET": name, "FUNCTION_SOURCE": str(source), "DATABASE_URL": url}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: the packages of this one, the modules of the functions, and the variables."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'functions'}",
        **variables,
    }


@contextmanager
def serve(
    command: Sequence[str], variables: Mapping[str, str], *, port: int = 0, log: Path = WORKPLACE / "functions.log"
) -> Iterator[Served]:
    """Run a server that listens at PORT, any free one if not said, from its exec until the end of the context."""
    port = port or free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment({**variables, "PORT": str(port)}),
            stdout=output,
            stderr=output,
        )
    try:
        _wait_for_2xx(port, process, log)
        yield Served(port, process, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def processor_seconds(*processes: "subprocess.Popen[bytes]") -> Iterator[list[float]]:
    """What each process with its children uses of a processor within the context; known at its end."""
    before = [_used(process) for process in processes]
    used: list[float] = []
    yield used
    used += [_used(process) - start for process, start in zip(processes, before, strict=True)]


def _used(process: "subprocess.Popen[bytes]") -> float:
    used = 0.0
    for each in family(process):
        with suppress(psutil.NoSuchProcess):
            used += sum(each.cpu_times()[:2])
    return used


def megabytes(served: Served) -> float:
    """The resident memory of a server and its children."""
    return float(sum(each.memory_info().rss for each in family(served.process))) / 1e6


def family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """A process and those that it started; some of PostgreSQL's come and go by themselves."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def command() -> list[str]:
    """The command of the image, on this machine only."""
    (found,) = re.findall("^CMD (.*)$", (ROOT / "functions" / "Dockerfile").read_text(), re.MULTILINE)
    return [part.replace("0.0.0.0", "127.0.0.1") for part in json.loads(found)]  # noqa: S104 - not listened at


def _wait_for_2xx(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                if connection.recv(16).startswith(b"HTTP/1.1 2"):
                    return
        except ConnectionError:
            time.sleep(0.001)
    raise SystemExit(f"A function ended by itself; {log} says why")
