"""When to try again what failed: after a pause that doubles, or when the one who refused it says."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

PASSING_STATUSES = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""They say nothing about what was sent: the same may be taken when it is sent again."""


class Backoff:
    """The pauses before what failed is tried again: each twice as long as the one before, up to the longest."""

    __slots__ = ("_failures", "_first_seconds", "_longest_seconds")

    def __init__(self, first_seconds: float, longest_seconds: float, *, failures: int = 0) -> None:
        """`failures` is how often it failed before."""
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._failures = failures

    def pause_seconds(self) -> float:
        """The pause after one more failure."""
        # A float has no room for what doubles for ever.
        pause = self._first_seconds * float(2 ** min(self._failures, 30))
        self._failures += 1
        return min(pause, self._longest_seconds)

    def reset(self) -> None:
        """Begin with the shortest pause again, after something succeeded."""
        self._failures = 0


def retry_after_seconds(value: str) -> float:
    """The seconds that a header Retry-After (RFC 9110, 10.2.3) asks for; 0 where it asks for none."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
