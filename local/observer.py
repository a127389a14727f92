"""Says what is wrong that nobody would notice: what the database knows of itself, and a disk that fills."""

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from local import backup
from migrations import health

log = logging.getLogger("local")

LOOK_SECONDS = 60
OLDEST_BACKUP = 2 * backup.BACKUP_INTERVAL
LATEST_FIRST_BACKUP = timedelta(hours=1)
"""From the start on, where there never was one."""
FREE_SHARE, FREE_BYTES = 0.05, 2**30
"""A disk with less than both is nearly full."""

Faults = Mapping[tuple[str, str], str]
"""What is wrong, in words, by what it is about."""


def observe(look: Callable[[], Faults], say: Callable[[str], None], stopping: threading.Event) -> None:
    """Say each fault once, and that it is over, until `stopping` is set.

    It counts when it was there a minute ago too: after a machine slept, everything is late for a moment.
    """
    before: Faults = {}
    said: dict[tuple[str, str], str] = {}
    while not stopping.wait(LOOK_SECONDS):
        try:
            found = look()
        except (psycopg.Error, OSError) as error:
            # That the database is away is said elsewhere.
            log.debug("how the database is cannot be seen: %s", error)
            continue
        for about in [about for about in found if about in before and about not in said]:
            said[about] = found[about]
            say(f"Health        {found[about]}")
            log.warning("%s", found[about])
        for about in [about for about in said if about not in found]:
            say(f"              That is over: {said.pop(about)}")
        before = found


def faults(
    url: str, folder: Path | None = None, backups: Path | None = None, *, since: datetime | None = None
) -> Faults:
    """What the database at a libpq connection string knows; the disk of the folder of its data; the age of its backup.

    Where there never was a backup, its age counts from `since`, the instant from which on there should have been one.
    Raises psycopg.Error if the database does not answer, and OSError for a folder that is gone.
    """
    found = {(measure.metric, measure.of): measure.fault for measure in health.look(url) if measure.fault is not None}
    if folder:
        disk = shutil.disk_usage(folder)
        if disk.free < min(FREE_SHARE * disk.total, FREE_BYTES):
            found["disk", ""] = (
                f"The disk of {folder} is nearly full: {disk.free // 2**20} MB are free."
                " docs/reliability.md#the-disk-fills"
            )
    if backups and (fault := _fault_of_backup(backups, since)):
        found["backup", ""] = f"{fault} docs/reliability.md#backups-stop"
    return found


def _fault_of_backup(backups: Path, since: datetime | None) -> str | None:
    now = datetime.now(UTC)
    try:
        newest = backup.newest(backups)
        made = newest and backup.whole_at(newest)
    except OSError:
        # Nobody gets to what it has, if anything.
        made = None
    if made and (age := now - made) > OLDEST_BACKUP:
        return f"The backup in {backups} is {age.days} days old, and no new one can be made."
    if not made and since and now - since > LATEST_FIRST_BACKUP:
        return f"There is no whole copy in {backups}, {(now - since) // timedelta(minutes=1)} minutes after the start."
    return None
