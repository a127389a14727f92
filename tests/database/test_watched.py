"""Alarms by lists of rules that change, on a clock that is made up, held against a model after each check."""

import json
import os
import random
from collections.abc import Callable, Sequence

import pytest
from starlette.testclient import TestClient

from tests import clock
from tests.excursions import SMALL_SLICES, Rule
from tests.sink import Sink
from tests.support import LONG, Urls
from tests.watched import Game, empty

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
GAMES, STEPS = (100, 60) if LONG else (3, 32)


@pytest.mark.parametrize("removes", [False, True], ids=["some of the future", "some removed"])
@pytest.mark.timeout(3600 if LONG else 300)
def test_alarms_are_what_rules_and_readings_say_whatever_changes(
    plain: Urls, serve: Callable[..., TestClient], sink: Sink, removes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = clock.begin(plain)

    def function(rules: Sequence[Rule]) -> TestClient:
        return serve("watch", DATABASE_URL=url, ALARM_RULES=json.dumps(rules), ALARM_SINK_URL=sink.url)

    for seed in range(SEED, SEED + GAMES):
        empty(plain)
        sink.requests.clear()
        with monkeypatch.context() as patch:
            if seed % 2:
                for name, value in SMALL_SLICES.items():
                    patch.setattr(name, value)
            try:
                Game(plain, function, sink, random.Random(seed), removes, 30 if seed % 2 else 1).play(STEPS)
            except AssertionError as error:
                raise AssertionError(f"SEED={seed}: {error}") from error
