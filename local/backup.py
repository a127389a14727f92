"""A copy of what is stored, on another disk: a base backup, and the write-ahead log as it is written.

A backup is a folder named after the instant of its beginning. In `base` it has the data, and in `wal` all that was
written since, as PostgreSQL's own programs keep it. A new one begins once a day, and where the last one cannot go on.
The last two stay. The backup of another database is never touched: it may be all that is left of that.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from local import command, leftovers, user
from local.locks import held, is_taken
from local.postgres import OWNER, Postgres
from local.user import PostgresError
from shared import settings
from shared.settings import SettingError, reason

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
_RESTORED_LOG = "restored-wal"
"""In the data folder of a server that is being restored."""
_SEGMENT_BYTES = 16 * 2**20
"""Of each file of the log."""
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
            self._take_folder()
            self._current = newest(self._folder)
            if self._current:
                self._check_database(self._current)
                if (self._current / _CLOSED).exists():
                    self._current = None
                else:
                    self._receiver = self._receive(self._current)
        elif self._receiver.poll() is not None:
            self._receiver = None
            if time.monotonic() - self._received > FAILED_RECEIVER_SECONDS:
                return
            # What it needs is gone, or the server has a history of its own since.
            self._current = None
        if self._current is None or _is_due(self._current):
            self._begin(stopping)

    def _take_folder(self) -> None:
        """Make the folder, and keep others out. Raises PostgresError if it is not what it was, or if others have it."""
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

    def _leave_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self, stopping: threading.Event) -> None:
        self._take_folder()
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
        self._remove_older()
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
                raise PostgresError(f"no copy could be made in {place}: {said.read().decode(errors='replace').strip()}")
        (place / "base.new").rename(place / "base")

    def _after_all(self) -> datetime:
        """An instant after the beginnings of all that there are, also where a clock says otherwise by now."""
        beginnings = [begun(each) for each in self._folder.iterdir() if _is_backup(each)]
        return max(beginnings, default=datetime.min.replace(tzinfo=UTC)) + timedelta(seconds=1)

    def _remove_older(self) -> None:
        kept = _whole(self._folder)[-BACKUPS_KEPT:]
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


def newest(folder: Path) -> Path | None:
    """The newest whole backup in a folder."""
    return next(reversed(_whole(folder)), None)


def shares_a_disk(folder: Path, data: Path) -> bool:
    """Whether backups in a folder, which need not be there yet, are lost with the disk of the data."""
    folder = folder.absolute()
    # Path.exists raises OSError where this user may not look.
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110
    return there.stat().st_dev == data.stat().st_dev


def _whole(folder: Path) -> Sequence[Path]:
    """The whole backups in a folder, the newest last."""
    with suppress(FileNotFoundError):
        return sorted(each for each in folder.iterdir() if _is_backup(each) and (each / "base").exists())
    return []


def restore(postgres: Postgres, folder: Path, until: datetime | None) -> Path:
    """Make the data folder of a server from a backup, up to an instant or all of it, and start the server.

    Raises PostgresError, and leaves a data folder that is there as it is.
    """
    backups = _whole(folder.absolute())
    backup = _latest(backups, folder, until)
    if postgres.folder.exists() and any(postgres.folder.iterdir()):
        raise PostgresError(f"{postgres.folder} is not empty. Move it away, or choose another DATA_DIR")
    postgres.check_version(backup / "base", "docs/upgrades.md says how its readings get into a new database")
    if until is not None or _is_being_kept(folder):
        _close(backups)
    _make_data_folder(backup, postgres.folder, until)
    start(postgres)
    return backup


def start(postgres: Postgres) -> None:
    """Start a server; where it is being restored, to the end of that, also after a restore that was cut short."""
    try:
        postgres.start()
    except PostgresError as error:
        if _TARGET_AFTER_THE_END not in str(error):
            raise
        # So all of it was before the instant.
        _recover(postgres.folder, None)
        postgres.start()
    restored_log = postgres.folder / _RESTORED_LOG
    if not restored_log.exists():
        return
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        if missing := _files_not_replayed(connection, restored_log):
            postgres.tell(
                f"The log of the backup is damaged, or lacks a file: its last {missing} files are not restored"
            )
        for name in _RECOVERY:
            connection.execute(f"ALTER SYSTEM RESET {name}")
    shutil.rmtree(restored_log, ignore_errors=True)


def _files_not_replayed(connection: "psycopg.Connection[Any]", restored_log: Path) -> int:
    """How many files of the log are behind what a server replayed that was to replay all of it."""
    [(replayed,)] = connection.execute(
        "SELECT pg_last_wal_replay_lsn() - '0/0' WHERE current_setting('recovery_target_time') = ''"
    ).fetchall() or [(None,)]
    names = [file.name for file in restored_log.iterdir() if re.match("[0-9A-F]{24}", file.name)]
    if replayed is None or not names:
        return 0
    last = max(names)
    missing = int(last[8:16], 16) * (2**32 // _SEGMENT_BYTES) + int(last[16:24], 16) - int(replayed) // _SEGMENT_BYTES
    # There may be nothing in the last one but the rest of a record that has no end.
    return missing if missing > 1 else 0


def _close(backups: Sequence[Path]) -> None:
    # One that cannot be written to is not added to either.
    with suppress(OSError):
        for each in backups:
            (each / _CLOSED).touch()


def _is_being_kept(folder: Path) -> bool:
    """Whether a server is at work whose backups these are: what is restored goes another way than that."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        return is_taken(opened)
    finally:
        os.close(opened)


