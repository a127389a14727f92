"""What is simulated: rooms, instants and temperatures, and how a request asks for them.

The instants lie on a fixed grid, the multiples of the interval since the Unix epoch, and a temperature depends on
nothing but room, instant and profile. So whoever simulates an instant again (a job that is tried again, a restart, two
backfills that overlap) makes the very same reading, which the database keeps once.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from random import Random
from typing import NotRequired, TypedDict

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared.periods import DAY_SECONDS, period
from shared.problems import Fault, Problem, fault
from shared.readings import IDENTIFIER, Reading
from shared.validation import faults, not_json, rule

MOST_READINGS = 1_000_000
MOST_ROOMS = 1_000
MOST_COMMAS = 10 * MOST_ROOMS
"""Of a body: each field that is not known is a fault of its own, and takes ten times as long as one that is."""


class Room(TypedDict):
    """A room, by the id of its building and its own."""

    building_id: str
    room_id: str


DEFAULT_ROOMS = [
    Room(building_id="B1", room_id="101"),
    Room(building_id="B1", room_id="102"),
    Room(building_id="B2", room_id="201"),
]


def _uniform(room: Room, instant: int) -> float:
    """Anything that a sensor may report, all of it equally likely."""
    return _random(room, instant).uniform(-50, 50)


def _daily(room: Room, instant: int) -> float:
    """What a heated room has: warmest at 15:00 UTC and coldest at 03:00, with a drift over the week and some noise."""
    mean, swing, drift, phase = _character(**room)
    day = math.tau * (instant / DAY_SECONDS - 15 / 24)
    week = math.tau * instant / (7 * DAY_SECONDS) - phase
    return mean + swing * math.cos(day) + drift * math.cos(week) + _random(room, instant).gauss(0, 0.15)


@lru_cache(maxsize=1_000)
def _character(building_id: str, room_id: str) -> tuple[float, float, float, float]:
    """What sets a room apart: its mean, how far day and week move it (degrees Celsius), and the phase of the week."""
    random = _random(Room(building_id=building_id, room_id=room_id))
    return random.uniform(20, 22), random.uniform(1.5, 2.5), random.uniform(0.3, 0.8), random.uniform(0, math.tau)


def _random(room: Room, *instant: int) -> Random:
    # No two rooms give the same seed, whatever their ids hold.
    return Random(ascii((room["building_id"], room["room_id"], *instant)))


PROFILES: Mapping[str, Callable[[Room, int], float]] = {"uniform": _uniform, "daily": _daily}
"""Temperatures in degrees Celsius, of a room at seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Readings of rooms at instants (seconds since the Unix epoch), each made when it is asked for."""

    rooms: Sequence[Room]
    instants: range
    profile: str

    def __len__(self) -> int:
        """How many readings there are."""
        return len(self.rooms) * len(self.instants)

    def __iter__(self) -> Iterator[Reading]:
        """Go through the readings as time does: all rooms at an instant, then all rooms at the next."""
        temperature = PROFILES[self.profile]
        for instant in self.instants:
            timestamp = datetime.fromtimestamp(instant, UTC)
            for room in self.rooms:
                yield Reading(**room, temperature=round(temperature(room, instant), 2), timestamp=timestamp)


def _whole_number(least: int, most: int, **documentation: object) -> core_schema.CoreSchema:
    return rule(
        core_schema.int_schema(strict=True, ge=least, le=most),
        f"a whole number from {least} to {most}",
        **documentation,
    )


def _optional(schema: core_schema.CoreSchema, default: object) -> core_schema.TypedDictField:
    return core_schema.typed_dict_field(core_schema.with_default_schema(schema, default=default), required=False)


class Parameters(TypedDict):
    """Which readings to make; all of it is optional."""

    rooms: list[Room]
    interval: int
    profile: str
    count: NotRequired[int]
    backfill: NotRequired[int]  # validated: seconds


ROOM = core_schema.typed_dict_schema(
    {
        "building_id": core_schema.typed_dict_field(IDENTIFIER),
        "room_id": core_schema.typed_dict_field(IDENTIFIER),
    },
    cls=Room,
    ref="SimulatedRoom",
    extra_behavior="forbid",
)
REQUEST = core_schema.typed_dict_schema(
    {
        "rooms": _optional(core_schema.list_schema(ROOM, min_length=1, max_length=MOST_ROOMS), DEFAULT_ROOMS),
        "interval": _optional(_whole_number(1, DAY_SECONDS, description="Seconds between the readings of a room"), 5),
        "profile": _optional(
            rule(core_schema.literal_schema([*PROFILES]), " or ".join(f'"{name}"' for name in PROFILES)), "uniform"
        ),
        "count": core_schema.typed_dict_field(
            # Not filled in, so that one that was sent can be told from the default.
            _whole_number(
                1, 10_000, default=1, description="Readings of each room, the last one now; not together with backfill"
            ),
            required=False,
        ),
        "backfill": core_schema.typed_dict_field(
            period(
                description="The period, ending now, to make readings of; not together with count", examples=["24h"]
            ),
            required=False,
        ),
    },
    cls=Parameters,
    ref="Parameters",
    extra_behavior="forbid",
)

_parameters = SchemaValidator(REQUEST)


def parse(body: bytes) -> Simulation:
    """The simulation that a body asks for, until now; an empty body asks for one reading of each of the default rooms.

    Raises Problem: 400 for what is not JSON, 413 for more commas than rooms can have, 422 with every fault for what
    breaks a rule.
    """
    if body.count(b",") > MOST_COMMAS:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request holds at most {MOST_COMMAS} commas")
    try:
        parameters: Parameters = _parameters.validate_json(body.strip(b" \t\r\n") or b"{}")
    except ValidationError as error:
        if problem := not_json(error):
            raise problem from None
        raise _refused(faults(error)) from None
    rooms, interval = parameters["rooms"], parameters["interval"]
    if "backfill" not in parameters:
        field, count = "count", parameters.get("count", 1)
    elif "count" in parameters:
        raise _refused([fault("count", "must not be given together with backfill")])
    elif parameters["backfill"] < interval:
        raise _refused([fault("backfill", f"must not be shorter than the interval, {interval} seconds")])
    else:
        field, count = "backfill", parameters["backfill"] // interval
    if count * len(rooms) > MOST_READINGS:
        message = f"must make at most {MOST_READINGS} readings of all rooms, not {count * len(rooms)}"
        raise _refused([fault(field, message)])
    last = int(time.time()) // interval * interval
    return Simulation(rooms, range(last - (count - 1) * interval, last + 1, interval), parameters["profile"])


def _refused(found: Sequence[Fault]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was emitted: the request breaks a rule", faults=found)
