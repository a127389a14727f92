"""A copy of what is stored, on another disk: a base backup, and the write-ahead log as it is written.

A backup is a folder named after the instant of its beginning. In `base` it has the data, and in `wal` all that was
written since, as PostgreSQL's own programs keep it. A new one begins once a day, and where the last one cannot go on.
The last two stay, and where the last one was closed a third one. The backup of another database is never touched: it
may be all that is left of that.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from local.locks import is_taken
from local.postgres import Postgres
from local.user import PostgresError

log = logging.getLogger("local")

BACKUP_INTERVAL = timedelta(days=1)
BACKUPS_KEPT = 2
"""Who has restored to a wrong instant, or has lost more than there seemed, can go back once more."""
LOOK_SECONDS = 0.5
FAILED_RECEIVER_SECONDS = 5
"""A receiver that ends within them cannot go on; another one that ends lost the server."""
FIRST_LOG_SECONDS = 30
"""A receiver that has written nothing by then is given up."""
_FOLDER_NAME_FORMAT = "%Y%m%dT%H%M%SZ"
_CLOSED = "closed"
"""A file in a backup to which nothing is added any more: a restore went back behind its end.

The log of what came after the restore would hide what there was between that instant and the restore.
"""
_LOG_KEPT = "512MB"
"""Of the log, for a receiver that was away for a while."""


class Backup:
    """Keeps a backup of a running server in a folder, which gets to belong to the user of the server."""

    def __init__(self, postgres: Postgres, folder: Path, say: Callable[[str], None]) -> None:
        self._postgres = postgres
        self._folder = folder.absolute()
        self._say = say
        self._said = ""
        self._has_own_disk = not shares_a_disk(folder, postgres.folder)
        self._lock: int | None = None
        self._current: Path | None = None
        self._receiver: subprocess.Popen[bytes] | None = None
        self._received = 0.0

    def keep(self, stopping: threading.Event) -> None:
        """Have a backup go on until `stopping` is set. Whatever hinders it is said, and tried again."""
        pause = 0.0
        while not stopping.wait(pause):
            pause = LOOK_SECONDS
            if self._postgres.process.poll() is not None:
                continue
            try:
                self._go_on(stopping)
            except (OSError, PostgresError, psycopg.Error) as error:
                if not stopping.is_set() and self._once(f"Backup        {error}"):
                    log.warning("no backup: %s", error)
                pause = 2 * LOOK_SECONDS

    def end(self) -> None:
        """Stop writing. After the end of the server the backup has all of it."""
        self._stop_receiver()
        self._leave_folder()

    def _stop_receiver(self) -> None:
        if self._receiver:
            self._receiver.terminate()
            self._receiver.wait()

    def _go_on(self, stopping: threading.Event) -> None:
        if self._receiver is None:
            last = self._take_folder()
            self._current = None if last is None or _is_closed(last) else last
            if self._current:
                self._receiver = self._receive(self._current)
        elif self._receiver.poll() is not None:
            self._receiver = None
            if time.monotonic() - self._received > FAILED_RECEIVER_SECONDS:
                return
            # What it needs is gone, or the server has a history of its own since.
            self._current = None
        if self._current is None or _is_due(self._current):
            self._begin(stopping)

    def _take_folder(self) -> Path | None:
        """Make the folder, keep others out, and return its newest whole backup.

        Raises PostgresError if it is not what it was, or if others have it.
        """
        if self._has_own_disk and shares_a_disk(self._folder, self._postgres.folder):
            raise PostgresError(
                f"{self._folder} was on a disk of its own, which is not there any more. Mount it again: there is no"
                " backup until then"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._leave_folder()
        self._lock = os.open(self._folder, os.O_RDONLY)
        if is_taken(self._lock):
            raise PostgresError(
                f"Another `make run` keeps its backup in {self._folder}. This one has no backup: choose another"
                " BACKUP_DIR"
            )
        # Also where a copy is due: another disk may be in its place by now.
        if last := newest(self._folder):
            self._check_database(last)
        return last

    def _leave_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self, stopping: threading.Event) -> None:
        before = self._take_folder()
        # So that there are no more than three while a copy is made.
        self._remove_older(BACKUPS_KEPT)
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET wal_keep_size = '{_LOG_KEPT}'")
            connection.execute("SELECT pg_reload_conf()")
        place = self._folder / max(datetime.now(UTC), self._after_all()).strftime(_FOLDER_NAME_FORMAT)
        (place / "wal").mkdir(parents=True)
        self._postgres.let_pass(self._folder)
        for each in (self._folder, place, place / "wal"):
            self._postgres.give(each)
        receiver = self._receive(place)
        try:
            _wait_for_the_log(place, receiver, stopping)
            self._copy(place, stopping)
        except BaseException:
            receiver.kill()
            receiver.wait()
            shutil.rmtree(place, ignore_errors=True)
            raise
        self._stop_receiver()
        self._receiver, self._current = receiver, place
        # What a restore went back behind may be in the log of the one before it alone.
        self._remove_older(BACKUPS_KEPT + (before is not None and _is_closed(before)))
        self._once(f"Backup        {place}, and all that is written from now on")

    def _copy(self, place: Path, stopping: threading.Event) -> None:
        """Copy the data. Only a whole copy is called `base`. Raises PostgresError, also when `stopping` is set."""
        arguments = ("--dbname", self._postgres.url(), "--pgdata", place / "base.new", "--checkpoint=fast")
        with tempfile.TemporaryFile() as said:
            copying = self._postgres.begin("pg_basebackup", *arguments, output=said)
            while copying.poll() is None:
                if stopping.wait(0.05):
                    # It has a second process for the log.
                    os.killpg(copying.pid, signal.SIGTERM)
                    copying.wait()
            if copying.returncode != 0:
                said.seek(0)
                # Not of its own place, which is another one each time.
                words = said.read().decode(errors="replace").strip()
                raise PostgresError(f"no copy could be made in {self._folder}: {words}")
        (place / "base.new").rename(place / "base")

    def _after_all(self) -> datetime:
        """An instant after the beginnings of all that there are, also where a clock says otherwise by now."""
        beginnings = [begun(each) for each in self._folder.iterdir() if _is_backup(each)]
        return max(beginnings, default=datetime.min.replace(tzinfo=UTC)) + timedelta(seconds=1)

    def _remove_older(self, number: int) -> None:
        """Remove all but the last whole backups."""
        kept = whole_backups(self._folder)[-number:]
        for older in self._folder.iterdir():
            if older not in kept and _is_backup(older):
                shutil.rmtree(older, ignore_errors=True)

    def _check_database(self, backup: Path) -> None:
        """Raise PostgresError if it is a backup of another database."""
        # initdb gives each database a number of its own, which a restored one keeps.
        with psycopg.connect(self._postgres.url()) as connection:
            [(own,)] = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchall()
        printed = self._postgres.program("pg_controldata", backup / "base")
        if not re.search(
            rf"^Database system identifier: +{own}$", printed.stdout.decode(errors="replace"), re.MULTILINE
        ):
            raise PostgresError(
                f"{self._folder} has the backup of another database, and is left as it is. This one has no backup:"
                " choose another BACKUP_DIR, or bring the other one back: docs/reliability.md#backups"
            )

    def _receive(self, place: Path) -> "subprocess.Popen[bytes]":
        self._received = time.monotonic()
        return self._postgres.begin(
            "pg_receivewal",
            "--dbname",
            self._postgres.url(),
            "--directory",
            place / "wal",
            "--synchronous",
            # Otherwise the server hears of a new file, in which nothing is yet, after ten seconds only.
            "--status-interval=1",
            "--no-loop",
        )

    def _once(self, line: str) -> bool:
        """Say the line, unless it was said last, and return whether it is said now."""
        is_new = line != self._said
        if is_new:
            self._said = line
            self._say(line)
        return is_new


def _is_due(backup: Path) -> bool:
    """Whether it is time for a copy after this one, also where somebody removed it."""
    try:
        # It is from the future where the clock was wrong when it was made.
        return abs(datetime.now(UTC) - whole_at(backup)) > BACKUP_INTERVAL
    except FileNotFoundError:
        return True


def _wait_for_the_log(place: Path, receiver: "subprocess.Popen[bytes]", stopping: threading.Event) -> None:
    """Wait until the receiver writes: what is written from then on is not missed. Raises PostgresError."""
    deadline = time.monotonic() + FIRST_LOG_SECONDS
    while not any((place / "wal").iterdir()):
        if stopping.wait(0.05) or receiver.poll() is not None or time.monotonic() > deadline:
            raise PostgresError(f"the log cannot be written to {place.parent}; that of PostgreSQL says why")


def newest(folder: Path) -> Path | None:
    """The newest whole backup in a folder."""
    return next(reversed(whole_backups(folder)), None)


def whole_backups(folder: Path) -> Sequence[Path]:
    """The whole backups in a folder, the newest last."""
    with suppress(FileNotFoundError):
        return sorted(each for each in folder.iterdir() if _is_backup(each) and (each / "base").exists())
    return []


def begun(backup: Path) -> datetime:
    """When a backup began, by its name."""
    return datetime.strptime(backup.name, _FOLDER_NAME_FORMAT).replace(tzinfo=UTC)


def whole_at(backup: Path) -> datetime:
    """When the copy of a backup ended, and its list of files was written. It brings back no instant before."""
    return datetime.fromtimestamp((backup / "base" / "backup_manifest").stat().st_mtime, UTC)


def _is_backup(folder: Path) -> bool:
    try:
        begun(folder)
    except ValueError:
        return False
    return folder.is_dir()


def _is_closed(backup: Path) -> bool:
    return (backup / _CLOSED).exists()


def close(backups: Sequence[Path]) -> None:
    """Have nothing added to these backups any more, as far as they can be written to at all."""
    with suppress(OSError):
        for each in backups:
            (each / _CLOSED).touch()


def is_being_kept(folder: Path) -> bool:
    """Whether a server is at work whose backups these are: what is restored goes another way than that."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        return is_taken(opened)
    finally:
        os.close(opened)


def shares_a_disk(folder: Path, data: Path) -> bool:
    """Whether backups in a folder, which need not be there yet, are lost with the disk of the data."""
    folder = folder.absolute()
    # Path.exists raises OSError where this user may not look.
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110
    return there.stat().st_dev == data.stat().st_dev
