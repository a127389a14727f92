"""A game at random of readings and lists of rules, whose alarms are held against the model of `tests.excursions`.

The clock is made up. Readings come late, are of the future, or are removed; rules are changed, removed and made again.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import psycopg
from starlette.testclient import TestClient

from local.postgres import OWNER
from tests import clock
from tests.excursions import MINUTE, TEMPERATURES, Readings, Rule, Terms, meet
from tests.sink import Sink
from tests.support import SUPERUSER, Urls, remove

PAUSE = 3 * MINUTE
"""So long without a look, and silences count anew."""
WARM = (20.0, 27.0, 28.5, 31.0)
"""With these a room is beyond its threshold for long."""
ROOMS = (("B1", "101"), ("B1", "102"), ("B2", "101"))
# Around a change of the clock, of an hour or of half an hour, and in a zone of 45 minutes.
NIGHTS = (
    ("Europe/Berlin", datetime(2025, 10, 26, 0, 20, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 0, 20, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 14, 30, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 10, 4, 15, 0, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 1, 31, 17, 45, tzinfo=UTC)),
)
HOURS = ("mon-sun 01:40-02:10", "sun 02:00-03:00", "sat-sun 23:30-02:20", "sun-sat 01:00-01:50, sun 02:30-24:00")

Room = tuple[str, str]


class Alarm(NamedTuple):
    """One that is kept."""

    room: Room
    kind: str
    threshold: float
    temperature: float
    raised: datetime
    cleared: datetime | None
    severity: str


def terms_of(rules: Sequence[Rule], room: Room, kind: str) -> Terms | None:
    """Those of the narrowest rule."""
    of_room = [
        rule
        for rule in rules
        if rule.get("building_id", room[0]) == room[0] and rule.get("room_id", room[1]) == room[1]
    ]
    of_room.sort(key=lambda rule: ("building_id" in rule) + ("room_id" in rule), reverse=True)
    return next(filter(None, (Terms.of(rule, kind) for rule in of_room)), None)


def lists_of_rules(chance: random.Random, zone: str, minutes: int) -> Iterator[list[Rule]]:
    """Rules for all rooms, a building and a room, without end."""
    places: tuple[Rule, ...] = ({}, {"building_id": "B1"}, {"building_id": "B1", "room_id": "101"})
    while True:
        rules: list[Rule] = []
        for place in places:
            for threshold in ({"above": 28, "clear": chance.choice([26, 28])}, {"below": 16}, {"silent": "5m"}):
                if chance.random() < 0.5:
                    lasting = {"for": f"{chance.choice([2, 4]) * minutes}m"} if "silent" not in threshold else {}
                    hours = {"hours": chance.choice(HOURS), "zone": zone}
                    rules.append(
                        {
                            **place,
                            **threshold,
                            **(lasting if chance.random() < 0.4 else {}),
                            **(hours if chance.random() < 0.3 else {}),
                            "severity": chance.choice(["info", "warning", "critical"]),
                        }
                    )
        yield rules


@dataclass(frozen=True)
class Look:
    """What there is of a room and a kind after a look at it."""

    terms: Terms
    readings: Readings
    seen: AbstractSet[tuple[datetime, float]]
    """The readings that were looked at under these rules."""
    ends: AbstractSet[datetime]
    """Of the alarms that were over before."""
    alarms: Sequence[Alarm]
    told: str
    """All of it, for whoever reads that it is wrong."""

    def hold(self, new: Sequence[Alarm]) -> None:
        """Hold the alarms against the excursions, those that are new among them."""
        found = self.terms.excursions(self.readings, self.ends)
        for alarm in new:
            heat = self.terms.heat(alarm.raised, self.readings.get(alarm.raised, ()))
            assert self.terms.is_beyond(heat) and abs(heat) == abs(alarm.temperature), f"invented: {self.told}"
            of_it = [began for began, ended in found if began <= alarm.raised and ended == alarm.cleared]
            assert of_it, f"wrong: {self.told}"
            if self._was_seen_beyond(of_it[-1]):
                assert alarm.raised == of_it[-1], f"begins too late: {self.told}"
        spans = [(alarm.raised, alarm.cleared) for alarm in self.alarms]
        for each in found:
            if self._was_seen_beyond(each[0]):
                assert any(meet(each, span) for span in spans), f"missed: {each} {self.told}"
        if self.readings:
            self._hold_latest(max(self.readings))

    def _was_seen_beyond(self, instant: datetime) -> bool:
        of_it = [temperature for each, temperature in self.seen if each == instant]
        return self.terms.is_beyond(self.terms.heat(instant, of_it))

    def _hold_latest(self, latest: datetime) -> None:
        is_open = any(not alarm.cleared for alarm in self.alarms)
        if self.terms.is_calm(self.terms.heat(latest, self.readings[latest])):
            assert not is_open, f"open although calm: {self.told}"
        # A changed rule counts for the latest reading, which is the warmest of its instant.
        elif self.terms.is_beyond(self.terms.heat(latest, [max(self.readings[latest])])):
            may_wait = self.terms.lasting or any(end > latest for end in self.ends)
            assert is_open or may_wait, f"not open although beyond: {self.told}"


@dataclass
class Game:
    """A database, functions with different rules, and all readings that are stored."""

    urls: Urls
    serve: Callable[[Sequence[Rule]], TestClient]
    """Begin a function with rules."""
    sink: Sink
    chance: random.Random
    removes: bool
    """Otherwise some readings are of the future: a removal knows only the true clock."""
    minutes: int = 1
    """Between two readings, or two checks, at least. The smallest step of `watch` is an hour."""
    readings: dict[Room, dict[datetime, list[float]]] = field(default_factory=dict)
    functions: dict[str, TestClient] = field(default_factory=dict)
    """By their rules."""
    pending: dict[Room, set[tuple[datetime, float]]] = field(default_factory=dict)
    """What no look has seen."""
    seen: dict[Room, set[tuple[datetime, float]]] = field(default_factory=dict)
    """What was seen under these rules."""
    checked: datetime | None = None
    listening_since = datetime.min.replace(tzinfo=UTC)
    rarely = False

    def play(self, steps: int) -> None:
        zone, self.now = self.chance.choice(NIGHTS)
        self.temperatures = self.chance.choice([TEMPERATURES, WARM])
        lists = lists_of_rules(self.chance, zone, self.minutes)
        known = [next(lists) for _ in range(4)]
        self.change(known[0])
        with psycopg.connect(self.urls(OWNER), autocommit=True) as self.owner:
            for _ in range(steps):
                self.now += self.chance.choice([1, 1, 1, 1, 2, 6]) * self.minutes * MINUTE
                self.owner.execute("SELECT set_config('clock.now', %s, false)", (self.now.isoformat(),))
                for _ in range(self.chance.choice([0, 1, 1, 3])):
                    self.store()
                if self.removes and self.chance.random() < 0.1:
                    self.remove()
                if self.chance.random() < 0.15:
                    self.change(self.chance.choice([[], *known]))
                self.check()
            self.assert_events()

    def change(self, rules: Sequence[Rule]) -> None:
        name = json.dumps(rules)
        if name not in self.functions:
            self.functions[name] = self.serve(rules)
        self.rules, self.function, self.seen = rules, self.functions[name], {}

    def store(self) -> None:
        room = self.chance.choice(ROOMS)
        for _ in range(self.chance.choice([1, 1, 4])):
            ago = self.chance.choice([0, 1, 2, 3, 4, 6, 9, 12, 15, 20] + ([] if self.removes else [-2, -15]))
            instant, temperature = self.now - ago * self.minutes * MINUTE, self.chance.choice(self.temperatures)
            stored = self.owner.execute(
                "INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", (*room, instant, temperature)
            )
            if stored.rowcount:
                self.readings.setdefault(room, {}).setdefault(instant, []).append(temperature)
                self.pending.setdefault(room, set()).add((instant, temperature))

    def remove(self) -> None:
        room = self.chance.choice(ROOMS)
        since = self.now - self.chance.randint(0, 20) * self.minutes * MINUTE
        before = since + self.chance.choice([1, 3, 10]) * self.minutes * MINUTE
        above = self.chance.choice([None, 28])
        remove(self.owner, room, since, before, above)
        of_room = self.readings.get(room, {})
        for instant in [each for each in of_room if since <= each < before]:
            of_room[instant] = [each for each in of_room[instant] if above is not None and each <= above]
            if not of_room[instant]:
                del of_room[instant]
        for kept in (self.pending, self.seen):
            kept[room] = {(instant, each) for instant, each in kept.get(room, ()) if each in of_room.get(instant, ())}
        # What a calm reading that is gone had ended, before it was an alarm, is not looked at again.
        self.seen[room] = {(instant, each) for instant, each in self.seen[room] if instant >= before}
        for alarm in self.alarms().values():
            if alarm.kind != "silent":
                there = self.readings[alarm.room].get(alarm.raised, [])
                assert alarm.temperature in there, f"of what was removed: {alarm}"

    def check(self) -> None:
        with psycopg.connect(self.urls(SUPERUSER), autocommit=True) as superuser:
            clock.put(superuser, self.now)
        if self.checked and self.checked < self.now - PAUSE and not self.rarely:
            self.listening_since = self.now
        self.rarely = bool(self.checked and self.checked < self.now - PAUSE)
        self.checked = self.now
        before = self.alarms()
        answer = self.function.post("/")
        assert answer.status_code == 200 and not answer.json()["unsent"], answer.text
        after = self.alarms()
        assert answer.json()["raised"] == len({*after} - {*before})
        for room in self.readings:
            due = {reading for reading in self.pending.get(room, ()) if reading[0] <= self.now}
            self.pending.get(room, set()).difference_update(due)
            self.seen.setdefault(room, set()).update(due)
            for kind in ("high", "low", "silent"):
                self.compare(room, kind, before, after)

    def compare(self, room: Room, kind: str, before: Mapping[Any, Alarm], after: Mapping[Any, Alarm]) -> None:
        of_it = {id_: alarm for id_, alarm in after.items() if (alarm.room, alarm.kind) == (room, kind)}
        earlier = {id_: before[id_] for id_ in of_it if id_ in before}
        new = [alarm for id_, alarm in of_it.items() if id_ not in before]
        readings = {instant: each for instant, each in self.readings[room].items() if instant <= self.now}
        terms = terms_of(self.rules, room, kind)
        told = f"{room} {kind} at {self.now}: {terms} {sorted(readings.items())} {earlier} {of_it}"
        for alarm in new:
            assert terms and (alarm.threshold, alarm.severity) == (terms.limit, terms.severity), told
        if kind == "silent":
            assert self.silences(room, terms, readings, earlier) == [*of_it.values()], f"silence: {told}"
            return
        spans = sorted((alarm.raised, alarm.cleared or datetime.max.replace(tzinfo=UTC)) for alarm in of_it.values())
        assert all(one[1] <= other[0] for one, other in pairwise(spans)), f"twice: {told}"
        if terms:
            ends = {alarm.cleared for alarm in earlier.values() if alarm.cleared}
            Look(terms, readings, self.seen[room], ends, [*of_it.values()], told).hold(new)
        else:
            assert all(alarm.cleared for alarm in of_it.values()) and not new, f"without a rule: {told}"

    def silences(
        self, room: Room, terms: Terms | None, readings: Readings, earlier: Mapping[Any, Alarm]
    ) -> list[Alarm]:
        """The silences that there have to be now."""
        heard = max(readings, default=None)
        limit = timedelta(seconds=terms.limit) if terms else None
        if not terms or not limit or not heard:
            return [alarm._replace(cleared=alarm.cleared or self.now) for alarm in earlier.values()]
        is_heard = self.now - heard <= limit
        found = [
            alarm._replace(cleared=alarm.cleared or (self.now if is_heard else None)) for alarm in earlier.values()
        ]
        is_silent = terms.counts(self.now) and self.now - max(heard, self.listening_since) > limit
        if is_silent and all(alarm.cleared for alarm in found):
            found.append(Alarm(room, "silent", terms.limit, max(readings[heard]), self.now, None, terms.severity))
        return found

    def alarms(self) -> dict[Any, Alarm]:
        rows = self.owner.execute(
            "SELECT id, building_id, room_id, kind, threshold, temperature, raised, cleared, severity FROM alarms"
            " WHERE removed IS NULL ORDER BY raised, cleared, id"
        ).fetchall()
        return {id_: Alarm((building, room), *values) for id_, building, room, *values in rows}

    def assert_events(self) -> None:
        told: dict[str, list[str]] = {}
        for event in self.sink.events:
            id_, _, state = event["id"].partition("/")
            told.setdefault(id_, []).append(state)
        assert all(states in (["raised"], ["raised", "cleared"]) for states in told.values()), told
        for id_, alarm in self.alarms().items():
            assert told.pop(str(id_)) == (["raised", "cleared"] if alarm.cleared else ["raised"])
        # Of what was removed since, the sink was told that it is over.
        assert all(states == ["raised", "cleared"] for states in told.values())


def empty(urls: Urls) -> None:
    """Forget all readings, alarms, removals and looks."""
    with psycopg.connect(urls(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures, alarms, alarm_events, removals")
        connection.execute("UPDATE watching SET checked = NULL, listening_since = '-infinity', rarely = false")
