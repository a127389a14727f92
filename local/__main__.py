"""`python -m local`: the whole product on this machine, with nothing installed beforehand."""

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psycopg
import requests
import uvicorn
from sqlalchemy.exc import DBAPIError

import migrations.__main__ as migrations
from local import gateway
from local.postgres import OWNER, READER, WATCHER, WRITER, Postgres, PostgresError
from shared import access, settings
from shared.server import configuration
from shared.settings import SettingError

PERIOD = 60
"""Seconds between two runs of the simulator and two checks for alarms, as in their CronJobs."""
STEP = 5
"""Seconds between the readings of a room."""


def main() -> None:
    """Run until Ctrl-C or SIGTERM, then stop everything. Raises SettingError for what the user has to change."""
    signal.signal(signal.SIGTERM, _leave)
    # A terminal that is closed ends it as SIGTERM does, which the server has its own handler for.
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    port = settings.number("PORT", 8080, least=1, most=65535)
    data = Path(settings.text("DATA_DIR", "data"))
    log_file = data / "app.log" if "DATA_DIR" in os.environ else Path("app.log")
    with _folder(data), _listening(port) as listener:
        os.environ["LOG_FILE"] = str(log_file)
        # On a full disk the log goes without its lines, and the screen without a traceback for each.
        logging.raiseExceptions = False
        with _database(data) as urls:
            _serve(listener, f"http://localhost:{port}", urls, log_file)


def say(line: str) -> None:
    """One line on the screen for one step."""
    print(line, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)


@contextmanager
def _folder(data: Path) -> Iterator[None]:
    """Hold the folder against a second run."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (data / "lock").open("a")
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


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    except OSError as error:
        raise SettingError(
            f"Port {port} cannot be used ({_reason(error)}). Choose another, such as: make run PORT={port + 1}"
        ) from None
    with listener:
        yield listener


@contextmanager
def _database(data: Path) -> Iterator[Mapping[str, str]]:
    """A migrated database; yields what each function connects with."""
    url = settings.text("DATABASE_URL")
    if url:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.Error as error:
            raise SettingError(f"The database that DATABASE_URL names does not answer: {error}") from None
        say("Database      the one that DATABASE_URL names")
        _migrate(url)
        yield dict.fromkeys(("ingest", "average", "watch"), url)
        return
    postgres = Postgres(data / "postgres", log=data / "postgres.log", tell=lambda line: say(f"              {line}"))
    try:
        postgres.start()
        say(f"PostgreSQL    data in {postgres.folder}, log in {postgres.log}")
        _migrate(postgres.url(OWNER))
        stopping = threading.Event()
        keeper = threading.Thread(target=_keep_running, args=(postgres, stopping), daemon=True)
        keeper.start()
        try:
            roles = {"ingest": WRITER, "average": READER, "watch": WATCHER}
            yield {function: postgres.url(role) for function, role in roles.items()}
        finally:
            stopping.set()
            keeper.join()
    finally:
        postgres.stop()


def _migrate(url: str) -> None:
    os.environ["DATABASE_URL"] = url
    try:
        edition = migrations.main()
    except DBAPIError as error:
        raise SettingError(f"The database could not be brought to its newest schema: {error.orig}") from None
    say(f"Migrations    done: {edition.value}")


def _keep_running(postgres: Postgres, stopping: threading.Event) -> None:
    while not stopping.wait(0.5):
        if postgres.process.poll() is not None:
            say("PostgreSQL    ended by itself; starting it again")
            try:
                postgres.start()
            except PostgresError as error:
                say(f"              {error}")


def _serve(listener: socket.socket, address: str, urls: Mapping[str, str], log_file: Path) -> None:
    # Read when readings are emitted, not when the function is loaded.
    os.environ["SINK_URL"] = address
    if tokens := access.tokens("WRITE_TOKENS"):
        os.environ["SINK_TOKEN"] = tokens[0].decode()
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = f"{os.environ.get(name, '')},localhost".lstrip(",")
    application = gateway.application(
        {"simulate": {}, **{function: {"DATABASE_URL": url} for function, url in urls.items()}}
    )
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
        server.run(sockets=[listener])
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
    # Of its own, since it may wait for a sink.
    threading.Thread(target=_watch, args=(address,), daemon=True).start()
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
