"""What alarms have to be: a model of them that knows all readings at once, and a game of readings and checks."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from hypothesis import currently_in_test_context, event, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import OWNER, WATCHER
from shared.sink import Sink as Target
from tests.sink import Sink, listening
from tests.support import SUPERUSER, Urls

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
Rule = Mapping[str, Any]
RULES: Sequence[Rule] = (
    {"above": 28},
    {"above": 28, "clear": 26},
    {"above": 28, "clear": 26, "for": "4m"},
    {"below": 16},
    {"below": 16, "clear": 17, "for": "2m"},
)
NO_RULE: Rule = {}
SMALL_SLICES = {
    "watch.alarms.ROOMS_LISTED_AT_ONCE": 1,
    "watch.alarms.ROOMS_LOCKED_AT_ONCE": 1,
    "watch.alarms.FIRST_ROOM_HOURS": 1,
    "watch.alarms.READINGS_AT_ONCE": 0,
}
"""What `watch` does in one step, as little as can be."""
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TEMPERATURES = (10.0, 15.9, 16.0, 16.5, 20.0, 26.0, 27.0, 28.0, 28.5, 31.0)
SINKS = 2

Span = tuple[datetime, datetime | None]
"""From when to when, None for what is not over."""
Readings = Mapping[datetime, Sequence[float]]
"""The temperatures of a room at each instant."""
Reading = tuple[str, int, float]
"""A room, how many minutes or hours ago, and the temperature."""
Ask = Callable[[Rule, Sink], Any]
"""Have a function with the rule look, whose sink this is; returns the answer."""
_reading = st.tuples(st.sampled_from(["101", "102"]), st.integers(1, 12), st.sampled_from(TEMPERATURES))
STORE = st.tuples(st.just("store"), st.lists(_reading, min_size=1, max_size=4))
CHECK = st.tuples(st.just("check"), st.none())
ANOTHER_RULE = st.tuples(st.just("another rule"), st.sampled_from([NO_RULE, *RULES]))
SINK_STEPS = st.one_of(
    st.tuples(st.just("sink refuses"), st.tuples(st.sampled_from([0, 1, 3]), st.sampled_from([400, 500]))),
    st.tuples(st.just("sink hangs up"), st.sampled_from([1, 2])),
    st.tuples(st.just("sink is slow"), st.sampled_from([0.0, 0.05])),
    st.tuples(st.just("another sink"), st.integers(0, SINKS - 1)),
)
STEPS_OF_ONE_SESSION = st.one_of(STORE, CHECK, STORE, CHECK, SINK_STEPS, ANOTHER_RULE)
STEPS = st.lists(
    st.one_of(
        STEPS_OF_ONE_SESSION,
        st.tuples(st.just("two checks at once"), st.none()),
        st.tuples(st.just("check that is killed"), st.floats(0, 0.02)),
    ),
    min_size=2,
    max_size=16,
)


@dataclass(frozen=True)
class Terms:
    """What a rule says of a kind of alarm."""

    kind: str
    limit: float
    """Degrees Celsius, or seconds of silence."""
    clear: float
    lasting: timedelta
    severity: str = "warning"
    hours: str = ""
    zone: str = "UTC"

    @classmethod
    def of(cls, rule: Rule, kind: str) -> "Terms | None":
        """Those of a rule, None if it says nothing of the kind."""
        name = {"high": "above", "low": "below", "silent": "silent"}[kind]
        if name not in rule:
            return None
        limit = _period(rule[name]).total_seconds() if kind == "silent" else float(rule[name])
        more = {each: rule[each] for each in ("severity", "hours", "zone") if each in rule}
        return cls(kind, limit, float(rule.get("clear", limit)), _period(rule.get("for", "0m")), **more)

    @property
    def sign(self) -> int:
        return -1 if self.kind == "low" else 1

    def counts(self, instant: datetime) -> bool:
        """Whether the instant is in the hours of the rule."""
        if not self.hours:
            return True
        local = instant.astimezone(ZoneInfo(self.zone))
        return any(_includes(part, local) for part in self.hours.split(", "))

    def heat(self, instant: datetime, temperatures: Sequence[float]) -> float:
        """How far the readings of an instant go in the direction of the limit."""
        return max((self.sign * each for each in temperatures), default=-inf) if self.counts(instant) else -inf

    def is_beyond(self, heat: float) -> bool:
        return heat > self.sign * self.limit

    def is_calm(self, heat: float) -> bool:
        return heat <= self.sign * self.clear

    def excursions(self, readings: Readings, ends: AbstractSet[datetime] = frozenset()) -> list[Span]:
        """Those that last, in order. One also ends where its alarm was told to be over."""
        found: list[Span] = []
        began = last = None
        for instant in sorted({*readings, *ends}):
            heat = self.heat(instant, readings[instant]) if instant in readings else -inf
            if instant in ends or self.is_calm(heat):
                if began and last and last - began >= self.lasting:
                    found.append((began, instant))
                began = None
            if instant in readings and not self.is_calm(heat):
                began = began or (instant if self.is_beyond(heat) else None)
                last = instant
        if began and last and last - began >= self.lasting:
            found.append((began, None))
        return found


def _period(text: str) -> timedelta:
    return int(text[:-1]) * {"m": MINUTE, "h": HOUR}[text[-1]]


def _includes(part: str, local: datetime) -> bool:
    days, hours = part.split()
    first, _, last = days.partition("-")
    begin, end = hours.split("-")
    named = {first}
    place = DAY_NAMES.index(first)
    while last and DAY_NAMES[place % 7] != last:
        place += 1
        named.add(DAY_NAMES[place % 7])
    today, yesterday = DAY_NAMES[local.weekday()], DAY_NAMES[local.weekday() - 1]
    now = f"{local:%H:%M}"
    if begin < end:
        return today in named and begin <= now < end
    return (today in named and now >= begin) or (yesterday in named and now < end)


@dataclass
class Game:
    """A database, functions and sinks; and all readings that were stored."""

    urls: Urls
    ask: Ask
    sinks: Sequence[Sink]
    rule: Rule
    now: datetime
    unit: timedelta = MINUTE
    """Of the times of readings."""
    other_steps: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    readings: dict[str, dict[datetime, list[float]]] = field(default_factory=dict)
    fresh: dict[str, set[datetime]] = field(default_factory=dict)
    """Of which readings came since the rule has been this one."""
    unseen: dict[str, set[datetime]] = field(default_factory=dict)
    """Of which readings came since it was looked at last."""

    def __post_init__(self) -> None:
        self.sink = self.sinks[0]
        self.rule = self.in_unit(self.rule)
        self.rules = [self.rule]

    def in_unit(self, rule: Rule) -> Rule:
        """The rule whose minutes are of the unit."""
        return {**rule, "for": rule["for"].replace("m", "h")} if "for" in rule and self.unit == HOUR else rule

    def play(self, steps: Sequence[tuple[str, Any]]) -> None:
        """Do one after the other, and hold the alarms against the model after each check, and in the end the events."""
        for name, argument in steps:
            if name == "store":
                self.store(argument)
            elif name == "another rule":
                self.change(argument)
            elif name in self.other_steps:
                self.other_steps[name]()
            elif name.startswith("sink"):
                self.hinder(name, argument)
            elif name == "another sink":
                self.sink = self.sinks[argument]
            elif name == "check that is killed":
                self.unseen.clear()
                self.check_that_is_killed(argument)
            else:
                self.check(2 if name == "two checks at once" else 1)
        for sink in self.sinks:
            for name, none in (("sink refuses", (0, 500)), ("sink hangs up", 0), ("sink is slow", 0.0)):
                self.sink = sink
                self.hinder(name, none)
            # The end of an alarm is told when its beginning is.
            for _ in range(2):
                self.make_due()
                answer = self.ask(self.rule, sink)
                assert answer.status_code == 200, answer.text
            assert answer.json()["unsent"] == 0
        self.unseen.clear()
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
                self.readings.setdefault(room, {}).setdefault(instant, []).append(temperature)
                for kept in (self.fresh, self.unseen):
                    kept.setdefault(room, set()).add(instant)

    def change(self, rule: Rule) -> None:
        if (rule := self.in_unit(rule)) != self.rule:
            self.rule = rule
            self.rules.append(rule)
            # What was looked at under another rule may be none of this one.
            self.fresh = {room: {*instants} for room, instants in self.unseen.items()}

    def hinder(self, name: str, argument: Any) -> None:
        if name == "sink refuses":
            self.sink.refuse(*argument)
        elif name == "sink hangs up":
            self.sink.to_reset = argument
        else:
            self.sink.seconds = argument

    def check(self, times: int = 1) -> None:
        with ThreadPoolExecutor(times) as pool:
            answers = [*pool.map(lambda _: self.ask(self.rule, self.sink).status_code, range(times))]
        assert {*answers} <= {200, 502}, answers
        self.unseen.clear()
        self.assert_alarms()

    def check_that_is_killed(self, after: float) -> None:
        with ThreadPoolExecutor(1) as pool, psycopg.connect(self.urls(SUPERUSER), autocommit=True) as superuser:
            checked = pool.submit(self.ask, self.rule, self.sink)
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
        with psycopg.connect(self.urls(OWNER)) as connection:
            rows = connection.execute("SELECT room_id, kind, raised, cleared FROM alarms ORDER BY raised").fetchall()
        for room, readings in self.readings.items():
            for kind in ("high", "low"):
                alarms = [(raised, cleared) for of, its, raised, cleared in rows if (of, its) == (room, kind)]
                self.assert_told_once(kind, alarms, readings)
                if terms := Terms.of(self.rule, kind):
                    self.assert_told(room, alarms, terms)
                else:
                    assert all(cleared for _, cleared in alarms), f"open without a rule: {room} {alarms}"

    def assert_told_once(self, kind: str, alarms: Sequence[Span], readings: Readings) -> None:
        assert not any(meet(one, other) for place, one in enumerate(alarms) for other in alarms[:place]), (
            f"told twice: {alarms}"
        )
        # One of an earlier rule stays what it was.
        rules = [terms for rule in self.rules if (terms := Terms.of(rule, kind))]
        for raised, _ in alarms:
            beyond = [terms.is_beyond(terms.heat(raised, readings[raised])) for terms in rules]
            assert any(beyond), f"invented: {alarms}"

    def assert_told(self, room: str, alarms: Sequence[Span], terms: Terms) -> None:
        readings = self.readings[room]
        found = terms.excursions(readings)
        if currently_in_test_context():
            event(f"excursions: {min(len(found), 4)}, rules: {min(len(self.rules), 3)}")
        fresh = self.fresh.get(room, set())
        missed = [each for each in found if each[0] in fresh and not any(meet(alarm, each) for alarm in alarms)]
        assert not missed, f"missed: {room} {missed} {alarms}"
        opened = [cleared for _, cleared in alarms].count(None)
        if len(self.rules) == 1:
            open_ = [each for each in found if each[1] is None and not self.was_told_over(room, alarms, each, terms)]
            assert opened == len(open_), f"{room} {found} {alarms}"
        elif len(readings[max(readings)]) == 1:
            latest = terms.heat(max(readings), readings[max(readings)])
            if terms.is_calm(latest):
                assert not opened, f"open although calm: {room} {alarms}"
            elif terms.is_beyond(latest) and not terms.lasting:
                assert opened, f"not open although beyond: {room} {alarms}"

    def was_told_over(self, room: str, alarms: Sequence[Span], excursion: Span, terms: Terms) -> bool:
        """Whether it was over when it was told so: the calm reading has another one of its instant beside it since.

        That alarm stays over. The next reading beyond the limit is another one.
        """
        readings = self.readings[room]
        return any(
            cleared is not None
            and meet((raised, cleared), excursion)
            and len(readings[cleared]) > 1
            and not any(terms.is_beyond(terms.heat(each, readings[each])) for each in readings if each >= cleared)
            for raised, cleared in alarms
        )

    def assert_events(self) -> None:
        with psycopg.connect(self.urls(OWNER)) as connection:
            alarms = connection.execute("SELECT id, cleared IS NOT NULL, sink FROM alarms").fetchall()
        for sink in self.sinks:
            told: dict[str, list[str]] = {}
            contents: dict[str, Any] = {}
            for each in sink.events:
                alarm, _, state = each["id"].partition("/")
                told.setdefault(alarm, []).append(state)
                assert contents.setdefault(each["id"], each.get_data()) == each.get_data(), "it says the same each time"
            for id_, ended, of in alarms:
                if of != Target(sink.url, "", 1, {}).digest:
                    continue
                states = told.pop(str(id_))
                # At least once, so that each may come again; but never the end before the beginning.
                assert states == sorted(states, reverse=True), states
                assert states[0] == "raised" and ("cleared" in states) == ended, states
            assert not told, "none is invented"


def meet(one: Span, other: Span) -> bool:
    """Whether they share an instant."""
    return (other[1] is None or one[0] < other[1]) and (one[1] is None or other[0] < one[1])


def play(
    urls: Urls,
    serve: Callable[..., TestClient],
    rule: Rule,
    unit: timedelta,
    examples: settings,
    strategy: st.SearchStrategy[Any] = STEPS,
) -> None:
    """Play the game as often as `examples` says, beginning with a rule."""
    functions: dict[tuple[str, str], TestClient] = {}

    def ask(rule: Rule, sink: Sink) -> Any:
        rules = json.dumps([rule] if rule else [])
        key = rules, sink.url
        if key not in functions:
            settings = {"DATABASE_URL": urls(WATCHER), "ALARM_RULES": rules, "SINK_PATIENCE": "1"}
            functions[key] = serve("watch", **settings, ALARM_SINK_URL=sink.url)
        return functions[key].post("/")

    @examples
    @given(strategy)
    def once(steps: Sequence[tuple[str, Any]]) -> None:
        empty(urls)
        with ExitStack() as stack:
            sinks = [stack.enter_context(listening()) for _ in range(SINKS)]
            Game(urls, ask, sinks, rule, datetime.now(UTC), unit).play(steps)

    once()


def empty(urls: Urls) -> None:
    """Forget all readings and alarms."""
    with psycopg.connect(urls(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures, alarms, alarm_events")
