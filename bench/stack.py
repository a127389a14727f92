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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from local.postgres import OWNER, Postgres
from tests.support import ROOT, migrate

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
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    server = Postgres(folder, log=WORKPLACE / "postgres.log")
    try:
        server.start()
        migrate(server.url(OWNER))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def function(name: str, url: str = "", *, folder: Path = ROOT / "functions") -> Iterator[Served]:
    """Serve a function with the command of its image, its database at the URL."""
    with serve(_command(), {**target(name, folder), "DATABASE_URL": url}) as served:
        yield served


def target(name: str, folder: Path = ROOT / "functions") -> dict[str, str]:
    """The variables that tell functions-framework which function it is to serve."""
    source = BENCH / f"{name}.py" if folder == BENCH else folder / name / "main.py"
    return {"FUNCTION_TARGET": name, "FUNCTION_SOURCE": str(source)}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: the packages of this one, the modules of the functions, and the variables."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'functions'}",
        **variables,
    }


@contextmanager
def serve(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Served]:
    """Run a server that listens at PORT, from its exec until the end of the context."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    log = WORKPLACE / "functions.log"
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
        _wait_for_2xx(port, process)
        yield Served(port, process, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def processor_seconds(pid: int) -> float:
    """Seconds of a processor that a process and its children have used."""
    process = psutil.Process(pid)
    return float(sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)]))


def _command() -> list[str]:
    """The command of the image, on this machine only."""
    (command,) = re.findall("^CMD (.*)$", (ROOT / "functions" / "Dockerfile").read_text(), re.MULTILINE)
    return [part.replace("0.0.0.0", "127.0.0.1") for part in json.loads(command)]  # noqa: S104 - not listened at


def _wait_for_2xx(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                if connection.recv(16).startswith(b"HTTP/1.1 2"):
                    return
        except ConnectionError:
            time.sleep(0.001)
    raise SystemExit(f"A function ended by itself; {WORKPLACE / 'functions.log'} says why")
