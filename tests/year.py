"""A year of many noisy rooms, on a clock that is made up, and what their alarms have to be."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import psycopg
from numpy.typing import NDArray
from starlette.testclient import TestClient

from local.postgres import OWNER
from tests import clock
from tests.excursions import Readings, Span, Terms
from tests.sink import Sink, listening
from tests.support import SUPERUSER, Urls

BEGIN = datetime(2025, 11, 1, tzinfo=UTC)
STEP, LOOK = timedelta(hours=1), timedelta(hours=8)
"""How often a room sends, and how often it is looked at."""
STEPS_OF_A_LOOK = LOOK // STEP
LIMIT, CLEAR, LASTING, SILENT = 28.0, 26.5, timedelta(hours=3), timedelta(hours=9)
RULE = {"above": LIMIT, "clear": CLEAR, "for": "3h", "silent": "9h"}
DAY_STEPS = timedelta(days=1) // STEP
NEVER = 1 << 30

STORE = """
    INSERT INTO temperatures
    SELECT 'B1', room, to_timestamp(instant), temperature
    FROM unnest(%s::text[], %s::float8[], %s::float8[]) AS reading (room, instant, temperature)
    ORDER BY room, instant ON CONFLICT DO NOTHING
"""


@dataclass
class Year:
    """What rooms measure in each step, and with which look each reading is there."""

    temperatures: NDArray[numpy.float64]
    """By step and room; those that were not measured are NaN."""
    looks: NDArray[numpy.int64]
    """The look before which each arrived, NEVER if it was not measured."""
    seed: int

    @classmethod
    def of(cls, rooms: int, days: int, seed: int) -> "Year":
        """Rooms that follow the sun, drift, and tremble around the limit; some fall silent, and some send later.

        A device that had no network sends in order what it kept, and the last of it once more.
        """
        chance = numpy.random.default_rng(seed)
        steps = days * DAY_STEPS
        hours = numpy.arange(steps)[:, None] * (STEP / timedelta(hours=1))
        sun = 1.6 * numpy.sin(2 * numpy.pi * (hours / 24 + chance.random(rooms)))
        drift = numpy.empty((steps, rooms))
        drift[0] = 0
        for step in range(1, steps):
            drift[step] = 0.92 * drift[step - 1] + chance.normal(0, 0.5, rooms)
        temperatures = numpy.round(25 + sun + drift + chance.normal(0, 0.9, (steps, rooms)), 1).clip(-50, 50)
        looks = numpy.broadcast_to(numpy.arange(steps)[:, None] // STEPS_OF_A_LOOK, (steps, rooms)).copy()
        for room in range(rooms):
            for begin in numpy.flatnonzero(chance.random(steps) < 1 / 300):
                length = int(chance.integers(2, 40))
                # All begin at once, so that each has been heard when it is first looked at.
                if begin < 2 * STEPS_OF_A_LOOK or begin + length >= steps:
                    continue
                if chance.random() < 0.5:
                    temperatures[begin : begin + length, room] = numpy.nan
                else:
                    looks[begin : begin + length, room] = looks[begin + length, room]
        # What is measured while an outage goes on waits too.
        looks = numpy.maximum.accumulate(looks)
        looks[numpy.isnan(temperatures)] = NEVER
        return cls(temperatures, looks, seed)

    @property
    def number_of_looks(self) -> int:
        return -(-len(self.temperatures) // STEPS_OF_A_LOOK)

    def readings(self, room: int) -> Readings:
        """All that a room sends."""
        return {
            BEGIN + int(step) * STEP: [float(self.temperatures[step, room])]
            for step in numpy.flatnonzero(self.looks[:, room] != NEVER)
        }

    def told(self, room: int, span: Span) -> datetime:
        """When it is first looked at with a reading that shows that the excursion lasts."""
        first = -(-(span[0] + LASTING - BEGIN) // STEP)
        step = next(step for step in range(first, len(self.looks)) if self.looks[step, room] != NEVER)
        return look(int(self.looks[step, room]))

    def silences(self, room: int) -> Iterator[Span]:
        """When it is found silent, and heard again."""
        steps = numpy.flatnonzero(self.looks[:, room] != NEVER)
        heard = numpy.full(self.number_of_looks, -1)
        numpy.maximum.at(heard, self.looks[steps, room], steps)
        raised = None
        # Silence counts from the second look on: before it nobody knows that looks are that rare.
        for number, latest in enumerate(numpy.maximum.accumulate(heard)):
            now = look(number)
            is_silent = now - max(BEGIN + int(latest) * STEP, look(1)) > SILENT
            if is_silent and raised is None:
                raised = now
            elif raised and now - (BEGIN + int(latest) * STEP) <= SILENT:
                yield raised, now
                raised = None
        if raised:
            yield raised, None


def look(number: int) -> datetime:
    """When it is looked at."""
    return BEGIN + (number + 1) * LOOK


@dataclass
class Found:
    """What there was in a year, to be written down."""

    readings: int = 0
    crossings: int = 0
    """Alarms that there would be without `for` and `clear`."""
    excursions: int = 0
    silences: int = 0
    events: int = 0
    missed: list[Any] = field(default_factory=list)
    invented: list[Any] = field(default_factory=list)
    twice: list[Any] = field(default_factory=list)
    changed_twice: list[Any] = field(default_factory=list)
    """Alarms that were raised and cleared within the time that an excursion has to last."""


def live(urls: Urls, serve: Callable[..., TestClient], year: Year) -> Found:
    """Store a year as it comes, look every eight hours with the function itself, and say how that went."""
    url = clock.begin(urls)
    with listening() as sink:
        function = serve("watch", DATABASE_URL=url, ALARM_RULES=json.dumps([RULE]), ALARM_SINK_URL=sink.url)
        _play(urls, function, year)
        return _judge(urls, year, sink)


def _play(urls: Urls, function: TestClient, year: Year) -> None:
    order = numpy.argsort(year.looks, axis=None, kind="stable")
    sorted_looks = year.looks.ravel()[order]
    rooms = year.temperatures.shape[1]
    with (
        psycopg.connect(urls(OWNER), autocommit=True) as owner,
        psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser,
    ):
        again: list[Any] = []
        for number in range(year.number_of_looks):
            first, last = numpy.searchsorted(sorted_looks, [number, number + 1])
            steps, of_rooms = numpy.divmod(order[first:last], rooms)
            values = year.temperatures[steps, of_rooms]
            instants = BEGIN.timestamp() + steps * STEP.total_seconds()
            batch = [
                [*map(str, of_rooms.tolist())],
                instants.tolist(),
                values.tolist(),
            ]
            # The last that was sent is sent once more.
            owner.execute(STORE, [one + other for one, other in zip(batch, again or [[], [], []], strict=True)])
            again = [column[-3:] for column in batch]
            clock.put(superuser, look(number))
            answer = function.post("/")
            assert answer.status_code == 200 and answer.json()["unsent"] == 0, answer.text


def _judge(urls: Urls, year: Year, sink: Sink) -> Found:
    found = Found()
    alarms: dict[tuple[int, str], list[tuple[datetime, datetime | None, datetime]]] = {}
    with psycopg.connect(urls(OWNER)) as connection:
        for room, kind, raised, cleared, noticed in connection.execute(
            "SELECT room_id, kind, raised, cleared, noticed FROM alarms ORDER BY raised"
        ):
            alarms.setdefault((int(room), kind), []).append((raised, cleared, noticed))
        (found.readings,) = connection.execute("SELECT count(*) FROM temperatures").fetchone() or (0,)
        ends = connection.execute("SELECT count(*) + count(cleared) FROM alarms").fetchone()
    for room in range(year.temperatures.shape[1]):
        readings = year.readings(room)
        found.crossings += len(Terms("high", LIMIT, LIMIT, timedelta()).excursions(readings))
        true = Terms("high", LIMIT, CLEAR, LASTING).excursions(readings)
        silences = [*year.silences(room)]
        found.excursions += len(true)
        found.silences += len(silences)
        expected = {
            "high": [(*span, year.told(room, span)) for span in true],
            "silent": [(*span, span[0]) for span in silences],
        }
        for kind, wanted in expected.items():
            kept = alarms.get((room, kind), [])
            found.missed += [(room, kind, each) for each in wanted if each not in kept]
            found.invented += [(room, kind, each) for each in kept if each not in wanted]
        found.changed_twice += [
            (room, raised, cleared)
            for raised, cleared, _ in alarms.get((room, "high"), [])
            if cleared and cleared - raised < LASTING
        ]
    identities = [str(each["id"]) for each in sink.events]
    found.events = len(identities)
    found.twice = [identity for identity, times in Counter(identities).items() if times > 1]
    assert ends == (len({*identities}),), "each event is told"
    return found
