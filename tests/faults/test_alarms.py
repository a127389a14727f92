"""Alarms while the database fails over, stalls and comes back: each excursion is told once, whatever happens."""

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import pytest
import requests

from bench.stack import command, serve, target
from local.postgres import WATCHER
from tests.excursions import RULES, TEMPERATURES, Game, Rule, empty
from tests.faults.pair import Pair
from tests.faults.stack import DEADLINE
from tests.sink import Sink, listening
from tests.support import LONG, free_port

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
GAMES, STEPS = (20, 40) if LONG else (1, 16)


def fail_over(pair: Pair, game: Game) -> None:
    del game
    pair.fail_over()


def fail_over_during_a_check(pair: Pair, game: Game) -> None:
    game.unseen.clear()
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(game.ask, game.rule, game.sink)
        threading.Event().wait(0.02)
        pair.fail_over()
        assert checked.result().status_code in {200, 502, 503}


def the_standby_stalls_during_a_check(pair: Pair, game: Game) -> None:
    game.unseen.clear()
    pair.replication.stall()
    try:
        assert game.ask(game.rule, game.sink).status_code == 503
    finally:
        pair.replication.resume()


STEPS_OF_A_PAIR: dict[str, Callable[[Pair, Game], None]] = {
    "fail over": fail_over,
    "fail over during a check": fail_over_during_a_check,
    "the standby stalls during a check": the_standby_stalls_during_a_check,
}


def steps(chance: random.Random) -> Iterator[tuple[str, Any]]:
    """What is done, without end."""

    def readings() -> list[tuple[str, int, float]]:
        return [
            (chance.choice(["101", "102"]), chance.randint(1, 12), chance.choice(TEMPERATURES))
            for _ in range(chance.randint(1, 4))
        ]

    while True:
        yield "store", readings()
        yield chance.choice(
            [
                ("check", None),
                ("check", None),
                ("two checks at once", None),
                ("check that is killed", 0.02 * chance.random()),
                ("sink refuses", (chance.choice([0, 1, 3]), chance.choice([400, 500]))),
                ("sink hangs up", 1),
                ("another rule", chance.choice(RULES[1:3])),
                *((name, None) for name in STEPS_OF_A_PAIR),
            ]
        )


@pytest.mark.parametrize("number", range(GAMES))
@pytest.mark.timeout(600)
def test_each_excursion_is_told_once_whatever_happens(pair: Pair, number: int) -> None:
    seed = SEED + number
    url = f"postgresql://{WATCHER}@127.0.0.1:{pair.link.port}/temperature?sslmode=disable"
    with ExitStack() as stack, listening() as sink:
        addresses: dict[str, str] = {}

        def ask(rule: Rule, to: Sink) -> requests.Response:
            rules = json.dumps([rule])
            if rules not in addresses:
                settings = {"ALARM_RULES": rules, "ALARM_SINK_URL": to.url, "SINK_PATIENCE": "1"}
                variables = {**target("watch", url), "DEADLINE_SECONDS": str(DEADLINE), **settings}
                served = stack.enter_context(serve(command(), variables, port=free_port()))
                addresses[rules] = f"http://127.0.0.1:{served.port}/watch"
            return requests.post(addresses[rules], timeout=60)

        def urls(role: str) -> str:
            # That of whichever is the primary now.
            return pair.postgres.url(role)

        empty(urls)
        game = Game(urls, ask, [sink], RULES[1], datetime.now(UTC))
        game.other_steps = {name: partial(step, pair, game) for name, step in STEPS_OF_A_PAIR.items()}
        # A failover is among them.
        played = [*islice(steps(random.Random(seed)), STEPS), ("fail over during a check", None), ("check", None)]
        try:
            game.play(played)
        except AssertionError as error:
            raise AssertionError(f"SEED={seed}: {error}\n{played}") from error
        empty(urls)
