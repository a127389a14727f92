"""More than a function can take: it takes what it can, refuses the rest soon, and lets nobody stop the others."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import pytest

from bench import bodies
from bench.load import Outcome, run
from bench.stack import Served, command, megabytes, serve, target
from local.postgres import WRITER
from tests.support import LONG, embedded

SECONDS = 60 if LONG else 3
"""How long more is offered than can be taken."""
MEBIBYTE = 2**20
Record = Callable[[str, object], None]
ANSWERS = {HTTPStatus.CREATED, HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True)
class Ingest:
    """The function, and clients of it."""

    served: Served

    def load(self, requests: Iterator[bytes], connections: int, seconds: float = SECONDS) -> Outcome:
        """Offer requests as fast as the connections take them."""
        return run(self.served.port, requests, connections=connections, seconds=seconds, expected=ANSWERS)

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A client that is in no hurry."""
        connection = socket.create_connection(("127.0.0.1", self.served.port), timeout=60)
        connection.sendall(sent)
        return connection


@pytest.fixture(scope="module")
def ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    folder = tmp_path_factory.mktemp("overload")
    with (
        embedded(folder / "postgres", log=folder / "postgres.log") as postgres,
        serve(command(), target("ingest", postgres.url(WRITER)), log=folder / "log") as served,
    ):
        yield Ingest(served)


def capacity_of(ingest: Ingest) -> float:
    """Single readings that it stores in a second now: others use the machine too."""
    return goodput(ingest.load(bodies.singles(), 32, seconds=2))


def goodput(outcome: Outcome) -> float:
    """Requests that were stored in a second."""
    return outcome.statuses[HTTPStatus.CREATED] / outcome.seconds


def note(record: Record, what: str, capacity: float, outcome: Outcome, ingest: Ingest) -> None:
    record("overload", what)
    record("stored", f"{goodput(outcome):,.0f}/s, {goodput(outcome) / capacity:.2f} of capacity")
    record("refused", f"{outcome.statuses[HTTPStatus.SERVICE_UNAVAILABLE] / outcome.seconds:,.0f}/s")
    record("p99", f"{outcome.percentile(99):.0f} ms")
    record("slowest", f"{outcome.percentile(100):.0f} ms")
    record("memory", f"{megabytes(ingest.served):.0f} MB")


def test_a_thousand_clients_that_never_pause(ingest: Ingest, record_property: Record) -> None:
    def attempt() -> bool:
        capacity = capacity_of(ingest)
        outcome = ingest.load(bodies.singles(), 1000)
        note(record_property, "single readings over 1,000 connections", capacity, outcome, ingest)
        return outcome.percentile(99) < 3000 and goodput(outcome) > 0.4 * capacity

    assert any_of_three(attempt)


def test_arrays_that_the_database_cannot_take(ingest: Ingest, record_property: Record) -> None:
    arrays = itertools.cycle(bodies.arrays(1000, 200))

    def attempt() -> bool:
        before = goodput(ingest.load(arrays, 4, seconds=2))
        outcome = ingest.load(arrays, 300)
        # What slows the machine down meanwhile slows one of both down too.
        capacity = min(before, goodput(ingest.load(arrays, 4, seconds=2)))
        note(record_property, "arrays of 1,000 over 300 connections", capacity, outcome, ingest)
        refuses = outcome.statuses[HTTPStatus.SERVICE_UNAVAILABLE] > outcome.statuses[HTTPStatus.CREATED]
        return refuses and outcome.percentile(99) < 3000 and goodput(outcome) > 0.5 * capacity

    assert any_of_three(attempt)


def any_of_three(attempt: Callable[[], bool]) -> bool:
    """Whether an attempt succeeds: others use the machine too, and may have used it for only one side."""
    return any(attempt() for _ in range(3))


HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LARGE = HEAD + b"Content-Length: %d\r\n\r\n" % (8 * MEBIBYTE)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def idle_connections(ingest: Ingest) -> Iterator[None]:
    with ExitStack() as clients:
        for _ in range(2000):
            clients.enter_context(ingest.connect())
        yield


@contextmanager
def slow_clients(ingest: Ingest) -> Iterator[None]:
    """Half of them are slow with the headers, the others with the body."""
    with ExitStack() as clients:
        slow = [clients.enter_context(ingest.connect(head)) for head in (HEAD, CHUNKED) for _ in range(200)]
        stopping = threading.Event()

        def trickle() -> None:
            while not stopping.wait(0.5):
                for number, client in enumerate(slow):
                    # After half a minute their time is over.
                    with suppress(ConnectionError):
                        client.sendall(b"X" if number < 200 else b"1\r\n \r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


@contextmanager
def large_bodies_that_stay_unfinished(ingest: Ingest) -> Iterator[None]:
    with ExitStack() as clients:
        for _ in range(30):
            clients.enter_context(ingest.connect(LARGE)).sendall(b" " * (7 * MEBIBYTE))
        yield


@contextmanager
def bodies_without_end(ingest: Ingest) -> Iterator[None]:
    stopping = threading.Event()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"

    def send() -> None:
        while not stopping.is_set():
            with ingest.connect(CHUNKED) as client:
                try:
                    while not stopping.is_set():
                        client.sendall(chunk)
                except ConnectionError:
                    # It was told off and its connection closed; it comes again.
                    pass

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("abuse", "least"),
    # A client that sends as fast as it can takes a share of the processor: only the others' is not taken.
    [(idle_connections, 0.5), (slow_clients, 0.5), (large_bodies_that_stay_unfinished, 0.5), (bodies_without_end, 0.1)],
    ids=["2,000 idle connections", "400 slow clients", "30 bodies of 7 MiB that stay unfinished", "4 endless bodies"],
)
def test_others_are_served_beside(
    ingest: Ingest,
    abuse: Callable[[Ingest], AbstractContextManager[None]],
    least: float,
    request: pytest.FixtureRequest,
    record_property: Record,
) -> None:
    def attempt() -> bool:
        capacity = capacity_of(ingest)
        before = megabytes(ingest.served)
        with abuse(ingest):
            outcome = ingest.load(bodies.singles(), 32)
            grown = megabytes(ingest.served) - before
            note(record_property, f"beside {request.node.callspec.id}", capacity, outcome, ingest)
        assert outcome.statuses.keys() == {HTTPStatus.CREATED}
        assert grown < 120
        return outcome.percentile(99) < 500 and goodput(outcome) > least * capacity

    assert any_of_three(attempt)


def test_a_body_that_is_too_large_is_told_so_before_it_ends(ingest: Ingest) -> None:
    with ingest.connect(CHUNKED) as client:
        answer = b""
        chunk = b"100000\r\n" + b" " * MEBIBYTE + b"\r\n"
        for sent in itertools.count(1):
            try:
                client.sendall(chunk)
            except ConnectionError:
                break
            assert sent < 200, "the body may go on for ever"
        try:
            answer = client.recv(1000)
        except ConnectionError:
            # The system may have dropped the answer together with what was not read.
            return
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.long
def test_a_body_that_does_not_arrive_is_408(ingest: Ingest) -> None:
    started = time.monotonic()
    with ingest.connect(LARGE + b"[") as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.recv(1000) == b""
    assert 25 < time.monotonic() - started < 40
