"""Whose turn it is at the database: questions that take long never have all of its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

BRIEF_SECONDS = 0.1
"""How long a question may take in the turn that is kept for brief ones."""


@dataclass(eq=False, slots=True)
class _Waiting:
    turn: asyncio.Future[bool]
    """Its result says whether it is a brief one."""
    brief: bool
    """Whether a brief one is of use."""


class Turns:
    """So many turns at once, all but one of them as long as they may take, and one of BRIEF_SECONDS.

    Nobody knows beforehand how long a question takes. One that does not end in a brief turn has to wait for one of the
    others. With one connection there is no brief turn.
    """

    def __init__(self, connections: int) -> None:
        self._long_ones = max(1, connections - 1)
        self._brief_ones = connections - self._long_ones
        self._waiting: list[_Waiting] = []

    @property
    def waiting(self) -> int:
        """How many questions wait for a turn."""
        return sum(not each.turn.done() for each in self._waiting)

    @asynccontextmanager
    async def next(self, *, brief: bool) -> AsyncIterator[bool]:
        """Wait for a turn, and have it for the context.

        Yields whether it is a brief one, which only happens where `brief` allows it.
        """
        got = await self._wait(brief=brief)
        try:
            yield got
        finally:
            self._end(brief=got)

    async def _wait(self, *, brief: bool) -> bool:
        if self._long_ones:
            self._long_ones -= 1
            return False
        if brief and self._brief_ones:
            self._brief_ones -= 1
            return True
        waiting = _Waiting(asyncio.get_running_loop().create_future(), brief)
        self._waiting.append(waiting)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                # It came at the same time.
                self._end(brief=waiting.turn.result())
            raise

    def _end(self, *, brief: bool) -> None:
        # The brief turn goes to the newest question: the older ones have been there longer than a brief one has to.
        order = reversed(self._waiting) if brief else self._waiting
        # Those that are given up are not gone yet.
        wanted = (each for each in order if not each.turn.done() and (each.brief or not brief))
        if first := next(wanted, None):
            self._waiting.remove(first)
            first.turn.set_result(brief)
        elif brief:
            self._brief_ones += 1
        else:
            self._long_ones += 1
