"""What an earlier run on a data folder left behind when it was cut short: a server at work, or the lock of one.

The lock of a server is its file `postmaster.pid`. A number in there is no proof: after a loss of power it can be that
of any process. PostgreSQL itself would refuse to start then, and `pg_ctl stop` would end that process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local.user import PostgresError

LOCK_FILE = "postmaster.pid"
_PREFIX, _MARK = ".temperature-half-made-", "half-made"


def server(folder: Path) -> int | None:
    """The process of the server that is at work on the folder. Raises PostgresError where nobody can tell."""
    pid = _locked_by(folder)
    if pid is None:
        return None
    found = _works_on(pid, folder)
    if found is None:
        raise PostgresError(
            f"Process {pid} may be a PostgreSQL that is at work on {folder}. If it is, end it; if not, remove"
            f" {folder / LOCK_FILE}"
        )
    return pid if found else None


def release(folder: Path) -> None:
    """Have the lock of a server that is gone hold up the next one no more, whatever it says.

    The next server takes a lock for stale that holds the number of the process that starts it, which is this one. It
    still looks whether processes of the earlier one are at work in the memory that the rest of the lock names.
    """
    lock = folder / LOCK_FILE
    if lock.exists():
        _, _, rest = lock.read_bytes().partition(b"\n")
        lock.write_bytes(b"%d\n%b" % (os.getpid(), rest))


def sweep(parent: Path) -> None:
    """Remove what starts that were cut short left half made: it bears a mark, and nothing was ever kept there."""
    for old in parent.glob(f"{_PREFIX}*"):
        if old.is_dir() and ((old / _MARK).exists() or not any(old.iterdir())):
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def half_made(parent: Path) -> Iterator[Path]:
    """A folder of its own in `parent`, to make something in that is moved away when it is whole."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        (folder / _MARK).touch()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(new: Path, folder: Path) -> None:
    """Move what is whole to its place, where an empty folder may be."""
    if folder.exists():
        folder.rmdir()
    new.rename(folder)
    opened = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _locked_by(folder: Path) -> int | None:
    """The number of a process, maybe gone, that the lock names."""
    try:
        # Negative where a person works on it with `postgres --single`.
        return abs(int((folder / LOCK_FILE).read_bytes().split()[0])) or None
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _works_on(pid: int, folder: Path) -> bool | None:
    """Whether a process is a server on the folder; None if it is a server, and who knows on which."""
    command = _command(pid)
    if "postgres" not in Path(command.partition(" ")[0]).name and "/postgres -D " not in command:
        return False
    if f" -D {folder} " in f"{command} ":
        return True
    # A server works in its data folder.
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    return None


def _command(pid: int) -> str:
    """The command line of a process; empty if it is gone, or if this user may not see it."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        return ""
    shown = subprocess.run(["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, check=False)
    return os.fsdecode(shown.stdout).strip()
