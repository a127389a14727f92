"""Which requests a connection stores next, with one commit."""

import asyncio
from collections import deque
from collections.abc import Sequence

from shared.problems import Problem
from shared.readings import Reading

ENOUGH = 1_000
"""Readings worth a commit of their own while another connection is busy. Fewer are better off in the next group."""
PATIENCE = 0.1
"""Seconds after which a busy connection may be stuck, and another takes what waits, however little."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds until what failed is tried again."""


class Pause:
    """Seconds until what failed is tried again: more each time."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = FIRST_PAUSE

    def longer(self) -> float:
        """The pause that is due; the next one is twice as long."""
        seconds, self.seconds = self.seconds, min(2 * self.seconds, LONGEST_PAUSE)
        return seconds

    def begin(self) -> None:
        """Begin with the shortest again, after something succeeded."""
        self.seconds = FIRST_PAUSE


class Request:
    """Readings that are stored together or not at all, and the answer that their sender waits for.

    The answer is how many of the readings were stored before, or the Problem.
    """

    __slots__ = ("answer", "pause", "readings", "size")

    def __init__(self, readings: Sequence[Reading], answer: asyncio.Future[int]) -> None:
        self.readings = readings
        self.size = len(readings)
        self.answer = answer
        self.pause = Pause()

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

    def alone(self) -> bool:
        """Whether what fails with it can be the fault of no other request."""
        return len(self.requests) == 1


class Groups:
    """The requests that wait, and the connections that wait for them.

    The first connection stores whatever there is. Another one helps where there is enough for it, or where nobody took
    anything for a while. A group that failed is suspect: it comes back in halves, which no other request joins, so that
    in the end only a request at fault fails. One connection is left to the others, if there are several.
    """

    def __init__(self, *, connections: int, batch: int) -> None:
        self._connections = connections
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._new: deque[Request] = deque()
        self._size = 0
        self._suspects: deque[list[Request]] = deque()
        self._suspects_taken: set[Group] = set()
        self._suspects_next = False
        self._attended = 0.0
        self._idle: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: Request) -> None:
        """Have a request stored."""
        self._new.append(request)
        self._size += request.size
        self._wake()

    async def wanted(self) -> None:
        """Wait until there is something to do for one connection more."""
        if not self._worthwhile(others=self._connections - len(self._idle) - 1):
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            self._look_again()
            try:
                await idle
            finally:
                if idle in self._idle:
                    self._idle.remove(idle)
        self._attended = self._loop.time()

    def take(self, *, called: bool) -> Group | None:
        """What a connection is to store now, None if it is to wait until it is wanted.

        `called` is whether it was wanted since it took something: it takes whatever there is then.
        """
        while (called and self._new) or self._worthwhile(others=self._connections - len(self._idle) - 1):
            suspects = self._may_try() and (self._suspects_next or not self._new)
            self._suspects_next = not suspects
            group = self._take_suspects() if suspects else self._take_new()
            if group.requests:
                self._wake()
                return group
        return None

    def again(self, group: Group) -> None:
        """Have the requests of a group that failed tried again, except those that are answered."""
        requests = [request for request in group.requests if request.waits]
        if len(requests) == 1 and group.alone():
            (request,) = requests
            self._loop.call_later(request.pause.longer(), self._put_alone, request)
            return
        middle = (len(requests) + 1) // 2
        # Ahead of those that failed alone: those are at fault, these may be not.
        self._suspects.extendleft(half for half in (requests[middle:], requests[:middle]) if half)

    def done(self, group: Group) -> None:
        """Say that a connection does no more about a group."""
        self._suspects_taken.discard(group)
        self._wake()

    def _put_alone(self, request: Request) -> None:
        if request.waits:
            self._suspects.append([request])
            self._wake()

    def _may_try(self) -> bool:
        return bool(self._suspects) and len(self._suspects_taken) < max(1, self._connections - 1)

    def _take_suspects(self) -> Group:
        group = Group([request for request in self._suspects.popleft() if request.waits])
        if group.requests:
            self._suspects_taken.add(group)
        return group

    def _take_new(self) -> Group:
        requests: list[Request] = []
        room = self._batch
        while self._new and room > 0:
            request = self._new.popleft()
            self._size -= request.size
            if request.waits:
                requests.append(request)
                room -= request.size
        self._attended = self._loop.time()
        return Group(requests)

    def _worthwhile(self, others: int) -> bool:
        """Whether there is something for one connection more, while `others` are busy."""
        if self._may_try():
            return True
        if not self._new:
            return False
        return others == 0 or self._size >= ENOUGH or self._loop.time() - self._attended >= PATIENCE

    def _wake(self) -> None:
        if not self._idle:
            return
        if self._worthwhile(others=self._connections - len(self._idle)):
            self._attended = self._loop.time()
            self._idle.pop().set_result(None)
        else:
            self._look_again()

    def _look_again(self) -> None:
        """See to it that what is not worthwhile now is taken when it has waited for long enough."""
        if self._new and self._timer is None:
            # A millisecond more: timers may be that much early.
            self._timer = self._loop.call_at(self._attended + PATIENCE + 0.001, self._look)

    def _look(self) -> None:
        self._timer = None
        self._wake()
