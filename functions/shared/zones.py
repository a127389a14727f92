"""Time zones by their IANA names. Their rules come from the package tzdata alone, whatever the machine knows."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@cache
def load(name: str) -> "ZoneInfo":
    """The time zone of that name, such as Europe/Zurich. Raises ValueError if there is none."""
    # Most requests and rules name none, and a start would pay for it.
    from zoneinfo import ZoneInfo

    if name not in _names():
        raise ValueError(f"{name!r} is no IANA time zone; one is Europe/Zurich")
    with (_folder() / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _names() -> frozenset[str]:
    return frozenset((_folder() / "zones").read_text(encoding="utf-8").split())


def _folder() -> Path:
    import tzdata

    return Path(tzdata.__file__).parent
