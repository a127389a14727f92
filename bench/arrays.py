"""Many readings to a request: `ingest` against COPY, which neither validates, nor deduplicates, nor speaks HTTP."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

import psycopg
from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, WRITER
from tests.support import Urls

SIZES = (10, 100, 1_000, 10_000)
BATCH = 1_000
CONNECTIONS = (1, 4)
SECONDS, ROUNDS = 1.0, 5
FASTEST = 400_000
"""Readings per second for which bodies are made beforehand; a run ends when they are used up."""


def measure(scale: float) -> Iterator[Figure]:
    """Readings per second over the number of readings in a request or COPY."""
    kinds = [(f"array of {size:,}", size, bodies.arrays) for size in SIZES]
    kinds.append((f"batch of {BATCH:,} CloudEvents", BATCH, bodies.batches))
    rows: list[Row] = []
    with stack.databases() as databases:
        for database, (urls, process) in databases.items():
            with (
                stack.function("ingest", urls(WRITER)) as ingest,
                psycopg.connect(urls(OWNER), autocommit=True) as owner,
            ):
                for body, size, make in kinds:
                    say(f"{database}: requests: {body}")
                    requests = make(size, max(CONNECTIONS[-1], int(FASTEST * SECONDS * scale / size)))
                    measured = _measured(ingest, process, urls, owner, requests, size, scale)
                    rows.append({"database": database, "request": body, **measured})
    yield Figure("arrays", "Arrays of readings over HTTP, and COPY of as many rows", rows, _draw)


def _measured(
    ingest: stack.Served,
    postgres: "subprocess.Popen[bytes] | None",
    urls: Urls,
    owner: "psycopg.Connection[tuple[object, ...]]",
    requests: Sequence[bytes],
    size: int,
    scale: float,
) -> Row:
    rates: dict[str, list[float]] = {}
    costs: list[list[float]] = []
    seconds = SECONDS * scale
    for _ in range(max(1, round(ROUNDS * scale))):
        for connections in CONNECTIONS:
            stack.empty(urls)
            with stack.processor_seconds(*filter(None, (ingest.process, postgres))) as used:
                outcome = load.run(ingest.port, iter(requests), connections=connections, seconds=seconds)
            rates.setdefault(f"over {connections}", []).append(outcome.rate * size)
        costs.append([each * 1e6 / (len(outcome.latencies) * size) for each in used])
        for form in ("TEXT", "BINARY"):
            stack.empty(urls)
            rates.setdefault(form, []).append(_copy(owner, form, size, seconds))
    ingest_cost, *database_cost = (median(each) for each in zip(*costs, strict=True))
    one, several, text, binary = (median(measured) for measured in rates.values())
    return {
        "readings/s over 1 connection": one,
        f"over {CONNECTIONS[1]}": several,
        "text COPY/s": text,
        "binary COPY/s": binary,
        "1 connection, of text COPY": one / text,
        f"{CONNECTIONS[1]}, of text COPY": several / text,
        f"{CONNECTIONS[1]}, of binary COPY": several / binary,
        "µs of a processor each: ingest": ingest_cost,
        "PostgreSQL": database_cost[0] if database_cost else "",
    }


def _copy(connection: "psycopg.Connection[tuple[object, ...]]", form: str, size: int, seconds: float) -> float:
    """Rows per second that one connection copies, `size` at a time, each time with a commit."""
    batches = [[_row(batch * size + row) for row in range(size)] for batch in range(int(FASTEST * seconds / size))]
    copied = 0
    started = time.perf_counter()
    with connection.cursor() as cursor:
        for batch in batches:
            with cursor.copy(f"COPY temperatures FROM STDIN (FORMAT {form})") as copy:
                copy.set_types(["text", "text", "timestamptz", "float8"])
                for row in batch:
                    copy.write_row(row)
            copied += size
            if time.perf_counter() - started > seconds:
                break
    return copied / (time.perf_counter() - started)


def _row(number: int) -> tuple[str, str, datetime, float]:
    room = number % bodies.ROOMS
    instant = datetime.fromtimestamp(number / 1_000_000, UTC)
    return f"B{room % 5}", str(room), instant, room % 30 + number % 10 / 10


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    arrays = [row for row in rows if row["database"] == "PostgreSQL" and row["request"].startswith("array")]
    sizes = [row["request"].removeprefix("array of ") for row in arrays]
    for column, label in (
        ("binary COPY/s", "binary COPY"),
        ("text COPY/s", "text COPY"),
        (f"over {CONNECTIONS[1]}", f"ingest, {CONNECTIONS[1]} connections"),
        ("readings/s over 1 connection", "ingest, 1 connection"),
    ):
        axes.plot(sizes, [row[column] for row in arrays], marker="o", label=label)
    axes.set_xlabel("readings in a request, rows in a COPY")
    axes.set_ylabel("readings per second")
    axes.set_ylim(bottom=0)
