"""`python -m local`: the whole product on this machine, with nothing installed beforehand."""

import errno
import fcntl
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psycopg
import requests
import uvicorn

import migrations.__main__ as migrations
import migrations.settings as schema_settings
from local import gateway, observer
from local.backup import Backup
from local.keeper import keep_running
from local.postgres import ADMIN, MONITOR, OWNER, READER, WATCHER, WRITER, Postgres
from migrations import summaries
from migrations.database import explained
from shared import access, conninfo, database, settings
from shared.masking import masked
from shared.server import configuration
from shared.settings import SettingError

log = logging.getLogger("local")

PERIOD = 60
"""Seconds between two runs of the simulator, of the checks for alarms, and of what keeps summaries up to date."""
STEP = 5
"""Seconds between the readings of a room."""


def main() -> None:
    """Run until Ctrl-C or SIGTERM, then stop everything. Raises SettingError for what the user has to change."""
    signal.signal(signal.SIGTERM, _leave)
    # A terminal that is closed ends it as SIGTERM does, which the server has its own handler for.
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # A mask that keeps files from their own user would keep PostgreSQL from its folder.
    os.umask(os.umask(0) & 0o077)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A folder may have a name that the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    port = settings.number("PORT", 8080, least=1, most=65535)
    data = Path(settings.text("DATA_DIR", "data"))
    log_file = data / "app.log" if "DATA_DIR" in os.environ else Path("app.log")
    with _folder(data), _listening(port) as listeners:
        _check_log(log_file)
        os.environ["LOG_FILE"] = str(log_file)
        # On a full disk the log goes without its lines, and the screen without a traceback for each.
        logging.raiseExceptions = False
        with _database(data) as connecting:
            _serve(listeners, f"http://localhost:{port}", connecting, log_file)


def say(line: str) -> None:
    """One line on the screen for one step."""
    # A screen that is gone ends nothing.
    with suppress(OSError, ValueError):
        print(line, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)


