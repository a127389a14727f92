"""Alarms in a game at random: readings in any order, checks that are killed or run at once, a sink that refuses."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import WATCHER
from tests.excursions import RULES, STEPS, Game, empty
from tests.sink import Sink, listening
from tests.support import Urls, examples


@pytest.mark.parametrize("rule", RULES, ids=json.dumps)
def test_each_excursion_is_told_once_whatever_happens(
    plain: Urls, serve: Callable[..., TestClient], rule: Mapping[str, Any]
) -> None:
    @examples(12)
    @given(st.data())
    def play(data: st.DataObject) -> None:
        steps: Sequence[tuple[str, Any]] = data.draw(STEPS)
        empty(plain)
        with listening() as sink:
            Game(plain, started(sink), sink, rule, datetime.now(UTC)).play(steps)

    def started(sink: Sink) -> TestClient:
        # Read with each request.
        import os

        os.environ["ALARM_SINK_URL"] = sink.url
        return function

    function = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES=json.dumps([rule]), SINK_PATIENCE="1")
    play()
