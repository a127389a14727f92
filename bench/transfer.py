"""Many readings out and in: downloads against COPY TO, and `make import` against COPY into a table without an index."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psycopg
from matplotlib.axes import Axes

from bench import stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, READER, WRITER
from tests.support import ROOT

READINGS, ROOMS, ROUNDS = 1_000_000, 20, 3
FIRST = datetime(2024, 12, 1, tzinfo=UTC)
QUESTION = "/v1/temperature/readings?building_id=B1&start=2024-12-01T00:00:00Z&end=2025-12-01T00:00:00Z&format="
COPY_TO = """
    COPY (SELECT * FROM temperatures ORDER BY building_id, room_id, timestamp, temperature) TO STDOUT (FORMAT csv)
"""
PLAIN = "CREATE UNLOGGED TABLE plain (building_id text, room_id text, timestamp timestamptz, temperature float8)"


def measure(scale: float) -> Iterator[Figure]:
    """Readings per second in both directions, in turns with COPY of the same."""
    number = int(READINGS * scale)
    rates: dict[str, list[float]] = {}
    with (
        stack.postgres() as postgres,
        stack.function("ingest", postgres.url(WRITER)) as ingest,
        stack.function("average", postgres.url(READER)) as average,
        psycopg.connect(postgres.url(OWNER), autocommit=True) as owner,
    ):
        files = {form: stack.WORKPLACE / f"transfer.{form}" for form in ("csv", "ndjson")}
        _fill(owner, number)
        for form, file in files.items():
            _download(average.port, form, file)
        for _ in range(max(1, round(ROUNDS * scale))):
            runs: dict[str, Callable[[], object]] = {"COPY TO": lambda: _copy_out(owner)}
            runs |= {f"{form} out": lambda form=form: _download(average.port, form) for form in files}  # type: ignore[misc]
            for form, file in files.items():
                runs[f"{form} in"] = lambda file=file: _import(ingest.port, file)  # type: ignore[misc]
            runs["COPY FROM"] = lambda: _copy_in(owner, files["csv"])
            for name, run in runs.items():
                say(f"{number:,} readings: {name}")
                if name.endswith(" in"):
                    stack.empty(postgres.url)
                started = time.perf_counter()
                run()
                rates.setdefault(name, []).append(number / (time.perf_counter() - started))
        for file in files.values():
            file.unlink()
    found = {name: median(measured) for name, measured in rates.items()}
    rows: list[Row] = [
        {
            "what": what,
            "readings/s": found[name],
            "reference": reference,
            "reference/s": found[reference],
            "of the reference": found[name] / found[reference],
        }
        for what, name, reference in (
            ("download as CSV", "csv out", "COPY TO"),
            ("download as NDJSON", "ndjson out", "COPY TO"),
            ("make import of CSV", "csv in", "COPY FROM"),
            ("make import of NDJSON", "ndjson in", "COPY FROM"),
        )
    ]
    yield Figure("transfer", f"{number:,} readings of {ROOMS} rooms out and in", rows, _draw)


def _fill(owner: "psycopg.Connection[tuple[object, ...]]", number: int) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', (number %% %s)::text, %s + number * %s,"
        " (20 + 5 * sin(number / 13000.0))::numeric(4, 2) FROM generate_series(1, %s) AS number",
        (ROOMS, FIRST, timedelta(seconds=1), number),
    )
    owner.execute("VACUUM ANALYZE temperatures")


def _copy_out(owner: "psycopg.Connection[tuple[object, ...]]") -> None:
    with owner.cursor() as cursor, cursor.copy(COPY_TO) as copy:
        for _ in copy:
            pass


def _copy_in(owner: "psycopg.Connection[tuple[object, ...]]", file: Path) -> None:
    owner.execute(PLAIN)
    copied = "COPY plain FROM STDIN (FORMAT csv, HEADER)"
    with owner.cursor() as cursor, file.open("rb") as content, cursor.copy(copied) as copy:
        while block := content.read(64 * 1024):
            copy.write(block)
    owner.execute("DROP TABLE plain")


def _download(port: int, form: str, file: Path | None = None) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", QUESTION + form)
        answer = connection.getresponse()
        with (file or Path(os.devnull)).open("wb") as output:
            while block := answer.read(256 * 1024):
                output.write(block)


def _import(port: int, file: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "local.importing"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "functions:.", "FILE": str(file), "URL": f"http://127.0.0.1:{port}/"},
        stdout=subprocess.DEVNULL,
    )


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    axes.bar([place - 0.2 for place in places], [row["readings/s"] for row in rows], 0.4, label="ours")
    axes.bar([place + 0.2 for place in places], [row["reference/s"] for row in rows], 0.4, label="COPY by psycopg")
    axes.set_xticks(list(places), [row["what"] for row in rows], fontsize="small")
    axes.set_ylabel("readings per second")
