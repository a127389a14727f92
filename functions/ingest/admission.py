"""How many readings may wait to be stored."""

from prometheus_client import Gauge

from shared.problems import unavailable

WAITING = Gauge("temperature_waiting_readings", "Readings that are not stored yet")
WAITING_LIMIT = Gauge("temperature_waiting_readings_limit", "Readings that may wait; where they do, more are refused")


class Admission:
    """Counts the readings that wait, and refuses further requests where `limit` readings or more do.

    It does not ask for the size of a request: how many readings a body holds is known only when it was received and
    parsed, and a guess would refuse what fits. So one request more than the limit may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.waiting = 0
        WAITING.set_function(lambda: self.waiting)
        WAITING_LIMIT.set(limit)

    @property
    def full(self) -> bool:
        """Whether further requests are refused."""
        return self.waiting >= self._limit

    def check(self) -> None:
        """Raise Problem 503 if further requests are refused."""
        if self.full:
            raise unavailable("queue_full", "Too many readings are waiting to be stored; send them again in a second")
