"""The user that PostgreSQL runs as, since it refuses to run as root; and what that user may reach."""

import os
import pwd
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_BIT, PASS_BIT = 0o4, 0o1


class PostgresError(SystemExit):
    """The server cannot run; the message says why and what to do. Not caught, it ends the process with it."""


@dataclass(frozen=True, slots=True)
class User:
    """Another user than root, who started this process."""

    name: str
    uid: int
    gid: int

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments with which subprocess starts a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, folder: Path) -> None:
        """Make the folder this user's. Raises PostgresError where this root may not."""
        try:
            os.chown(folder, self.uid, self.gid)
        except OSError as error:
            raise PostgresError(
                f"PostgreSQL does not run as root, and {folder} cannot be given to the user {self.name}"
                f" ({error.strerror}). Start it as an ordinary user"
            ) from None

    def own_all(self, tree: Path) -> None:
        """Make the folder and all that is in it this user's. Raises PostgresError where this root may not."""
        for path in _all(tree):
            self.own(path)

    def may(self, path: Path, need: int) -> bool:
        """Whether the user may do with the path what the bits say: READ_BIT, PASS_BIT or both."""
        return _missing(path, self, need) == 0

    def let_pass(self, path: Path, tell: Callable[[str], None]) -> None:
        """Let the user get to the path: pass through the folders above it, not list or read them."""
        for parent in path.parents:
            if parent.exists() and self._allow(parent, PASS_BIT):
                tell(f"let other users pass through {parent} (chmod o+x): PostgreSQL does not run as root")

    def let_read(self, trees: Iterable[Path], tell: Callable[[str], None]) -> None:
        """Let the user read all that is in the folders, and run the programs there."""
        for tree in trees:
            self.let_pass(tree, tell)
            # Not any(): each of them counts.
            if [path for path in _all(tree) if self._allow(path, READ_BIT | (PASS_BIT if _passable(path) else 0))]:
                tell(f"let other users read {tree} (chmod -R o+rX): PostgreSQL does not run as root")

    def _allow(self, path: Path, need: int) -> bool:
        """Add the bits that are missing, and return whether any were. Raises PostgresError where that is refused."""
        missing = _missing(path, self, need)
        if missing:
            try:
                path.chmod(path.stat().st_mode | missing)
            except OSError as error:
                raise PostgresError(
                    f"PostgreSQL does not run as root but as the user {self.name}, who cannot get to {path}, and that"
                    f" cannot be changed ({error.strerror}). Start it as an ordinary user, or allow others to read it"
                ) from None
        return bool(missing)


def unprivileged(folder: Path) -> User | None:
    """Who the server runs on the folder as; None for who we are, unless that is root.

    For root it is whose the data is, else the user behind sudo or doas, else nobody. Raises PostgresError if there is
    none of them.
    """
    if os.geteuid() != 0:
        return None
    if (folder / "PG_VERSION").exists():
        status = folder.stat()
        if status.st_uid == 0:
            raise PostgresError(
                f"{folder} belongs to root, as whom PostgreSQL does not run. Give it to another user, such as:"
                f" chown -R nobody '{folder}'"
            )
        return User(_name(status.st_uid), status.st_uid, status.st_gid)
    for name in (os.environ.get("SUDO_USER"), os.environ.get("DOAS_USER"), "nobody"):
        try:
            entry = pwd.getpwnam(name or "")
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise PostgresError(
        "PostgreSQL does not run as root, and this machine has no user `nobody`. Start it as an ordinary user"
    )


def nameless() -> bool:
    """Whether this process runs as a user that the machine has no name for, as in some containers."""
    return not _name(os.geteuid(), "")


def _name(uid: int, default: str = "of another machine") -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return default


def _missing(path: Path, user: User, need: int) -> int:
    """The bits of the mode of the path that the user lacks, in the class that counts for the user."""
    status = path.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return (need << shift) & ~status.st_mode


def _passable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _all(tree: Path) -> Iterator[Path]:
    """The tree itself and all that is in it."""
    for folder, _, files in os.walk(tree):
        yield Path(folder)
        yield from (Path(folder, name) for name in files)
