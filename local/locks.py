"""Locks on files and folders, which keep others out of what somebody is at work on."""

import fcntl
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from shared.settings import SettingError, reason


def is_taken(opened: "int | io.BufferedIOBase") -> bool:
    """Whether somebody else has locked a file or folder; else lock it until it is closed.

    Some file systems of a network have no locks, or none for what is only read. Nobody is kept out there.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Make the folder for the data, and hold it.

    Raises SettingError if it cannot be used, or if somebody else is at work on it. Without a lock nobody is let in: of
    two, each would stop the server of the other.
    """
    with ExitStack() as stack:
        try:
            data.mkdir(parents=True, exist_ok=True)
            # Beside the data itself, which may be reached by more than one way.
            place = (data / "postgres").resolve().parent
            place.mkdir(parents=True, exist_ok=True)
            lock: IO[str] = stack.enter_context((place / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RuntimeError:
            raise SettingError(f"{data / 'postgres'} is a link that leads nowhere; choose another DATA_DIR") from None
        except BlockingIOError:
            raise SettingError(
                f"Another `make run`, or a `make restore`, is at work on the folder {data}. To run a second one beside"
                " it, give it its own port and folder: make run PORT=8081 DATA_DIR=data2"
            ) from None
        except OSError as error:
            raise SettingError(f"The folder {data} cannot be used ({reason(error)}); choose another DATA_DIR") from None
        yield
