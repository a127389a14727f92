"""Readings as CloudEvents."""

from collections.abc import Callable

from cloudevents.http import CloudEvent

from shared.events import room_event
from shared.readings import Reading, written
from shared.sink import Sink

EVENT_TYPE = "dev.temperature.reading.v1"


def of(sink: Sink) -> Callable[[Reading], CloudEvent]:
    """A function that makes the event of a reading. Its id is instant and temperature, so it is the same each time."""

    def event(reading: Reading) -> CloudEvent:
        timestamp = written(reading["timestamp"])
        identity = f"{timestamp}/{reading['temperature']}"
        return room_event(EVENT_TYPE, {**reading, "timestamp": timestamp}, identity, timestamp, sink.extensions)

    return event
