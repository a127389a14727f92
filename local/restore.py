"""`python -m local.restore`: make a data folder of a backup, and have its server replay the log."""

import re
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from local import command, leftovers, user
from local.backup import close, is_being_kept, whole_at, whole_backups
from local.locks import held
from local.postgres import OWNER, Postgres
from local.user import PostgresError
from shared import settings
from shared.settings import SettingError, reason

_RESTORED_LOG = "restored-wal"
"""In the data folder of a server that is being restored."""
_SEGMENT_BYTES = 16 * 2**20
"""Of each file of the log."""
_RECOVERY = ("hot_standby", "restore_command", "recovery_target_time", "recovery_target_action")
"""The settings of a restore."""
_TARGET_AFTER_THE_END = "recovery ended before configured recovery target was reached"


def restore(postgres: Postgres, folder: Path, until: datetime | None) -> Path:
    """Make the data folder of a server from a backup, up to an instant or all of it, and start the server.

    Raises PostgresError, and leaves a data folder that is there as it is.
    """
    backups = whole_backups(folder.absolute())
    backup = _latest(backups, folder, until)
    if postgres.folder.exists() and any(postgres.folder.iterdir()):
        raise PostgresError(f"{postgres.folder} is not empty. Move it away, or choose another DATA_DIR")
    postgres.check_version(backup / "base", "docs/upgrades.md says how its readings get into a new database")
    if until is not None or is_being_kept(folder):
        close(backups)
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
        no_log = shutil.ignore_patterns(_RESTORED_LOG)
        try:
            shutil.copytree(backup / "base", new, ignore=no_log, copy_function=_copy)
        except shutil.Error as error:
            source, _, why = error.args[0][0]
            raise PostgresError(f"{source} cannot be copied ({why}). Nothing was restored") from None
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


if __name__ == "__main__":
    command.run(main, interrupted=128 + signal.SIGINT)
