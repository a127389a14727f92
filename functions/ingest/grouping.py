"""Which requests a connection stores next, with one commit."""

import asyncio
from collections import deque
from collections.abc import Sequence

from shared.backoff import Backoff
from shared.problems import Problem
from shared.readings import Reading

READINGS_WORTH_A_COMMIT = 1_000
"""So many readings are worth a commit of their own while another connection is busy. Fewer wait for the next group."""
STUCK_SECONDS = 0.1
"""A busy connection may be stuck after so long. Then another one takes what waits, however little it is."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
"""Until what failed is tried again."""


class Request:
    """Readings that are stored together or not at all, and the answer that their sender waits for.

    The answer is how many of the readings were stored before, or the Problem.
    """

    __slots__ = ("answer", "backoff", "readings", "size")

    def __init__(self, readings: Sequence[Reading], answer: asyncio.Future[int]) -> None:
        self.readings = readings
        self.size = len(readings)
        self.answer = answer
        self.backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    @property
    def waits(self) -> bool:
        """Whether there is no answer yet."""
        return not self.answer.done()

    def acknowledge(self, duplicates: int) -> bool:
        """Answer that the readings are stored, and return whether somebody still waited for that."""
        if waited := self.waits:
            self.answer.set_result(duplicates)
        return waited

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem, and forget the readings: the request may stay in the queue for long."""
        self.readings = ()
        if self.waits:
            self.answer.set_exception(problem)


class Group:
    """Requests that one connection tries to store."""

    __slots__ = ("requests",)

    def __init__(self, requests: list[Request]) -> None:
        self.requests = requests

    @property
    def has_one_request(self) -> bool:
        """Whether what fails with it can be the fault of no other request."""
        return len(self.requests) == 1


class Groups:
    """The requests that wait, and the connections that wait for them.

    The first connection stores whatever there is. Another one helps where there is enough for it, or where nobody took
    anything for a while. A group that failed is suspect: it comes back in halves, which no other request joins, so that
    in the end only a request at fault fails. One connection is left to the others, if there are several.
    """

    def __init__(self, *, connections: int, most_readings: int) -> None:
        self._connections = connections
        self._most_readings = most_readings
        self._loop = asyncio.get_running_loop()
        self._new: deque[Request] = deque()
        self._new_readings = 0
        self._suspects: deque[list[Request]] = deque()
        self._suspects_taken: set[Group] = set()
        self._suspects_next = False
        self._last_taken = 0.0
        self._idle: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: Request) -> None:
        """Have a request stored."""
        self._new.append(request)
        self._new_readings += request.size
        self._wake()

    async def until_wanted(self) -> None:
        """Wait until there is something to do for one connection more."""
        if not self._has_work_for_another(busy=self._connections - len(self._idle) - 1):
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            self._look_later()
            try:
                await idle
            finally:
                if idle in self._idle:
                    self._idle.remove(idle)
        self._last_taken = self._loop.time()

    def take(self, *, was_wanted: bool) -> Group | None:
        """What a connection is to store now, None if it is to wait until it is wanted.

        `was_wanted` is whether it was wanted since it took something: it takes whatever there is then.
        """
        while (was_wanted and self._new) or self._has_work_for_another(busy=self._connections - len(self._idle) - 1):
            suspects = self._may_take_suspects() and (self._suspects_next or not self._new)
            self._suspects_next = not suspects
            group = self._take_suspects() if suspects else self._take_new()
            if group.requests:
                self._wake()
                return group
        return None

    def put_back(self, group: Group) -> None:
        """Have the requests of a group that failed tried again, except those that are answered."""
        requests = [request for request in group.requests if request.waits]
        if len(requests) == 1 and group.has_one_request:
            (request,) = requests
            self._loop.call_later(request.backoff.pause_seconds(), self._put_alone, request)
            return
        middle = (len(requests) + 1) // 2
        # Ahead of those that failed alone: those are at fault, these may be not.
        self._suspects.extendleft(half for half in (requests[middle:], requests[:middle]) if half)

    def finish(self, group: Group) -> None:
        """Say that a connection does no more about a group."""
        self._suspects_taken.discard(group)
        self._wake()

    def _put_alone(self, request: Request) -> None:
        if request.waits:
            self._suspects.append([request])
            self._wake()

    def _may_take_suspects(self) -> bool:
        return bool(self._suspects) and len(self._suspects_taken) < max(1, self._connections - 1)

    def _take_suspects(self) -> Group:
        group = Group([request for request in self._suspects.popleft() if request.waits])
        if group.requests:
            self._suspects_taken.add(group)
        return group

    def _take_new(self) -> Group:
        requests: list[Request] = []
        room = self._most_readings
        while self._new and room > 0:
            request = self._new.popleft()
            self._new_readings -= request.size
            if request.waits:
                requests.append(request)
                room -= request.size
        self._last_taken = self._loop.time()
        return Group(requests)

    def _has_work_for_another(self, busy: int) -> bool:
        """Whether there is something for one connection more, while so many are busy."""
        if self._may_take_suspects():
            return True
        if not self._new:
            return False
        return (
            busy == 0
            or self._new_readings >= READINGS_WORTH_A_COMMIT
            or self._loop.time() - self._last_taken >= STUCK_SECONDS
        )

    def _wake(self) -> None:
        if not self._idle:
            return
        if self._has_work_for_another(busy=self._connections - len(self._idle)):
            self._last_taken = self._loop.time()
            self._idle.pop().set_result(None)
        else:
            self._look_later()

    def _look_later(self) -> None:
        """Have what is not worth a commit yet taken when it has waited for STUCK_SECONDS."""
        if self._new and self._timer is None:
            # A millisecond more: timers may be that much early.
            self._timer = self._loop.call_at(self._last_taken + STUCK_SECONDS + 0.001, self._look)

    def _look(self) -> None:
        self._timer = None
        self._wake()
