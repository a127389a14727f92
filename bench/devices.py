"""Capacity: so many devices, each with one reading every half minute, and what they take of the processors."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import WRITER

DEVICES = (3_000, 30_000, 100_000, 200_000, 300_000)
INTERVAL = 30
CONNECTIONS = 64
SECONDS = 8.0


def measure(scale: float) -> Iterator[Figure]:
    """Latency and processor time at the rate of the devices, whether or not it can be kept."""
    rows: list[Row] = []
    with stack.postgres() as postgres, stack.function("ingest", postgres.url(WRITER)) as ingest:
        for devices in DEVICES:
            say(f"{devices:,} devices")
            stack.empty(postgres.url)
            with stack.processor_seconds(ingest.process, postgres.process) as used:
                outcome = load.run(
                    ingest.port,
                    bodies.singles(devices),
                    connections=CONNECTIONS,
                    seconds=SECONDS * scale,
                    rate=devices / INTERVAL,
                )
            function, database = (each / outcome.seconds for each in used)
            rows.append(
                {
                    "devices": devices,
                    "readings/s due": devices / INTERVAL,
                    "stored/s": outcome.rate,
                    "median ms": outcome.percentile(50),
                    "p99 ms": outcome.percentile(99),
                    "ingest, of a processor": function,
                    "PostgreSQL, of a processor": database,
                }
            )
    yield Figure("devices", f"Devices with a reading every {INTERVAL} s, one instance of ingest", rows, _draw)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    devices = [row["devices"] for row in rows]
    for column in ("ingest, of a processor", "PostgreSQL, of a processor"):
        axes.plot(devices, [row[column] for row in rows], marker="o", label=column)
    axes.set_xlabel("devices")
    axes.set_ylabel("processors")
    axes.set_ylim(bottom=0)