@contextmanager
def _folder(data: Path) -> Iterator[None]:
    """Hold the folder against a second run."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        # Beside the data itself, which may be reached by more than one way.
        place = (data / "postgres").resolve().parent
        place.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (place / "lock").open("a")
    except RuntimeError:
        raise SettingError(f"{data / 'postgres'} is a link that leads nowhere; choose another DATA_DIR") from None
    except OSError as error:
        raise SettingError(f"The folder {data} cannot be used ({_reason(error)}); choose another DATA_DIR") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingError(
                f"Another `make run` is at work on the folder {data}. To run a second one beside it, give it its own"
                " port and folder: make run PORT=8081 DATA_DIR=data2"
            ) from None
        yield


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)


def _check_log(file: Path) -> None:
    try:
        file.open("a").close()
    except OSError as error:
        raise SettingError(
            f"The log {file} cannot be written ({_reason(error)}); choose a DATA_DIR that can, and it is there"
        ) from None


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
                    f"Port {port} cannot be used ({_reason(error)}). Choose another, such as: make run PORT={port + 1}"
                ) from None
            listeners.append(stack.enter_context(listener))
        yield listeners


@contextmanager
def _database(data: Path) -> Iterator[Mapping[str, Mapping[str, str]]]:
    """A migrated database; yields the settings with which each function connects."""
    url = conninfo.load()
    if url:
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
        _observer(lambda: observer.faults(url), threading.Event()).start()
        yield {function: {"DATABASE_URL": url} for function in ("ingest", "average", "watch")}
        return
    postgres = Postgres(data / "postgres", log=data / "postgres.log", tell=lambda line: say(f"              {line}"))
    backup: Backup | None = None
    try:
        postgres.start()
        say(f"PostgreSQL    data in {postgres.folder}, log in {postgres.log}")
        _migrate(postgres.url(OWNER))
        stopping = threading.Event()
        at_work = [threading.Thread(target=keep_running, args=(postgres, stopping, say), daemon=True)]
        if folder := settings.text("BACKUP_DIR"):
            backup = Backup(postgres, Path(folder), say)
            at_work.append(threading.Thread(target=backup.keep, args=(stopping,), daemon=True))
        backups = Path(folder) if folder else None
        at_work.append(_observer(lambda: observer.faults(postgres.url(MONITOR), data, backups), stopping))
        for thread in at_work:
            thread.start()
        try:
            roles = {"ingest": WRITER, "average": READER, "watch": WATCHER}
            connecting = {function: {"DATABASE_URL": postgres.url(role)} for function, role in roles.items()}
            connecting["average"]["ADMIN_DATABASE_URL"] = postgres.url(ADMIN)
            yield connecting
        finally:
            stopping.set()
            postgres.give_up()
            for thread in at_work:
                thread.join()
    finally:
        postgres.stop()
        if backup:
            backup.end()


def _observer(look: Callable[[], observer.Faults], stopping: threading.Event) -> threading.Thread:
    return threading.Thread(target=observer.observe, args=(look, say, stopping), daemon=True)


def _migrate(url: str) -> None:
    os.environ["DATABASE_URL"] = url
    with explained():
        edition = migrations.main()
    say(f"Migrations    done: {edition.value}")
    if unused := schema_settings.load().unused(edition):
        say(f"              {unused}")


def _serve(
    listeners: Sequence[socket.socket], address: str, connecting: Mapping[str, Mapping[str, str]], log_file: Path
) -> None:
    # Read when readings are emitted, not when the function is loaded.
    os.environ["SINK_URL"] = address
    if tokens := access.tokens("WRITE_TOKENS"):
        os.environ["SINK_TOKEN"] = tokens[0].decode()
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = f"{os.environ.get(name, '')},localhost".lstrip(",")
    application = gateway.application({"simulate": {}, **connecting})
    server = uvicorn.Server(configuration(application, access_log=True, timeout_graceful_shutdown=2))
    received: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> None:
        received.add(number)
        server.should_exit = True

    # An event loop that is being set up does not survive an exception from a signal handler.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    threading.Thread(target=_play_the_timers, args=(address, log_file), daemon=True).start()
    try:
        server.run(sockets=list(listeners))
    finally:
        say("Stopping")
        # Nothing may cut short what is left to do: PostgreSQL would stay.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    # Only a signal ends the server.
    raise KeyboardInterrupt(*(128 + number for number in received - {signal.SIGINT}))


def _play_the_timers(address: str, log_file: Path) -> None:
    """Fill the last hour, so that there is something to see, then play the CronJobs."""
    say(f"Functions     ingest, average, simulate, watch at {address}")
    started = time.monotonic()
    emitted = _simulate(address, {"profile": "daily", "backfill": "1h", "interval": STEP}).get("emitted", 0)
    say(f"Simulator     {emitted} readings of the last hour in {time.monotonic() - started:.1f} s; more every minute")
    # Each of its own: one may wait for a sink, the other have a year to sum up.
    threading.Thread(target=_watch, args=(address,), daemon=True).start()
    threading.Thread(target=_summarize, daemon=True).start()
    _explain(address, log_file)
    while True:
        time.sleep(PERIOD)
        # One more than the period holds: a run that comes late leaves no gap, and the same readings are stored once.
        _simulate(address, {"profile": "daily", "count": PERIOD // STEP + 1, "interval": STEP})


def _simulate(address: str, body: dict[str, Any]) -> dict[str, Any]:
    return _trigger("Simulator", f"{address}/simulate", body)


def _watch(address: str) -> None:
    # Without rules too: those of an earlier run may have left alarms.
    raised = _trigger("Alarms", f"{address}/watch", {}).get("raised", 0)
    if settings.text("ALARM_RULES"):
        say(f"Alarms        {raised} raised; looked for every minute")
    while True:
        time.sleep(PERIOD)
        _trigger("Alarms", f"{address}/watch", {})


def _summarize() -> None:
    while True:
        try:
            summaries.bring_up_to_date(PERIOD)
        except psycopg.Error as error:
            # The next time goes on where this ended.
            log.warning("summaries: %s", masked(str(error)))
        time.sleep(PERIOD)


def _trigger(name: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the function at the URL answers; a failure is said."""
    try:
        answer: dict[str, Any] = requests.post(
            url,
            json=body,
            headers={"Authorization": f"Bearer {settings.text('SINK_TOKEN')}"},
            timeout=300,
        ).json()
    except (requests.RequestException, ValueError) as error:
        answer = {"detail": f"no answer ({type(error).__name__})"}
    if "detail" in answer:
        say(f"{name:14}{answer['detail']}")
    return answer


_ALARMS = """  Alarms    curl '{address}/v1/temperature/alarms'
"""
_TOKENS = """  Tokens    add -H 'Authorization: Bearer TOKEN', one of READ_TOKENS or WRITE_TOKENS
"""


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
{_ALARMS.format(address=address) if settings.text("ALARM_RULES") else ""}\
{_TOKENS if settings.text("WRITE_TOKENS") or settings.text("READ_TOKENS") else ""}
Log in {log_file}. Ctrl-C stops everything; the readings stay."""
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt as stop:
        # Everything is stopped. Python would still wait for threads that deliver readings to a sink that is gone.
        os._exit(stop.args[0] if stop.args else 0)
