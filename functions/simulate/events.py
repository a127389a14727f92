"""Readings as CloudEvents."""

from collections.abc import Mapping

from cloudevents.http import CloudEvent

from shared.delivery import room_event
from shared.readings import Reading, written

EVENT_TYPE = "dev.temperature.reading.v1"


def event(reading: Reading, extensions: Mapping[str, str]) -> CloudEvent:
    """The event of a reading, which is the same each time: its id is instant and temperature."""
    timestamp = written(reading["timestamp"])
    identity = f"{timestamp}/{reading['temperature']}"
    return room_event(EVENT_TYPE, {**reading, "timestamp": timestamp}, identity, timestamp, extensions)
