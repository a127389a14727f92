"""How the database is, as only it knows: for a Prometheus, and in words. The schema measures it: `sql/health.sql`.

`python -m migrations.health` answers at /metrics; with `--words` it says what is wrong, and ends with status 1 then.
"""

import argparse
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from migrations.failures import LIBRARY_IS_GONE, library_is_gone
from shared import conninfo, logs, settings
from shared.masking import masked
from shared.settings import SettingError

log = logging.getLogger("health")

PORT = 9187
"""The port of exporters for PostgreSQL, by custom."""
CONNECT_SECONDS = 2
"""Each address of the database has so long to take a connection."""
ANSWER_SECONDS = 5
"""Then it has so long to answer. Both are less together than a Prometheus waits, also where there are two addresses."""
FRESH_SECONDS = 5
"""What was measured so long ago is not measured again: there may be several that ask."""

UP = "temperature_database_up"
METRICS = {
    "rooms": "rooms that there are",
    "rooms_unsummarized": "rooms with readings that are to be summed up",
    "rooms_behind": "those of them whose readings are older than two hours",
    "rooms_without_courses": "rooms whose summaries of before have no course yet",
    "unsummarized_seconds": "age of the oldest hour that is to be summed up",
    "summaries_seconds": "since readings were summed up",
    "retention_seconds": "for which readings have been older than RETENTION_DAYS",
    "removals_unfinished": "removals that are under way",
    "removal_seconds": "since the oldest of them was asked for",
    "watch_seconds": "since alarms were looked for",
    "alarm_events_unsent": "events of alarms that no sink has taken",
    "alarm_event_seconds": "age of the oldest of them that is tried",
    "alarm_events_given_up": "events of alarms that were given up in the last day",
    "job_off": "whether a job of TimescaleDB is paused or missing",
    "job_failed": "whether it failed the last time that it ran",
    "job_seconds": "since it succeeded",
    "extension_outdated": "whether the database uses an older TimescaleDB than the server has",
    "standbys_missing": "standbys that do not follow the primary, of those that STANDBYS says",
    "standby_seconds": "how far a standby is behind",
    "slot_unused": "whether nobody reads the log that a slot keeps",
    "slot_bytes": "the log that it keeps",
    "archive_failing": "whether the last file of the log could not be archived",
    "archive_bytes": "the log that is not archived yet",
    "database_bytes": "size of the database",
    "database_connections": "connections in use",
    "database_transaction_age": "age of the oldest transaction id, in transactions",
    "database_transaction_seconds": "age of the oldest transaction that is open",
    "database_prepared_seconds": "age of the oldest transaction that was prepared and left",
}
"""What `database_health()` measures, and what that is."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that was measured."""

    metric: str
    """One of METRICS."""
    of: str
    """Which job, slot or standby it is about; empty where there is one of its kind."""
    value: float
    most: float | None
    """The value above which it is at fault, None for what is never."""
    fault: str | None
    """What is wrong, in words."""


def look(url: str) -> list[Measure]:
    """Measure the database at a libpq connection string; one that is empty is that of libpq's own variables.

    Raises psycopg.Error if it does not answer, or is not set up.
    """
    with psycopg.connect(
        url,
        autocommit=True,
        client_encoding="UTF8",
        connect_timeout=CONNECT_SECONDS,
        tcp_user_timeout=ANSWER_SECONDS * 1000,
        prepare_threshold=None,
    ) as connection:
        # Whatever the database has by default: a look is in nobody's way, and a standby takes no serializable one.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.read_only = True
        with _broken_off(connection, ANSWER_SECONDS), connection.transaction():
            # Ahead of that, so that the reason is known.
            connection.execute(f"SET LOCAL statement_timeout = {ANSWER_SECONDS * 900}")
            connection.execute("SET LOCAL lock_timeout = '1s'")
            # As text, numbers have as many digits as the database says.
            found = connection.execute("SELECT metric, of, value, most, fault FROM database_health()", binary=True)
            rows = found.fetchall()
    return [Measure(*row) for row in rows]


