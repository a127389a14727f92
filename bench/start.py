"""Starts: from the exec of a function until its first 2xx, against servers of nothing."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from statistics import median

from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import READER, WRITER
from tests.support import ROOT

ROUNDS = 15
MILLION = 1_000_000
BY_COMMAND_LINE = "ingest, by functions-framework's own command"
UVICORN = "--lifespan off --no-server-header --no-access-log"

LOAD_FUNCTION = "from shared import server; server.configuration(server.application()).load()"
LOAD_BARE = "import uvicorn; uvicorn.Config('bench.functions.bare:bare').load()"


def measure(scale: float) -> Iterator[Figure]:
    """Milliseconds, modules and memory of each function."""
    with stack.postgres() as postgres:
        ingest = stack.target("ingest", postgres.url(WRITER))
        servers: dict[str, tuple[list[str], dict[str, str]]] = {
            "uvicorn alone": (_shell(f"uvicorn bare:bare --app-dir {shlex.quote(str(stack.BENCH))} {UVICORN}"), {}),
            "an empty function": (stack.command(), stack.target("empty")),
            "ingest": (stack.command(), ingest),
            "average": (stack.command(), stack.target("average", postgres.url(READER))),
            "simulate": (stack.command(), stack.target("simulate")),
            BY_COMMAND_LINE: (_shell("functions-framework --asgi --signature-type http"), ingest),
        }
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        memory: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(max(1, round(ROUNDS * scale))):
            say(f"starts, round {number + 1}")
            for name, (command, variables) in servers.items():
                with stack.serve(command, variables) as served:
                    seconds[name].append(served.seconds)
                    memory[name].append(stack.megabytes(served))
        say("memory after a million readings")
        with stack.serve(*servers["ingest"]) as served:
            requests = bodies.arrays(1_000, round(MILLION * min(scale, 1) / 1_000))
            load.run(served.port, iter(requests), connections=4, seconds=600)
            loaded = stack.megabytes(served)
    nothing = median(seconds["uvicorn alone"])
    yield Figure(
        "start",
        "From the exec of a function until its first 2xx",
        [
            {
                "server": name,
                "ms": 1000 * median(seconds[name]),
                "times uvicorn alone": median(seconds[name]) / nothing,
                "modules": "" if name == BY_COMMAND_LINE else _modules(variables),
                "MB when idle": median(memory[name]),
                "MB after a million readings": loaded if name == "ingest" else "",
            }
            for name, (_, variables) in servers.items()
        ],
        _draw,
    )


def _shell(server: str) -> list[str]:
    return ["sh", "-c", f'exec {server} --host 127.0.0.1 --port "$PORT"']


def _modules(variables: dict[str, str]) -> int:
    """How many modules are loaded when the server with these variables is ready."""
    load = LOAD_FUNCTION if variables else LOAD_BARE
    counted = subprocess.run(
        [sys.executable, "-c", f"import sys; {load}; print(len(sys.modules))"],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=stack.environment(variables),
        text=True,
    )
    return int(counted.stdout)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    axes.barh([row["server"] for row in rows], [row["ms"] for row in rows], label="exec to first 2xx")
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