def _latest(backups: Sequence[Path], folder: Path, until: datetime | None) -> Path:
    """The last of the backups in the folder that was whole before an instant. Raises PostgresError if none was."""
    if not backups:
        raise PostgresError(f"{folder} has no backup")
    before = [each for each in backups if until is None or whole_at(each) < until]
    if not before:
        raise PostgresError(
            f"The first backup in {folder} was whole at {whole_at(backups[0]):%Y-%m-%dT%H:%M:%SZ}, later than UNTIL"
        )
    return before[-1]


def _make_data_folder(backup: Path, folder: Path, until: datetime | None) -> None:
    """Make the data folder of a server from the backup. The server recovers when it starts."""
    with leftovers.half_made(folder.parent) as place:
        new = place / "postgres"
        # A copy may have the log of a restore that was cut short.
        shutil.copytree(backup / "base", new, ignore=shutil.ignore_patterns(_RESTORED_LOG), copy_function=_copy)
        _copy_log(backup / "wal", new / _RESTORED_LOG)
        new.chmod(0o700)
        _recover(new, until)
        if owner := user.unprivileged(backup / "base"):
            owner.own_all(new)
        leftovers.put(new, folder)


def _copy(source: str | Path, target: str | Path) -> str | Path:
    """Copy a file. Raises PostgresError, which ends the copying of a folder at once."""
    try:
        return shutil.copy2(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PostgresError(f"{source} cannot be copied to {target} ({reason(error)}). Nothing was restored") from None


def _copy_log(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(source.iterdir()):
        try:
            _copy(file, target / file.name)
        except FileNotFoundError:
            # The backup goes on meanwhile, and the file is full and has its last name.
            _copy(file.with_suffix(""), target / file.stem)


_RECOVERY = ("hot_standby", "restore_command", "recovery_target_time", "recovery_target_action")
"""The settings of a restore."""
_TARGET_AFTER_THE_END = "recovery ended before configured recovery target was reached"


def _recover(folder: Path, until: datetime | None) -> None:
    """Have the next start of a server on the folder replay `restored-wal`, up to an instant or all of it."""
    with (folder / "postgresql.auto.conf").open("a") as lines:
        # It answers when all is replayed, not before: what is left of the log is removed then.
        lines.write("hot_standby = off\n")
        # The last file of the log is not full yet, and named so. A copy that fails is not the end of the log.
        file = f'f="{_RESTORED_LOG}/%f"; [ -e "$f" ] || f="$f.partial"; [ -e "$f" ] || exit 1'
        lines.write(f'restore_command = \'{file}; cp "$f" "%p" || exit 255\'\n')
        lines.write(f"recovery_target_time = '{until.isoformat() if until else ''}'\n")
        lines.write("recovery_target_action = 'promote'\n")
    (folder / "recovery.signal").touch()


def main() -> None:
    """Restore what BACKUP_DIR has to DATA_DIR, up to UNTIL if it is set. Raises SettingError."""
    folder, until = settings.path("BACKUP_DIR"), settings.text("UNTIL")
    if not folder:
        raise SettingError("BACKUP_DIR is not set: the folder that has the backup")
    instant = _instant(until) if until else None
    data = settings.path("DATA_DIR") or Path("data")
    with held(data):
        _restore(data, folder, instant)


def _instant(until: str) -> datetime:
    """The instant that UNTIL names. Raises SettingError for what is none, as a time without an offset."""
    try:
        instant = datetime.fromisoformat(until)
        if instant.tzinfo is not None:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        # Of the years 1 to 9999, as everywhere.
        pass
    raise SettingError(f"UNTIL is {until!r}; it must be an instant, such as 2026-11-26T08:30:00Z")


def _restore(data: Path, folder: Path, instant: datetime | None) -> None:
    postgres = Postgres(data / "postgres", log=data / "postgres.log", tell=print)
    try:
        backup = restore(postgres, folder, instant)
        with psycopg.connect(postgres.url(OWNER), autocommit=True) as connection:
            [(count, latest)] = connection.execute(
                "SELECT count(*), max(timestamp) AT TIME ZONE 'UTC' FROM temperatures"
            ).fetchall()
        print(f"Restored {backup} to {data}: {count} readings, the latest of {latest} UTC. Start it: make run")
    except PostgresError as error:
        raise SettingError(str(error)) from None
    except OSError as error:
        raise SettingError(f"{error.filename or folder} cannot be used ({reason(error)})") from None
    except KeyboardInterrupt:
        advice = f"Start it, and it goes on: make run. To restore it anew, move {postgres.folder} away"
        print(f"Stopped. {advice if postgres.has_data else 'Nothing was restored'}", file=sys.stderr)
        raise
    finally:
        postgres.stop()


def _wait_for_the_log(place: Path, receiver: "subprocess.Popen[bytes]", stopping: threading.Event) -> None:
    """Wait until the receiver writes: what is written from then on is not missed. Raises PostgresError."""
    deadline = time.monotonic() + FIRST_LOG_SECONDS
    while not any((place / "wal").iterdir()):
        if stopping.wait(0.05) or receiver.poll() is not None or time.monotonic() > deadline:
            raise PostgresError(f"the log cannot be written to {place}")


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


if __name__ == "__main__":
    command.run(main, interrupted=128 + signal.SIGINT)
