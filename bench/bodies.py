"""Readings to send: each one new, of many rooms, as devices send them."""

import functools
import json
import time
from collections.abc import Iterator
from itertools import count

from bench.load import request

ROOMS = 100
_numbers = count(int(time.time() * 1_000_000))


def singles(rooms: int = ROOMS) -> Iterator[bytes]:
    """Requests of one reading each, without end."""
    while True:
        yield request("POST", "/v1/temperature", reading(next(_numbers), rooms))


def arrays(size: int, number: int, rooms: int = ROOMS) -> list[bytes]:
    """A number of requests that hold an array of readings each."""
    return [
        request("POST", "/v1/temperature", b"[" + b",".join(reading(next(_numbers), rooms) for _ in range(size)) + b"]")
        for _ in range(number)
    ]


def batches(size: int, number: int, rooms: int = ROOMS) -> list[bytes]:
    """A number of requests that hold a batch of CloudEvents each."""
    return [
        request(
            "POST",
            "/v1/temperature",
            b"[" + b",".join(_event(next(_numbers), rooms) for _ in range(size)) + b"]",
            "application/cloudevents-batch+json",
        )
        for _ in range(number)
    ]


def reading(number: int, rooms: int = ROOMS) -> bytes:
    """The reading at a number of microseconds since 1970, of one of the rooms."""
    room = number % rooms
    seconds, microseconds = divmod(number, 1_000_000)
    return b'{"building_id":"B%d","room_id":"%d","temperature":%d.%d,"timestamp":"%s.%06dZ"}' % (
        room % 5,
        room,
        room % 30,
        number % 10,
        _written(seconds),
        microseconds,
    )


@functools.lru_cache(2)
def _written(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()


def _event(number: int, rooms: int) -> bytes:
    room = number % rooms
    attributes = {
        "specversion": "1.0",
        "id": str(number),
        "source": f"/buildings/B{room % 5}/rooms/{room}",
        "type": "dev.temperature.reading.v1",
    }
    return json.dumps(attributes).encode()[:-1] + b',"data":' + reading(number, rooms) + b"}"
