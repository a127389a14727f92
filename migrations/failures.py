"""Which failures of the migrations another try may mend: all but those that are final."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from shared.settings import SettingError

LIBRARY_IS_GONE = (
    "The server does not have the version of TimescaleDB any more that the database uses. Update the database to the"
    " one that it has: docs/upgrades.md#timescaledb"
)
EXIT_CODE = 78
"""That of a process whose failure is final: EX_CONFIG of sysexits.h. A Job that ends with it is not tried again."""


class Final(SettingError):
    """What stays so however often it is tried, until somebody changes a setting or the database."""


@contextmanager
def final() -> Iterator[None]:
    """What is refused in here is final. Raises Final."""
    try:
        yield
    except SettingError as refusal:
        raise Final(str(refusal)) from None


def library_is_gone(error: BaseException | None) -> bool:
    """Whether the server could not load TimescaleDB, whose libraries are called by their versions."""
    return isinstance(error, psycopg.errors.UndefinedFile) and "timescaledb" in str(error)
