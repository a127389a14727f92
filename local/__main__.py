"""`python -m local`: the whole product on this machine, with nothing installed beforehand."""

import errno
import logging
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, NamedTuple

import httpx2
import psycopg
import uvicorn

import migrations.__main__ as migrations
import migrations.settings as schema_settings
from local import command, gateway, observer, restore
from local.backup import Backup, newest, shares_a_disk
from local.keeper import Keeper
from local.locks import held
from local.postgres import ADMIN, MONITOR, OWNER, READER, WATCHER, WRITER, Postgres
from migrations import summaries
from migrations.database import explained
from shared import access, conninfo, database, logs, settings
from shared.masking import masked
from shared.server import configuration
from shared.settings import SettingError, reason

log = logging.getLogger("local")

TIMER_SECONDS = 60
"""Between two runs of the simulator, of the checks for alarms, and of what keeps summaries up to date."""
READING_SECONDS = 5
"""Between the readings of a room."""
ENDING_SECONDS = 2
"""A thread has so long to end by itself. One that is left ends with the process, and its next start goes on."""


class Connections(NamedTuple):
    """How a migrated database is reached."""

    owner_url: str
    functions: Mapping[str, Mapping[str, str]]
    """The settings with which each function connects."""


def main() -> None:
    """Run until Ctrl-C or SIGTERM, then stop everything. Raises SettingError for what the user has to change."""
    port = settings.number("PORT", 8080, least=1, most=65535)
    simulates = settings.switch("SIMULATE", default=True)
    chosen = settings.path("DATA_DIR")
    data = chosen or Path("data")
    log_file = settings.path("LOG_FILE") or (chosen or Path()) / "app.log"
    with held(data), _listening(port) as listeners:
        logs.configure(log_file)
        # On a full disk the log goes without its lines, and the screen without a traceback for each.
        logging.raiseExceptions = False
        with _database(data) as connections:
            _serve(listeners, Product(f"http://localhost:{port}", log_file, connections, simulates))


def say(line: str) -> None:
    """One line on the screen for one step."""
    # A screen that is gone ends nothing.
    with suppress(OSError, ValueError):
        print(line, flush=True)


@contextmanager
def _listening(port: int) -> Iterator[Sequence[socket.socket]]:
    """Listen at every address that `localhost` may be. Raises SettingError if somebody else does."""
    with ExitStack() as stack:
        listeners = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                listener = socket.create_server((address, port), family=family, backlog=2048)
            except OSError as error:
                if family == socket.AF_INET6 and error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                    # The machine has no such address.
                    continue
                raise SettingError(
                    f"Port {port} cannot be used ({reason(error)}). Choose another, such as: make run PORT={port + 1}"
                ) from None
            listeners.append(stack.enter_context(listener))
        yield listeners


@contextmanager
def _database(data: Path) -> Iterator[Connections]:
    """A migrated database."""
    url = conninfo.load()
    _refuse_what_does_nothing(has_url=bool(url))
    if not url:
        with _own_database(data) as connections:
            yield connections
        return
    try:
        # As the functions will.
        psycopg.connect(url, **{**database.load(connections=1).options, "connect_timeout": 5}).close()
    except psycopg.Error as error:
        said = masked(str(error))
        if "unsupported startup parameter" in said:
            said += ". Behind PgBouncer set DATABASE_POOLER=true"
        raise SettingError(f"The database that DATABASE_URL names does not answer: {said}") from None
    say("Database      the one that DATABASE_URL names")
    _migrate(url)
    with _at_work(partial(observer.observe, lambda: observer.faults(url), say), seconds=ENDING_SECONDS):
        yield Connections(url, {function: {"DATABASE_URL": url} for function in ("ingest", "average", "watch")})


def _refuse_what_does_nothing(*, has_url: bool) -> None:
    """Raise SettingError for a setting that is only for the other kind of database, so that nobody relies on it."""
    if has_url and settings.text("BACKUP_DIR"):
        raise SettingError("BACKUP_DIR keeps backups of make run's own PostgreSQL only; unset it, or DATABASE_URL")
    if not has_url and settings.text("ADMIN_DATABASE_URL"):
        raise SettingError(
            "ADMIN_DATABASE_URL is a way into the database that DATABASE_URL names; set that too, or unset it"
        )


