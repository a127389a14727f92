"""Programs of other makers send readings to `ingest` as its image serves it: SDKs of CloudEvents, curl, Node, nc."""

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench import stack
from local.postgres import OWNER, WRITER
from tests.support import Urls, leave_out, program

HERE = Path(__file__).parent
READINGS = [
    {"building_id": "B1", "room_id": "Büro 1", "temperature": 20 + n / 2, "timestamp": f"2024-12-01T12:00:{n:02}Z"}
    for n in range(6)
]
JSON = "Content-Type: application/json"


@pytest.fixture
def address(plain: Urls, tmp_path: Path) -> Iterator[str]:
    with stack.serve(stack.command(), stack.target("ingest", plain(WRITER)), log=tmp_path / "log") as served:
        yield f"http://127.0.0.1:{served.port}/"


def run(*command: str | Path, input_: bytes | None = None) -> str:
    """What a command prints. It must end well, and soon."""
    ended = subprocess.run(command, capture_output=True, check=False, input=input_, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode() + ended.stdout.decode()
    return ended.stdout.decode()


def stored(urls: Urls) -> list[float]:
    with psycopg.connect(urls(OWNER)) as connection:
        rows = connection.execute("SELECT temperature FROM temperatures WHERE room_id = 'Büro 1' ORDER BY timestamp")
        return [temperature for (temperature,) in rows]


ALL = [reading["temperature"] for reading in READINGS]

# Of version 1 and of version 2, where each has its own names for the same.
PYTHON = """
import json, sys, urllib.request
address, readings = sys.argv[1], json.loads(sys.argv[2])
attributes = {"source": "/buildings/Z\u00fcrich/50%", "type": "dev.temperature.reading.v1", "subject": 'a "b" c',
              "datacontenttype": "application/json", "sequence": "1"}
try:
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent
    def sent(make, data):
        message = make(CloudEvent(dict(attributes), data))
        return message.headers, message.body
except ImportError:
    from cloudevents.http import CloudEvent, to_binary as to_binary_event, to_structured as to_structured_event
    def sent(make, data):
        return make(CloudEvent(attributes, data))
bodies = []
for index, reading in enumerate(readings):
    headers, body = sent((to_binary_event, to_structured_event)[index % 2], reading)
    if index % 2:
        bodies.append(json.loads(body))
    else:
        body = body if isinstance(body, bytes) else body.encode()
        urllib.request.urlopen(urllib.request.Request(address, body, dict(headers)))
headers, body = sent(to_structured_event, json.dumps(readings[0]).encode())
urllib.request.urlopen(urllib.request.Request(address, body, dict(headers)))
body, headers = json.dumps(bodies).encode(), {"Content-Type": "application/cloudevents-batch+json"}
urllib.request.urlopen(urllib.request.Request(address, body, headers))
"""
VERSION_2 = ("-m", "uv", "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable)


@pytest.mark.parametrize(
    "options",
    [(), (*VERSION_2, "--with-requirements", str(HERE / "python" / "requirements.txt"), "python")],
    ids=["version 1", "version 2"],
)
def test_the_sdk_for_python(address: str, plain: Urls, options: Sequence[str]) -> None:
    run(sys.executable, *options, "-c", PYTHON, address, json.dumps(READINGS))
    assert stored(plain) == ALL


def node(script: str, address: str) -> str:
    found = program("node")
    if not (HERE / "node" / "node_modules").exists():
        leave_out("the SDK for JavaScript (`make install` installs it)")
    return run(found, HERE / "node" / script, address, json.dumps(READINGS))


def test_the_sdk_for_javascript(address: str, plain: Urls) -> None:
    answers = [json.loads(line) for line in node("sdk.mjs", address).splitlines()]
    assert [answer["accepted"] for answer in answers] == [1, 1, 4]
    assert stored(plain) == ALL


def test_the_sdk_for_go(address: str, plain: Urls, tmp_path: Path) -> None:
    go = Path(sys.executable).with_name("go")
    subprocess.run([go, "build", "-o", tmp_path / "client", "."], check=True, cwd=HERE / "go")
    run(tmp_path / "client", address, json.dumps(READINGS))
    assert stored(plain) == ALL


def test_an_agent_of_node_keeps_its_connection(address: str, plain: Urls) -> None:
    answers = json.loads(node("agent.mjs", address))
    # The last one comes after a pause longer than that after which uvicorn would close by itself.
    assert answers == [[201, False], *[[201, True]] * (len(READINGS) - 1)]
    assert stored(plain) == ALL


def test_nc_that_has_nothing_more_to_send_hears_the_answer(address: str, plain: Urls) -> None:
    if sys.platform != "linux":
        pytest.skip("only the nc of OpenBSD, which Linux has, can be told to stop sending: -N")
    body = json.dumps(READINGS).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    port = address.rpartition(":")[2].strip("/")
    assert run(program("nc"), "-N", "127.0.0.1", port, input_=head + body).startswith("HTTP/1.1 201 ")
    assert stored(plain) == ALL


ONE, LINES = json.dumps(READINGS[0]).encode(), "".join(f"{json.dumps(each)}\n" for each in READINGS).encode()
MANY = json.dumps(READINGS).encode()
NDJSON = "Content-Type: application/x-ndjson"
EVENT = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "data": READINGS[0]}
# Options, what is sent, and how many readings are accepted.
TAKEN: Sequence[tuple[str, Sequence[str], bytes, int]] = [
    ("an array", ("-H", JSON), MANY, 6),
    ("HTTP/1.0", ("--http1.0", "-H", JSON), MANY, 6),
    ("an offer of HTTP/2", ("--http2", "-H", JSON), MANY, 6),
    ("chunks", ("-H", JSON, "-H", "Transfer-Encoding: chunked"), MANY, 6),
    ("100 continue", ("-H", JSON, "-H", "Expect: 100-continue"), MANY, 6),
    ("100 continue from HTTP/1.0", ("--http1.0", "-H", JSON, "-H", "Expect: 100-continue"), MANY, 6),
    ("no media type", ("-H", "Content-Type:"), ONE, 1),
    ("lines", ("-H", NDJSON), LINES, 6),
    *[(f"lines as {kind}", ("-H", f"Content-Type: application/{kind}"), LINES, 6) for kind in ("jsonl", "x-jsonlines")],
    ("lines of Windows", ("-H", NDJSON), b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"), 6),
    ("gzip", ("-H", NDJSON, "-H", "Content-Encoding: gzip"), gzip.compress(LINES), 6),
    ("gzip of another writer", ("-H", NDJSON, "-H", "Content-Encoding: gzip"), zlib.compress(LINES, wbits=31), 6),
    ("no encoding", ("-H", JSON, "-H", "Content-Encoding;"), MANY, 6),
    ("the same encoding twice", ("-H", JSON, *("-H", "Content-Encoding: identity") * 2), MANY, 6),
    ("the same media type twice", ("-H", JSON, "-H", JSON), MANY, 6),
    ("an event", ("-H", "Content-Type: application/cloudevents+json; charset=utf-8"), json.dumps(EVENT).encode(), 1),
    (
        "an event with both kinds of data, one of them null",
        ("-H", "Content-Type: application/cloudevents+json"),
        json.dumps({**EVENT, "data_base64": None, "subject": None}).encode(),
        1,
    ),
    *[
        (f"the time {time}", ("-H", JSON), json.dumps({**READINGS[0], "timestamp": time}).encode(), 1)
        for time in ("2024-12-01T12:00Z", "2024-12-01T13:00:00+0100", "2024-12-01T13:00+01", "2024-12-01 12:00:00Z")
    ],
]


def test_curl_with_its_options(address: str, plain: Urls, tmp_path: Path, subtests: pytest.Subtests) -> None:
    curl, file = program("curl"), tmp_path / "body"
    for name, options, body, accepted in TAKEN:
        with subtests.test(name):
            file.write_bytes(body)
            # A proxy of the machine is none of it.
            said = run(curl, "-sS", "--noproxy", "*", "-m", "10", *options, "--data-binary", f"@{file}", address)
            assert json.loads(said)["accepted"] == accepted
            assert stored(plain)[:1] == ALL[:1]
    assert stored(plain) == ALL


REFUSED: Sequence[tuple[str, Sequence[str], int, str]] = [
    ("no body", ("-X", "POST"), 411, "Content-Length"),
    ("TRACE", ("-X", "TRACE"), 405, "POST"),
    ("nothing but HTTP/2", ("--http2-prior-knowledge",), 400, "HTTP/1.1"),
    ("another compression", ("-d", "x", "-H", "Content-Encoding: br"), 415, "gzip"),
    ("a form", ("-F", "temperature=22.5"), 415, "application/json"),
    ("no gzip", ("-d", "x", "-H", "Content-Encoding: gzip"), 400, "not gzip"),
    ("an event as JSON", ("-d", json.dumps(EVENT), "-H", JSON), 422, "application/cloudevents+json"),
    ("lines as JSON", ("-d", LINES.decode(), "-H", JSON), 400, "application/x-ndjson"),
    (
        "a number of seconds",
        ("-d", json.dumps({**READINGS[0], "timestamp": 1733054400}), "-H", JSON),
        422,
        "such as 2024-12-01T12:34:56Z, and no number",
    ),
]


def test_curl_is_told_what_is_wrong(address: str, plain: Urls, subtests: pytest.Subtests) -> None:
    curl = program("curl")
    for name, options, status, hint in REFUSED:
        with subtests.test(name):
            out = ("-w", "\n%{http_code} %{content_type}", "--noproxy", "*", "-m", "10")
            ended: Any = subprocess.run([curl, "-sS", *out, *options, address], capture_output=True, check=False)
            body, _, outcome = ended.stdout.decode().rpartition("\n")
            if "prior" in options[0]:
                # It reads the answer of HTTP/1.1 as none of HTTP/2.
                assert ended.returncode != 0
                continue
            assert outcome == f"{status} application/problem+json"
            assert hint in body
    assert stored(plain) == []
