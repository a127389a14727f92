"""Which failures of the migrations another try may mend: all but those that are final."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.settings import SettingError

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