@contextmanager
def _own_database(data: Path) -> Iterator[Connections]:
    """An embedded PostgreSQL, which is kept running until the end of the context."""
    postgres = Postgres(data / "postgres", log=data / "postgres.log", tell=lambda line: say(f"              {line}"))
    kept: Backup | None = None
    backups = settings.path("BACKUP_DIR")
    if backups:
        _check_backup_folder(backups, postgres, data)
    try:
        restore.start(postgres)
        say(f"PostgreSQL    data in {postgres.folder}, log in {postgres.log}")
        _migrate(postgres.url(OWNER))
        jobs: list[Job] = [Keeper(postgres, say).keep]
        if backups:
            if shares_a_disk(backups, postgres.folder):
                # As where another one was to be mounted, and was not.
                say(f"Backup        {backups} is on the disk of the data, and is lost with it")
            kept = Backup(postgres, backups, say)
            jobs.append(kept.keep)
        started = datetime.now(UTC)
        jobs.append(
            partial(observer.observe, lambda: observer.faults(postgres.url(MONITOR), data, backups, since=started), say)
        )
        with _at_work(*jobs), ExitStack() as stack:
            # A start that is under way ends, and with it the keeper's thread.
            stack.callback(postgres.give_up)
            yield _connections(postgres)
    finally:
        postgres.stop()
        if kept:
            kept.end()


def _connections(postgres: Postgres) -> Connections:
    roles = {"ingest": WRITER, "average": READER, "watch": WATCHER}
    functions = {function: {"DATABASE_URL": postgres.url(role)} for function, role in roles.items()}
    functions["average"]["ADMIN_DATABASE_URL"] = postgres.url(ADMIN)
    return Connections(postgres.url(OWNER), functions)


def _check_backup_folder(folder: Path, postgres: Postgres, data: Path) -> None:
    """Raise SettingError for a folder of backups within the data, or with the backup of what is not there any more.

    Beside that, a new database would take the readings from now on, and nobody could put the two together.
    """
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(postgres.folder)):
        raise SettingError(
            f"BACKUP_DIR {folder} is in {postgres.folder}: each copy would hold the copies before it, and be lost with"
            " the data. Choose another one"
        )
    if postgres.has_data:
        return
    try:
        found = newest(folder)
    except OSError as error:
        raise SettingError(f"BACKUP_DIR {folder} cannot be read ({reason(error)}). Choose another one") from None
    if found:
        command = f"make restore BACKUP_DIR={shlex.quote(str(folder))} DATA_DIR={shlex.quote(str(data))}"
        raise SettingError(
            f"{data} has no database, and {folder} has the backup of one. Bring it back: {command}. For a new database,"
            " choose another BACKUP_DIR"
        )


def _migrate(url: str) -> None:
    chosen = replace(schema_settings.load(), url=url)
    with explained():
        edition = migrations.main(chosen)
    say(f"Migrations    done: {edition.value}")
    if unused := chosen.unused(edition):
        say(f"              {unused}")


def _serve(listeners: Sequence[socket.socket], product: "Product") -> None:
    """Serve the functions until a signal arrives. Raises KeyboardInterrupt then."""
    application = gateway.application(product.environments)
    server = uvicorn.Server(configuration(application, access_log=True, timeout_graceful_shutdown=2))
    received: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> None:
        received.add(number)
        product.ending.set()
        server.should_exit = True

    # An event loop that is being set up does not survive an exception from a signal handler.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with _at_work(product.simulate, product.watch, product.summarize, seconds=ENDING_SECONDS):
        try:
            server.run(sockets=list(listeners))
        finally:
            say("Stopping")
            # Nothing may cut short what is left to do: PostgreSQL would stay.
            for number in (signal.SIGINT, signal.SIGTERM, *command.TERMINAL_SIGNALS):
                signal.signal(number, signal.SIG_IGN)
    # Only a signal ends the server.
    raise KeyboardInterrupt(*(128 + number for number in received - {signal.SIGINT}))


Job = Callable[[Event], None]
"""Works until the event is set."""