@contextmanager
def _broken_off(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Break a connection off where the context takes longer: a server that is frozen ends no statement by itself.

    Neither does a pooler or a network that is not there any more. Whoever waits for them gets psycopg.OperationalError.
    """
    over = threading.Event()
    # A descriptor of its own stays that of the connection, whatever is closed meanwhile.
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:

        def end() -> None:
            over.set()
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.OperationalError as error:
            if over.is_set():
                raise psycopg.OperationalError(f"it has said nothing for {seconds} seconds") from error
            raise
        finally:
            timer.cancel()


class Health(Collector):
    """The metrics. A scrape measures, unless another one just did."""

    def __init__(self, measure: Callable[[], Sequence[Measure]]) -> None:
        self._measure = measure
        self._turn = threading.Lock()
        self._measured: Sequence[Measure] | None = None
        self._at = float("-inf")
        self._said = ""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Whether the database answers, and if so what it measured."""
        with self._turn:
            if time.monotonic() - self._at >= FRESH_SECONDS:
                self._measured = self._look()
                self._at = time.monotonic()
            measured = self._measured
        yield GaugeMetricFamily(UP, "whether the database answers", value=measured is not None)
        for metric, found in groupby(measured or [], key=lambda measure: measure.metric):
            yield from _families(metric, list(found))

    def _look(self) -> Sequence[Measure] | None:
        try:
            measured = self._measure()
        except psycopg.Error as error:
            # Once: it is asked every few seconds.
            if (said := explained(error)) != self._said:
                self._said = said
                log.warning("%s", said)
            return None
        if self._said:
            log.info("the database answers again")
            self._said = ""
        return measured


def _families(metric: str, found: Sequence[Measure]) -> Iterator[GaugeMetricFamily]:
    labels = ["of"] if any(measure.of for measure in found) else []
    value = GaugeMetricFamily(f"temperature_{metric}", METRICS.get(metric, metric), labels=labels)
    limit = GaugeMetricFamily(f"temperature_{metric}_limit", "from where on it is a fault", labels=labels)
    for measure in found:
        value.add_metric([measure.of] if labels else [], measure.value)
        if measure.most:
            limit.add_metric([measure.of] if labels else [], measure.most)
    yield value
    if limit.samples:
        yield limit


def explained(error: psycopg.Error) -> str:
    """Why the database could not be measured, without a password."""
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return "The database has no database_health() yet: run the migrations"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "This role may not see how the database is: it is MONITOR_ROLE of the migrations that may"
    if library_is_gone(error):
        return LIBRARY_IS_GONE
    # Whole, it would have the statement, of thousands of characters.
    said = error.diag.message_primary or str(error)
    return f"The database does not answer: {masked(' '.join(said.split()))}"


def serve(url: str, host: str, port: int) -> None:
    """Answer whoever asks for /metrics until a signal ends it."""
    ends = {signal.SIGTERM, signal.SIGINT}
    # Before there are threads, which would take the signal. It ends the first process of a container only if asked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    registry = CollectorRegistry()
    registry.register(Health(lambda: look(url)))
    start_http_server(port, host, registry)
    log.info("how the database is, at http://%s:%d/metrics", host, port)
    signal.sigwait(ends)


def say(url: str) -> int:
    """Print what is wrong, in words. Return the status of a program: whether anything is. Raises SettingError."""
    try:
        faults = [measure.fault for measure in look(url) if measure.fault]
    except psycopg.Error as error:
        raise SettingError(explained(error)) from None
    print("\n".join(faults) or "Nothing is wrong that the database knows of.")
    return int(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m migrations.health", description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--words", action="store_true", help="say what is wrong, and end")
    chosen = parser.parse_args()
    logs.configure()
    if chosen.words:
        raise SystemExit(say(conninfo.load()))
    serve(conninfo.load(), chosen.host, settings.number("PORT", PORT, least=1, most=65535))
