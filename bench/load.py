"""Load: connections to one function, each of which sends its next request when the last one is answered."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import uvloop


@dataclass(slots=True)
class Outcome:
    """What became of the requests of a load."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds from the first byte of a request to the last of its answer, in ascending order."""
    statuses: Counter[HTTPStatus] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Requests answered in a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that `percent` of the requests do not exceed."""
        return 1000 * self.latencies[min(int(len(self.latencies) * percent / 100), len(self.latencies) - 1)]


def request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """A request of HTTP/1.1 as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def run(
    port: int,
    requests: Iterator[bytes],
    *,
    connections: int,
    seconds: float,
    expected: Set[HTTPStatus] = frozenset({HTTPStatus.CREATED}),
    rate: float | None = None,
) -> Outcome:
    """Send requests to 127.0.0.1 until the time is over or they are used up.

    Raises OSError if a connection breaks, and AssertionError if an answer has a status that is not expected.

    A `rate` is the number of requests that are due in a second; each counts from when it was due, also where the
    answer before it came late. Without it, each connection sends as soon as it can.

    Parsing and sending are as little as possible: the load shares the machine with what it measures.
    """
    outcome = uvloop.run(_run(port, requests, connections, seconds, connections / rate if rate else 0.0))
    assert outcome.statuses.keys() <= expected, outcome.statuses
    return outcome


async def _run(port: int, requests: Iterator[bytes], connections: int, seconds: float, period: float) -> Outcome:
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    opened = [
        (await loop.create_connection(lambda: _Connection(requests, outcome, period), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    # What is connected is not accepted yet: the server takes one connection in each turn of its loop.
    await asyncio.sleep(connections / 2000)
    gc.disable()
    started = time.perf_counter()
    try:
        await asyncio.gather(
            *(
                connection.start(started + period * number / connections, started + seconds)
                for number, connection in enumerate(opened)
            )
        )
        outcome.seconds = time.perf_counter() - started
    finally:
        gc.enable()
        for connection in opened:
            connection.transport.close()
    outcome.latencies.sort()
    return outcome


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, requests: Iterator[bytes], outcome: Outcome, period: float) -> None:
        self._requests = requests
        self._outcome = outcome
        self._period = period
        self._received = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, due: float, until: float) -> "asyncio.Future[None]":
        self._due = due
        self._until = until
        self._next(time.perf_counter())
        return self._done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the function closed a connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        now = time.perf_counter()
        self._outcome.latencies.append(now - self._due)
        self._outcome.statuses[HTTPStatus(int(head[9:12]))] += 1
        self._received = b""
        self._due = self._due + self._period if self._period else now
        self._next(now)

    def _next(self, now: float) -> None:
        if self._due > now:
            asyncio.get_running_loop().call_later(self._due - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        following = next(self._requests, None) if self._due < self._until else None
        if following is None:
            self._done.set_result(None)
        else:
            self.transport.write(following)
