"""Settings come from the environment; one that makes no sense stops the start with a sentence that says what to fix."""

import os
from pathlib import Path


class SettingError(SystemExit):
    """A setting cannot be used. It ends the process with its message, without a traceback."""


def reason(error: OSError) -> str:
    """Why the system refused something, for the sentence that says what to fix."""
    return os.strerror(error.errno) if error.errno else str(error)


def text(name: str, default: str = "") -> str:
    """The setting as it stands; an empty one counts as not set."""
    return os.environ.get(name, "").strip() or default


def words(name: str) -> list[str]:
    """What the setting lists, separated by spaces or commas."""
    return text(name).replace(",", " ").split()


def path(name: str) -> Path | None:
    """The setting as a path, None if it is not set; `~` is the home of the user.

    Not every shell puts that in its place, and a folder called `~` is what nobody means. Raises SettingError for the
    home of a user who has none.
    """
    value = text(name)
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError:
        raise SettingError(f"{name} is {value!r}, and nobody knows where that home is; write all of the path") from None


def whole_number(text: str) -> int:
    """The whole number that the text is. Raises ValueError for what only Python takes for one, such as 1_000."""
    if "_" in text or not text.isascii():
        raise ValueError
    return int(text)


def number(name: str, default: int, *, least: int, most: int) -> int:
    """The setting as a whole number from `least` to `most`, both included.

    Raises SettingError for anything else.
    """
    value = text(name, str(default))
    try:
        found = whole_number(value)
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise SettingError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return found


def switch(name: str, *, default: bool = False) -> bool:
    """The setting as true or false (1/0, yes/no, on/off). Raises SettingError for anything else."""
    value = text(name, str(default)).lower()
    if value in {"true", "1", "yes", "on"}:
        return True
    if value in {"false", "0", "no", "off"}:
        return False
    raise SettingError(f"{name} must be true or false, not {value!r}")
