"""The path below which a proxy has put a function and which it does not take away: PATH_PREFIX."""

import re

from shared import settings


def _prefix() -> str:
    prefix = settings.text("PATH_PREFIX").rstrip("/")
    # Most have none, and need not wait at each start until this is compiled.
    if prefix and not re.fullmatch(r"(/[\w.~-]+)+", prefix, re.ASCII):
        raise settings.SettingError(
            f"PATH_PREFIX is {prefix!r}. It must be a path of letters, digits, dots and hyphens, such as /temperatures"
        )
    return prefix


_PREFIX = _prefix()


def of(path: str) -> str:
    """The prefix that the path begins with; empty if there is none."""
    return _PREFIX if _PREFIX and f"{path}/".startswith(f"{_PREFIX}/") else ""


def without(path: str) -> str:
    """The path without the prefix. One that does not begin with it is left as it is: probes know nothing of a proxy."""
    return path[len(of(path)) :] or "/"
