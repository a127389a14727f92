"""The server of the image, as clients of every sort meet it. The database is away: no reading is stored."""

import asyncio
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from starlette.testclient import TestClient

from bench import stack
from local import gateway
from shared import server
from shared.settings import SettingError
from tests.support import NOWHERE, free_port, listens, wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
READING = b'{"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}'
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(READING), READING)
MEBIBYTE = 1024 * 1024
LARGE = HEAD + b"Content-Length: %d\r\n\r\n" % (8 * MEBIBYTE)
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
Serve = Callable[..., TestClient]


@contextmanager
def serving(folder: Path) -> Iterator[stack.Served]:
    variables = {**stack.target("ingest", NOWHERE), "DEADLINE_SECONDS": "1"}
    with stack.serve(stack.command(), variables, log=folder / "log") as served:
        yield served
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Served]:
    with serving(tmp_path_factory.mktemp("ingest")) as served:
        yield served


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[stack.Served]:
    """One that a test may end."""
    with serving(tmp_path) as served:
        yield served


def connect(served: stack.Served, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    client.sendall(sent)
    return client


def heard(client: socket.socket) -> bytes:
    """All that the server says until it closes."""
    received = b""
    while part := client.recv(65536):
        received += part
    return received


def hears(served: stack.Served) -> None:
    """Return when the server has read what clients have sent before."""
    requests.get(f"http://127.0.0.1:{served.port}/health", timeout=10)


@pytest.mark.parametrize("sent", [REQUEST, REQUEST * 3, REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
def test_a_client_that_has_stopped_to_send_hears_the_answers(ingest: stack.Served, sent: bytes) -> None:
    with connect(ingest, sent) as client:
        client.shutdown(socket.SHUT_WR)
        # Which take until the deadline, since the database is away.
        assert heard(client).count(b"HTTP/1.1 503 ") == sent.count(b"POST")
    with connect(ingest, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        client.shutdown(socket.SHUT_WR)
        assert heard(client).startswith(b"HTTP/1.1 200 ")
    with connect(ingest) as client:
        client.shutdown(socket.SHUT_WR)
        assert heard(client) == b""


@pytest.mark.parametrize("sent", [HEAD, REQUEST[:-10], HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_a_client_that_stops_in_the_middle_is_told_so(ingest: stack.Served, sent: bytes) -> None:
    with connect(ingest, sent) as client:
        client.shutdown(socket.SHUT_WR)
        answer = heard(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The connection ended before the request did" in answer


def test_what_follows_a_request_is_answered_after_it(ingest: stack.Served) -> None:
    with connect(ingest, REQUEST + HEALTH + b"nonsense\r\n\r\n" + REQUEST) as client:
        answers = heard(client)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"503", b"200", b"400"]
    assert b"application/problem+json" in answers.partition(b"HTTP/1.1 400 ")[2]


def test_the_offer_of_another_protocol_is_passed_over(ingest: stack.Served) -> None:
    offer = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(ingest, offer + last) as client:
        assert heard(client).count(b"HTTP/1.1 200 ") == 2


def test_behind_the_offer_of_another_protocol_with_a_body_there_is_no_request(ingest: stack.Served) -> None:
    offer = HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n"
    with connect(ingest, offer + offer) as client:
        answers = heard(client)
    assert b'Behind the offer of another protocol there can be no more requests"' in answers


def test_a_client_that_goes_away_within_a_body_is_noted(ending: stack.Served, tmp_path: Path) -> None:
    with connect(ending, LARGE + b"[") as client:
        hears(ending)
        # It is gone without a word.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: "POST / answered 400" in (tmp_path / "log").read_text())


def test_no_answer_is_written_to_who_is_gone(ending: stack.Served) -> None:
    """A traceback would be in the log for it."""
    large = "/docs/any/redoc.standalone.js"
    requests.get(f"http://127.0.0.1:{ending.port}{large}", timeout=10)
    with connect(ending, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % large.encode() * 50) as client:
        # By now an answer waits until the client has taken the one before.
        hears(ending)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hears(ending)


def test_who_sends_on_what_is_refused_gets_the_answer(ingest: stack.Served) -> None:
    for beginning in (b"GET / HTTP/1.1\r\nX: ", HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"):
        with connect(ingest, beginning) as client:
            for _ in range(20):
                client.sendall(b"x" * 65536)
                time.sleep(0.01)
            assert heard(client).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_the_head_of_a_request_has_one_limit_however_it_arrives(ingest: stack.Served) -> None:
    for size, status in ((60_000, 200), (70_000, 431), (120_000, 431)):
        head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: %b\r\n\r\n" % (b"x" * size)
        for first in (0, 100, size // 2, size):
            with connect(ingest, head[:first]) as client:
                hears(ingest)
                client.sendall(head[first:])
                assert heard(client).startswith(b"HTTP/1.1 %d " % status), (size, first)


def test_the_end_of_a_body_is_no_part_of_the_next_head(ingest: stack.Served) -> None:
    body = HEAD + b"Content-Length: 60000\r\n\r\n[]" + b" " * 59_998
    head = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\nX: %b\r\n\r\n" % (b"x" * 20_000))
    with connect(ingest, body + head[:10]) as client:
        for begin, end in ((10, 10_000), (10_000, len(head))):
            hears(ingest)
            client.sendall(head[begin:end])
        assert re.findall(rb"HTTP/1.1 (\d+) ", heard(client)) == [b"201", b"200"]


@pytest.mark.parametrize("trailer", [b"Content-Type: text/csv", b"Content-Encoding: gzip", b"Sec-Fetch-Site: none, x"])
def test_what_follows_a_body_is_no_header_of_the_request(ingest: stack.Served, trailer: bytes) -> None:
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(ingest, head + b"2\r\n[]\r\n0\r\n%b\r\n\r\n" % trailer) as client:
        assert heard(client).startswith(b"HTTP/1.1 201 ")


def test_what_follows_a_body_is_not_kept(ingest: stack.Served) -> None:
    before = stack.megabytes(ingest)
    with connect(ingest, HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n") as client:
        for _ in range(16):
            client.sendall(b"X: \r\n" * (MEBIBYTE // 5))
        hears(ingest)
        assert stack.megabytes(ingest) - before < 50


def test_requests_of_a_client_that_reads_no_answer_are_not_kept(ingest: stack.Served) -> None:
    before = stack.megabytes(ingest)
    request = HEALTH.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"x" * 1_000))
    with connect(ingest) as client:
        client.settimeout(2)
        with suppress(TimeoutError):
            client.sendall(request * (64 * MEBIBYTE // len(request)))
        assert stack.megabytes(ingest) - before < 50
        # Its end is heard, so that no answer is written to who is gone.
        client.settimeout(20)
        client.shutdown(socket.SHUT_WR)
        assert heard(client).startswith(b"HTTP/1.1 200 ")


def test_all_requests_of_a_client_that_waits_for_none_are_answered(ingest: stack.Served) -> None:
    requests_of_each = 4_000
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    sent = (HEALTH + HEAD + b"Content-Length: 2\r\n\r\n[]") * requests_of_each + last
    with connect(ingest) as client:
        sender = threading.Thread(target=client.sendall, args=[sent])
        sender.start()
        answers = heard(client)
        sender.join()
    assert answers.count(b"HTTP/1.1 200 ") == requests_of_each + 1
    assert answers.count(b"HTTP/1.1 201 ") == requests_of_each


@contextmanager
def connected(seconds: float) -> Iterator[socket.socket]:
    """A connection to an application that reads a body and answers 204 after so long, in a server of this process."""

    async def answer(_: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    served = uvicorn.Server(server.configuration(answer, host="127.0.0.1", port=(port := free_port())))
    thread = threading.Thread(target=served.run)
    thread.start()
    try:
        wait_until(lambda: listens(port))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            yield client
    finally:
        served.should_exit = True
        thread.join()


def test_an_answer_may_take_longer_than_a_connection_may_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.2)
    with connected(seconds=0.6) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        # And then it is closed, since nothing more comes.
        assert heard(client).startswith(b"HTTP/1.1 204 ")


def test_a_request_that_came_in_parts_has_arrived_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer, and the next request, are not within the time that it had."""
    monkeypatch.setattr(server, "ARRIVAL_SECONDS", 1)
    with connected(seconds=1.5) as client:
        head, body = REQUEST.split(b"\r\n\r\n")
        for _ in range(2):
            client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
            # So the head is there before the body.
            assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert client.recv(1000).startswith(b"HTTP/1.1 204 ")


def test_a_client_of_http_1_0_is_sent_no_answer_before_the_answer() -> None:
    with connected(seconds=0) as client:
        client.sendall(REQUEST.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert heard(client).startswith(b"HTTP/1.1 204 ")


# What takes as long as the server waits.


@pytest.mark.long
@pytest.mark.parametrize(
    "sent",
    [HEAD, LARGE, LARGE + b"[", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", REQUEST + LARGE],
    ids=["half a head", "a body that never begins", "half a body", "chunks that never come", "after another request"],
)
def test_a_request_that_does_not_arrive_is_408(ingest: stack.Served, sent: bytes) -> None:
    started = time.monotonic()
    with connect(ingest, sent) as client:
        client.settimeout(40)
        answer = heard(client)
    assert b"HTTP/1.1 408 " in answer
    assert b"application/problem+json" in answer
    assert 25 < time.monotonic() - started < 40


@pytest.mark.parametrize("sent", [HEAD, LARGE, LARGE + b"[", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"])
def test_what_does_not_arrive_does_not_hold_up_the_end(ending: stack.Served, sent: bytes) -> None:
    with ExitStack() as clients:
        client = clients.enter_context(connect(ending, sent))
        clients.enter_context(connect(ending))
        hears(ending)
        started = time.monotonic()
        ending.process.send_signal(signal.SIGTERM)
        ending.process.wait(5)
        assert time.monotonic() - started < 3
        answer = heard(client)
    assert answer == b"" if sent == HEAD else answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer


def test_a_body_that_is_arriving_may_end_when_the_server_does(ending: stack.Served) -> None:
    with connect(ending, REQUEST[:-10]) as client:
        hears(ending)
        ending.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not listens(ending.port))
        client.sendall(REQUEST[-10:])
        assert b"The database does not answer" in heard(client)
    ending.process.wait(5)


def test_slow_bodies_make_room_for_others(ingest: stack.Served) -> None:
    faulty = READING.replace(b"22.5", b'99, "ignored": "%b"' % (b"x" * 1000))
    body = b"[" + b",".join([faulty] * 3000) + b"]"
    with ExitStack() as clients:
        slow = [clients.enter_context(connect(ingest, LARGE + b" " * (7 * MEBIBYTE))) for _ in range(12)]
        time.sleep(2.5)
        for _ in range(5):
            answer = requests.post(f"http://127.0.0.1:{ingest.port}/", data=body, timeout=10)
            assert answer.status_code == 422
        # For a second is read for nothing what the slow ones still send.
        time.sleep(1.5)
        metrics = requests.get(f"http://127.0.0.1:{ingest.port}/metrics", timeout=10).text
        assert 'reason="body_slow",status="503"' in metrics
        assert any(b'"The body arrives too slowly' in client.recv(1000) for client in slow[:1])


def test_a_connection_is_kept_for_a_device_that_sends_every_few_seconds(ingest: stack.Served) -> None:
    request = b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(ingest, request) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        # uvicorn closes after 5 seconds by itself.
        time.sleep(5.5)
        client.sendall(request)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


LOOP = 0.25
"""Seconds for which other requests may hang where nothing else runs."""


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"[" + b'{"":0},' * (8 * MEBIBYTE // 7 - 1) + b"0]"),
        ("application/json", b"[" + b"[]," * (8 * MEBIBYTE // 3 - 1) + b"0]"),
        ("application/x-ndjson", b"\n" * (8 * MEBIBYTE)),
        ("application/x-ndjson", b"\n" * (8 * MEBIBYTE - 3000) + b"{}\n" * 1000),
        ("text/csv", b"\n" * (8 * MEBIBYTE)),
        ("application/json", b"[" + b",".join([b'{"x": {}, "y": {}, "z": {}}'] * 10_000) + b"]"),
    ],
    ids=["objects", "arrays", "empty lines", "empty lines and faults", "empty lines of CSV", "faults"],
)
def test_no_body_costs_others_time_or_much_memory(ingest: stack.Served, content_type: str, body: bytes) -> None:
    before = stack.megabytes(ingest)

    def send() -> None:
        headers = {"content-type": content_type}
        answer = requests.post(f"http://127.0.0.1:{ingest.port}/", data=body, headers=headers, timeout=10)
        assert answer.status_code in {201, 413, 422}
        assert stack.megabytes(ingest) - before < 100

    def elsewhere() -> None:
        """As much work in another process, which shares no more than the machine with it."""
        subprocess.run([sys.executable, "-c", READ_JSON], input=body, check=True)

    assert slowest_meanwhile(ingest, send) < max(LOOP, 4 * slowest_meanwhile(ingest, elsewhere))


READ_JSON = """
import contextlib, json, sys
with contextlib.suppress(ValueError):
    json.loads(sys.stdin.buffer.read())
"""


def slowest_meanwhile(served: stack.Served, work: Callable[[], None]) -> float:
    """Do the work three times; seconds for which other requests hang each time."""
    seconds = [0.0] * 3
    stopping = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not stopping.is_set():
                started = time.monotonic()
                session.get(f"http://127.0.0.1:{served.port}/health", timeout=10)
                seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(3):
            work()
    finally:
        stopping.set()
        thread.join()
    return sorted(seconds)[-3]


# Who calls from elsewhere.

ORIGIN = "https://example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def test_an_event_source_that_asks_may_send(serve: Serve) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE, WRITE_TOKENS="a-token-0123456789")
    for path in ("/", "/temperature", "/v1/temperature"):
        asked = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
        answer = ingest.options(path, headers=asked)
        assert (answer.status_code, answer.headers["allow"]) == (200, "POST, OPTIONS")
        assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
        assert answer.headers["webhook-allowed-rate"] == "*"
    assert "webhook-allowed-origin" not in ingest.options("/health", headers=asked).headers
    assert ingest.options("/nowhere", headers=asked).status_code == 404


def test_options_are_told(serve: Serve) -> None:
    answer = serve("average").options("/health")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b"")


def test_by_default_pages_of_other_origins_may_read_nothing(serve: Serve) -> None:
    for name, path in (("ingest", "/"), ("average", "/health")):
        for answer in (serve(name, DATABASE_URL=NOWHERE).options(path, headers=PREFLIGHT),):
            assert not [header for header in answer.headers if header.startswith("access-control-")]


@pytest.mark.parametrize("listed", [ORIGIN, f"http://localhost:3000 {ORIGIN}", f"http://localhost,{ORIGIN}", "*"])
def test_pages_of_origins_that_are_listed_may_read_everything(serve: Serve, listed: str) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE, CORS_ORIGINS=listed)
    answer = ingest.options("/v1/temperature", headers=PREFLIGHT)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    for refused in (ingest.post("/", content=b"{", headers={"origin": ORIGIN}), ingest.get("/", headers=PREFLIGHT)):
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert refused.headers["vary"] == "Origin"
    # What a cache has of a request without one is no answer to a page.
    assert ingest.get("/health").headers["vary"] == "Origin"
    if listed != "*":
        other = ingest.post("/", content=b"{", headers={"origin": "https://example.org"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("listed", ["example.com", "https://example.com/", "https://*.example.com/x", "HTTPS://X"])
def test_what_is_no_origin_stops_the_start(serve: Serve, listed: str) -> None:
    with pytest.raises(SettingError, match="CORS_ORIGINS lists"):
        serve("ingest", DATABASE_URL=NOWHERE, CORS_ORIGINS=listed)


@pytest.mark.parametrize("name", ["ingest", "average", "simulate", "watch"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("TRACE", "/"), ("TRACE", "/health"), ("PROPFIND", "/metrics"), ("GET", "/favicon.ico"), ("GET", "/robots.txt")],
)
def test_what_the_framework_would_answer_is_a_problem_that_is_counted(
    serve: Serve, name: str, method: str, path: str
) -> None:
    function = serve(name, DATABASE_URL=NOWHERE)
    answer = function.request(method, path)
    assert answer.status_code == (404 if method == "GET" else 405)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert f'function="{name}",reason="",status="{answer.status_code}"' in function.get("/metrics").text


def test_head_says_how_long_get_is(serve: Serve) -> None:
    average: Any = serve("average", DATABASE_URL=NOWHERE)
    for path in ("/", "/health", "/settings", "/openapi.json", "/docs", "/nothing"):
        got, asked = average.get(path), average.head(path)
        assert (asked.status_code, asked.content) == (got.status_code, b"")
        assert asked.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ("reply", True),
        ("respond-async, reply", True),
        ("Reply; x=y , wait=10", True),
        ('handling=lenient; x="reply"', False),
        ("respond-async", False),
        ("", False),
    ],
)
def test_a_broker_that_would_take_any_body_for_a_failure_gets_none(serve: Serve, prefer: str, expected: bool) -> None:
    ingest = serve("ingest", DATABASE_URL=NOWHERE)
    answer = ingest.post("/", json=[], headers=[("prefer", "respond-async"), ("prefer", prefer)])
    assert (answer.status_code, answer.content == b"") == (201, expected)


def test_make_run_answers_for_all_functions_as_each_of_them_does() -> None:
    functions = {name: {"DATABASE_URL": NOWHERE} for name in ("ingest", "average", "simulate", "watch")}
    client: Any = TestClient(gateway.application(functions), base_url="http://localhost")
    assert (
        client.head("/openapi.json").headers["content-length"] == client.get("/openapi.json").headers["content-length"]
    )
    for method, path, status in (
        ("TRACE", "/temperature", 405),
        ("GET", "/favicon.ico", 404),
        ("TRACE", "/watch", 405),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "webhook-allowed-origin" in client.options("/", headers={"WebHook-Request-Origin": "example.com"}).headers
