"""A loss of power, after which a disk has only what was fsynced, and as much of the rest as bad luck leaves: nothing.

Files that were made, renamed or removed stay so: a journalling file system keeps those in order.
"""

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support import program

SOURCE = Path(__file__).with_suffix(".c")
HEAD = struct.Struct("qqq")


class PowerLoss:
    """Remembers what programs write below a folder, and takes back what they did not fsync."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._data = data
        self._journals = folder / "journals"
        self._journals.mkdir()
        self._journals.chmod(0o777)
        self._library = folder / "powerloss.so"
        subprocess.run(
            [program("cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self._library, SOURCE, "-ldl"],
            check=True,
        )

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment of programs that are watched."""
        return {
            "LD_PRELOAD": str(self._library),
            "POWERLOSS_DATA": str(self._data),
            "POWERLOSS_JOURNALS": str(self._journals),
        }

    def happen(self) -> int:
        """Take back what was not fsynced, and return how many writes that were. Whoever wrote has to be gone."""
        files = {path.stat().st_ino: path for path in self._data.rglob("*") if path.is_file()}
        taken = 0
        for journal in self._journals.iterdir():
            if path := files.get(int(journal.name)):
                taken += _take_back(path, journal.read_bytes())
            journal.unlink()
        return taken


def _take_back(path: Path, journal: bytes) -> int:
    records, at = [], 0
    while at + HEAD.size <= len(journal):
        offset, size, length = HEAD.unpack_from(journal, at)
        at += HEAD.size + length
        # One that is not whole was not followed by a write.
        if at <= len(journal):
            records.append((offset, size, journal[at - length : at]))
    with path.open("r+b") as file:
        for offset, size, old in reversed(records):
            os.pwrite(file.fileno(), old, offset)
            file.truncate(size)
    return len(records)
