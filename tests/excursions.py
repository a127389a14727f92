"""What alarms have to be: a model of them that knows all readings at once, and a game of readings and checks."""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import event, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import OWNER, WATCHER
from tests.sink import Sink, listening
from tests.support import SUPERUSER, Urls

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RULES: Sequence[Mapping[str, Any]] = (
    {"above": 28},
    {"above": 28, "clear": 26},
    {"above": 28, "clear": 26, "for": "4m"},
    {"below": 16},
    {"below": 16, "clear": 17, "for": "2m"},
)
TEMPERATURES = (10.0, 15.9, 16.0, 16.5, 20.0, 26.0, 27.0, 28.0, 28.5, 31.0)

Reading = tuple[str, int, float]
"""A room, how many minutes or hours ago, and the temperature."""
_reading = st.tuples(st.sampled_from(["101", "102"]), st.integers(1, 12), st.sampled_from(TEMPERATURES))
_live = st.lists(_reading, min_size=1, max_size=4)
STEPS_OF_ONE_SESSION = st.one_of(
    st.tuples(st.just("store"), _live),
    st.tuples(st.just("check"), st.none()),
    st.tuples(st.just("sink refuses"), st.sampled_from([0, 1, 3])),
)
STEPS = st.lists(
    st.one_of(
        STEPS_OF_ONE_SESSION,
        st.tuples(st.just("two checks at once"), st.none()),
        st.tuples(st.just("check that is killed"), st.floats(0, 0.02)),
    ),
    min_size=2,
    max_size=16,
)


def excursions(
    readings: Mapping[datetime, float], *, kind: str, limit: float, clear: float, lasting: timedelta
) -> list[tuple[datetime, datetime | None]]:
    """From when to when a room was too warm or too cold; `readings` has the one furthest beyond of each instant."""
    sign = 1 if kind == "high" else -1
    found: list[tuple[datetime, datetime | None]] = []
    began: datetime | None = None
    last: datetime | None = None
    for instant in [*sorted(readings), None]:
        if instant is None or sign * readings[instant] <= sign * clear:
            if began is not None and last is not None and last - began >= lasting:
                found.append((began, instant))
            began = None
        else:
            if began is None and sign * readings[instant] > sign * limit:
                began = instant
            last = instant
    return found