@contextmanager
def _at_work(*jobs: Job, seconds: float | None = None) -> Iterator[None]:
    """Have each job done in a thread of its own; end them, within the seconds if given, at the end of the context."""
    stopping = Event()
    threads = [Thread(target=job, args=(stopping,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(seconds)


class Product:
    """The functions at their address, and what the CronJobs of a cluster do beside them."""

    def __init__(self, address: str, log_file: Path, connections: Connections, simulates: bool) -> None:
        self._address = address
        self._log_file = log_file
        self._connections = connections
        self._simulates = simulates
        self._token = (access.tokens("WRITE_TOKENS") or [settings.text("SINK_TOKEN").encode()])[0].decode()
        self._has_readings = Event()
        self.ending = Event()
        """Set as soon as it is to end: what fails from then on is not said."""

    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """The settings of each function that are its own here."""
        # K_SINK counts before SINK_URL, and the token is for nobody else.
        return {"simulate": {"K_SINK": self._address, "SINK_TOKEN": self._token}, **self._connections.functions}

    def simulate(self, stopping: Event) -> None:
        """Simulate the last hour, so that there is something to see; and from then on the present, if it is to."""
        say(f"Functions     ingest, average, simulate, watch at {self._address}")
        told = "off, as SIMULATE says"
        if self._simulates:
            started = time.monotonic()
            emitted = self._emit(backfill="1h").get("emitted", 0)
            told = f"{emitted} readings of the last hour in {time.monotonic() - started:.1f} s; more every minute"
        self._has_readings.set()
        if not self.ending.is_set():
            say(f"Simulator     {told}")
            _explain(self._address, self._log_file)
        while self._simulates and not stopping.wait(TIMER_SECONDS):
            # One more than the period holds: a run that is late leaves no gap, and the same readings are stored once.
            self._emit(count=TIMER_SECONDS // READING_SECONDS + 1)

    def watch(self, stopping: Event) -> None:
        """Look for alarms."""
        self._has_readings.wait()
        # Without rules too: those of an earlier run may have left alarms.
        raised = self._ask("Alarms", "watch", {}).get("raised", 0)
        if _has_alarm_rules():
            say(f"Alarms        {raised} raised; looked for every minute")
        while not stopping.wait(TIMER_SECONDS):
            self._ask("Alarms", "watch", {})

    def summarize(self, stopping: Event) -> None:
        """Keep the summaries up to date: TimescaleDB alone has jobs that do."""
        self._has_readings.wait()
        while not stopping.is_set():
            try:
                summaries.bring_up_to_date(self._connections.owner_url, TIMER_SECONDS)
            except psycopg.Error as error:
                # The next time goes on where this ended.
                log.warning("summaries: %s", masked(str(error)))
            stopping.wait(TIMER_SECONDS)

    def _emit(self, **readings: object) -> dict[str, Any]:
        return self._ask("Simulator", "simulate", {"profile": "daily", "interval": READING_SECONDS, **readings})

    def _ask(self, name: str, function: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the function answers; a failure is said."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            answer: dict[str, Any] = httpx2.post(
                f"{self._address}/{function}", json=body, headers=headers, timeout=300, trust_env=False
            ).json()
        except (httpx2.HTTPError, OSError, ValueError) as error:
            # OSError where, at the moment, nothing more can be opened.
            answer = {"detail": f"no answer ({type(error).__name__})"}
        if "detail" in answer and not self.ending.is_set():
            say(f"{name:14}{answer['detail']}")
        return answer


_ALARMS = """  Alarms    curl '{address}/v1/temperature/alarms'
"""
_TOKENS = """  Tokens    add -H 'Authorization: Bearer TOKEN', one of READ_TOKENS or WRITE_TOKENS
"""


def _has_alarm_rules() -> bool:
    return any(settings.text(name) for name in ("ALARM_RULES", "ALARM_RULES_FILE"))


def _explain(address: str, log_file: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    say(
        f"""
  Look      {address}/ in a browser; the API at {address}/docs
  Average   curl '{address}/v1/temperature/average?building_id=B1&room_id=101'
  Series    curl '{address}/v1/temperature/series?building_id=B1&room_id=101&bucket=15m'
  Rooms     curl '{address}/v1/temperature/rooms'
  Send      curl -X POST {address}/v1/temperature -H 'Content-Type: application/json' \\
              -d '{{"building_id":"B1","room_id":"103","temperature":22.5,"timestamp":"{now}"}}'
{_ALARMS.format(address=address) if _has_alarm_rules() else ""}\
{_TOKENS if settings.text("WRITE_TOKENS") or settings.text("READ_TOKENS") else ""}
Log in {log_file}. Ctrl-C stops everything; the readings stay."""
    )


if __name__ == "__main__":
    command.run(main, interrupted=0)
