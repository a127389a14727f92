"""Single readings: `ingest` against a function that does nothing, and against one that commits each reading."""

from collections.abc import Iterator, Sequence
from statistics import median

from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import WRITER
from tests.support import Urls

CONNECTIONS = (1, 8, 32, 128)
SECONDS, ROUNDS = 2.0, 5


def measure(scale: float) -> Iterator[Figure]:
    """Readings per second and latency over the number of connections."""
    rows: list[Row] = []
    with stack.databases() as databases:
        for database, (urls, _) in databases.items():
            rows += _measured(database, urls, scale)
    yield Figure("singles", "Single readings over HTTP", rows, _draw)


def _measured(database: str, urls: Urls, scale: float) -> Iterator[Row]:
    with (
        stack.function("ingest", urls(WRITER)) as ingesting,
        stack.function("empty") as doing_nothing,
        stack.function("one_commit", urls(WRITER)) as committing_each,
    ):
        served = {"ingest": ingesting, "empty": doing_nothing, "one_commit": committing_each}
        for connections in CONNECTIONS:
            say(f"{database}: single readings, connections: {connections}")
            rates: dict[str, list[float]] = {name: [] for name in served}
            slowest = []
            for _ in range(max(1, round(ROUNDS * scale))):
                for name, function in served.items():
                    stack.empty(urls)
                    outcome = load.run(
                        function.port, bodies.singles(), connections=connections, seconds=SECONDS * scale
                    )
                    rates[name].append(outcome.rate)
                    if name == "ingest":
                        slowest.append(outcome.percentile(99))
            ingest, nothing, each = (median(rates[name]) for name in served)
            yield {
                "database": database,
                "connections": connections,
                "readings/s": ingest,
                "p99 ms": median(slowest),
                "of an empty function": ingest / nothing,
                "times one commit per reading": ingest / each,
                "empty function/s": nothing,
                "one commit per reading/s": each,
            }


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    rows = [row for row in rows if row["database"] == "PostgreSQL"]
    connections = [str(row["connections"]) for row in rows]
    for column, label in (
        ("empty function/s", "an empty function"),
        ("readings/s", "ingest"),
        ("one commit per reading/s", "one commit per reading"),
    ):
        axes.plot(connections, [row[column] for row in rows], marker="o", label=label)
    axes.set_xlabel("connections")
    axes.set_ylabel("readings per second")
    axes.set_ylim(bottom=0)
