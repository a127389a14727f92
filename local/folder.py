"""The folder for the data, held against everybody else who would work on it."""

import fcntl
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shared.settings import SettingError, reason


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Make the folder, and hold it. Raises SettingError if it cannot be used, or if somebody else is at work on it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        # Beside the data itself, which may be reached by more than one way.
        place = (data / "postgres").resolve().parent
        place.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (place / "lock").open("a")
    except RuntimeError:
        raise SettingError(f"{data / 'postgres'} is a link that leads nowhere; choose another DATA_DIR") from None
    except OSError as error:
        raise SettingError(f"The folder {data} cannot be used ({reason(error)}); choose another DATA_DIR") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingError(
                f"Another `make run`, or a `make restore`, is at work on the folder {data}. To run a second one beside"
                " it, give it its own port and folder: make run PORT=8081 DATA_DIR=data2"
            ) from None
        yield


def show_any_name() -> None:
    """Have the screen show what it can of the name of a folder or file, and the rest escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
