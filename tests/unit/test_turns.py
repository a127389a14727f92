"""Turns at the database: nobody waits for one that is free, and those who go away leave theirs to others."""

import asyncio
import random

import pytest

from average.turns import Turns


def test_questions_that_take_long_leave_the_last_connection_to_others() -> None:
    async def play() -> None:
        turns = Turns(4)
        forever = asyncio.Event()

        async def long() -> None:
            async with turns.next(brief=True) as brief:
                if not brief:
                    await forever.wait()
                    return
            async with turns.next(brief=False):
                await forever.wait()

        waiting = [asyncio.create_task(long()) for _ in range(12)]
        await asyncio.sleep(0)
        async with asyncio.timeout(1), turns.next(brief=True) as brief:
            assert brief
        forever.set()
        await asyncio.gather(*waiting)

    asyncio.run(play())


def test_a_turn_that_comes_when_its_question_is_given_up_goes_to_the_next() -> None:
    async def play() -> None:
        turns = Turns(1)
        answered: list[int] = []

        async def ask(number: int) -> None:
            async with turns.next(brief=False):
                answered.append(number)

        async with turns.next(brief=False):
            first, second = asyncio.create_task(ask(1)), asyncio.create_task(ask(2))
            await asyncio.sleep(0)
        # The turn is given to the first one by now, which does not know it yet.
        first.cancel()
        async with asyncio.timeout(1):
            await second
        assert (answered, first.cancelled()) == ([2], True)

    asyncio.run(play())


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_no_turn_is_lost_and_none_given_twice_whoever_comes_and_goes(connections: int) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def play() -> None:
        turns = Turns(connections)
        under_way = {True: 0, False: 0}
        most = {True: 0, False: 0}

        async def ask() -> None:
            for wanted in (True, False):
                async with turns.next(brief=wanted) as brief:
                    assert wanted or not brief
                    under_way[brief] += 1
                    most[brief] = max(most[brief], under_way[brief])
                    try:
                        for _ in range(chance.randrange(30)):
                            await asyncio.sleep(0)
                    finally:
                        under_way[brief] -= 1
                if not brief:
                    return

        tasks: list[asyncio.Task[None]] = []
        for _ in range(5_000):
            move = chance.random()
            if move < 0.3:
                tasks.append(asyncio.create_task(ask()))
            elif move < 0.4 and tasks:
                tasks.pop(chance.randrange(len(tasks))).cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert most == {True: min(1, connections - 1), False: max(1, connections - 1)}
        # All of them are there again.
        async with asyncio.timeout(1):
            held = [turns.next(brief=True) for _ in range(connections)]
            assert sorted([await turn.__aenter__() for turn in held]) == [False] * most[False] + [True] * most[True]

    asyncio.run(play())
