"""Starts: from the exec of a function until its first 2xx, against servers of nothing."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from statistics import median

import psutil
from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import READER, WRITER
from tests.support import ROOT

ROUNDS = 15
MILLION = 1_000_000
BY_COMMAND_LINE = "ingest, by functions-framework's own command"

COUNT_MODULES = "import sys; {load}; print(len(sys.modules))"
LOAD_FUNCTION = "import uvicorn; uvicorn.Config('functions_framework.aio:create_asgi_app', factory=True).load()"


def measure(scale: float) -> Iterator[Figure]:
    """Milliseconds, modules and memory of each function."""
    with stack.postgres() as postgres:
        servers: dict[str, Callable[[], AbstractContextManager[stack.Served]]] = {
            "uvicorn alone": _bare,
            "an empty function": lambda: stack.function("empty", folder=stack.BENCH),
            "ingest": lambda: stack.function("ingest", postgres.url(WRITER)),
            "average": lambda: stack.function("average", postgres.url(READER)),
            "simulate": lambda: stack.function("simulate"),
            BY_COMMAND_LINE: lambda: _by_command_line(postgres.url(WRITER)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        memory: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(max(2, round(ROUNDS * scale))):
            say(f"starts, round {number + 1}")
            for name, start in servers.items():
                with start() as served:
                    seconds[name].append(served.seconds)
                    memory[name].append(_megabytes(served))
        say("memory after a million readings")
        with servers["ingest"]() as served:
            requests = bodies.arrays(1_000, round(MILLION * min(scale, 1) / 1_000))
            outcome = load.run(served.port, iter(requests), connections=4, seconds=600)
            assert outcome.statuses.keys() == {HTTPStatus.CREATED}, outcome.statuses
            loaded = _megabytes(served)
    nothing = median(seconds["uvicorn alone"])
    yield Figure(
        "start",
        "From the exec of a function until its first 2xx",
        [
            {
                "server": name,
                "ms": 1000 * median(seconds[name]),
                "times uvicorn alone": median(seconds[name]) / nothing,
                "modules": "" if name == BY_COMMAND_LINE else _modules(name),
                "MB when idle": median(memory[name]),
                "MB after a million readings": loaded if name == "ingest" else "",
            }
            for name in servers
        ],
        _draw,
    )


def _bare() -> AbstractContextManager[stack.Served]:
    command = 'exec uvicorn bare:bare --host 127.0.0.1 --port "$PORT" --lifespan off --no-server-header --no-access-log'
    return stack.serve(["sh", "-c", f"{command} --app-dir {shlex.quote(str(stack.BENCH))}"], {})


def _by_command_line(url: str) -> AbstractContextManager[stack.Served]:
    command = 'exec functions-framework --asgi --signature-type http --host 127.0.0.1 --port "$PORT"'
    return stack.serve(["sh", "-c", command], {**stack.target("ingest"), "DATABASE_URL": url})


def _megabytes(served: stack.Served) -> float:
    process = psutil.Process(served.process.pid)
    return float(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])) / 1e6


def _modules(name: str) -> int:
    """How many modules are loaded when the server is ready."""
    if name == "uvicorn alone":
        environment, loading = {}, "import uvicorn; uvicorn.Config('bench.functions.bare:bare').load()"
    elif name == "an empty function":
        environment, loading = stack.target("empty", stack.BENCH), LOAD_FUNCTION
    else:
        environment, loading = stack.target(name), LOAD_FUNCTION
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_MODULES.format(load=loading)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=stack.environment(environment),
        text=True,
    )
    return int(counted.stdout)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    axes.barh([row["server"] for row in rows], [row["ms"] for row in rows], label="exec to first 2xx")
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