@dataclass
class Game:
    """A database, a function and a sink; and all readings that were stored."""

    urls: Urls
    function: TestClient
    sink: Sink
    rule: Mapping[str, Any]
    now: datetime
    unit: timedelta = MINUTE
    """Of the times of readings."""
    readings: dict[str, dict[datetime, float]] = field(default_factory=dict)

    def play(self, steps: Sequence[tuple[str, Any]]) -> None:
        """Do one after the other, and hold the alarms against the model after each check, and in the end the events."""
        for name, argument in steps:
            if name == "store":
                self.store(argument)
            elif name == "sink refuses":
                self.sink.refuse(argument, 500)
            elif name == "check that is killed":
                self.check_that_is_killed(argument)
            else:
                number = 2 if name == "two checks at once" else 1
                with ThreadPoolExecutor(number) as pool:
                    answers = [*pool.map(lambda _: self.function.post("/").status_code, range(number))]
                assert {*answers} <= {200, 502}, answers
                self.assert_alarms()
        self.sink.refuse(0, 500)
        self.make_due()
        assert self.function.post("/").status_code == 200
        self.make_due()
        assert self.function.post("/").json()["unsent"] == 0
        self.assert_alarms()
        self.assert_events()

    def store(self, readings: Sequence[Reading]) -> None:
        with psycopg.connect(self.urls(OWNER), autocommit=True) as connection:
            for room, minutes, temperature in readings:
                instant = self.now - minutes * self.unit
                connection.execute(
                    "INSERT INTO temperatures VALUES ('B1', %s, %s, %s) ON CONFLICT DO NOTHING",
                    (room, instant, temperature),
                )
                kept = self.readings.setdefault(room, {})
                further = max if "above" in self.rule else min
                kept[instant] = further(kept.get(instant, temperature), temperature)

    def check_that_is_killed(self, after: float) -> None:
        with ThreadPoolExecutor(1) as pool, psycopg.connect(self.urls(SUPERUSER), autocommit=True) as superuser:
            checked = pool.submit(self.function.post, "/")
            threading.Event().wait(after)
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = %s AND datname = current_database()",
                (WATCHER,),
            )
            assert checked.result().status_code in {200, 502, 503}

    def make_due(self) -> None:
        with psycopg.connect(self.urls(OWNER)) as connection:
            connection.execute("UPDATE alarm_events SET next_attempt = now()")

    def assert_alarms(self) -> None:
        kind = "high" if "above" in self.rule else "low"
        limit = float(self.rule["above" if kind == "high" else "below"])
        clear = float(self.rule.get("clear", limit))
        lasting = int(self.rule.get("for", "0m")[:-1]) * self.unit
        with psycopg.connect(self.urls(OWNER)) as connection:
            rows = connection.execute("SELECT room_id, raised, cleared FROM alarms ORDER BY raised").fetchall()
        for room, readings in self.readings.items():
            alarms = [(raised, cleared) for of, raised, cleared in rows if of == room]
            found = excursions(readings, kind=kind, limit=limit, clear=clear, lasting=lasting)
            event(f"excursions: {min(len(found), 4)}")
            told = [[alarm for alarm in alarms if _meet(alarm, each)] for each in found]
            assert all(told), f"missed: {room} {found} {alarms}"
            assert not any(_meet(one, other) for place, one in enumerate(alarms) for other in alarms[:place]), (
                f"told twice: {room} {found} {alarms}"
            )
            sign = 1 if kind == "high" else -1
            assert all(sign * readings[raised] > sign * limit for raised, _ in alarms), f"invented: {room} {alarms}"
            assert [cleared for _, cleared in alarms].count(None) == [ended for _, ended in found].count(None)

    def assert_events(self) -> None:
        with psycopg.connect(self.urls(OWNER)) as connection:
            alarms = connection.execute("SELECT id, cleared IS NOT NULL FROM alarms").fetchall()
        told: dict[str, list[str]] = {}
        for each in self.sink.events:
            alarm, _, state = each["id"].partition("/")
            told.setdefault(alarm, []).append(state)
        for id_, ended in alarms:
            states = told.pop(str(id_))
            # At least once, so that the end may come twice, but never before the beginning.
            assert states[0] == "raised" and ("cleared" in states) == ended, states
        assert not told, "none is invented"


def _meet(one: tuple[datetime, datetime | None], other: tuple[datetime, datetime | None]) -> bool:
    return (other[1] is None or one[0] < other[1]) and (one[1] is None or other[0] < one[1])


def play(
    urls: Urls,
    serve: Callable[..., TestClient],
    rule: Mapping[str, Any],
    unit: timedelta,
    examples: settings,
    strategy: st.SearchStrategy[Any] = STEPS,
) -> None:
    """Play the game as often as `examples` says."""
    own = {name: value.replace("m", "h") if name == "for" and unit == HOUR else value for name, value in rule.items()}
    function = serve("watch", DATABASE_URL=urls(WATCHER), ALARM_RULES=json.dumps([own]), SINK_PATIENCE="1")

    @examples
    @given(strategy)
    def once(steps: Sequence[tuple[str, Any]]) -> None:
        empty(urls)
        with listening() as sink:
            # It is read with each request.
            os.environ["ALARM_SINK_URL"] = sink.url
            Game(urls, function, sink, rule, datetime.now(UTC), unit).play(steps)

    once()


def empty(urls: Urls) -> None:
    """Forget all readings and alarms."""
    with psycopg.connect(urls(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures, alarms, alarm_events")
