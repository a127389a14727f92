"""The sink of dead letters, run as its image runs it with what the manifests say."""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import requests
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent

from local.postgres import OWNER, WRITER
from tests.manifests.support import environment, of_kind, overlay, templates
from tests.sink import Sink
from tests.support import NOWHERE, ROOT, Urls, free_port, listens, wait_until

READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}
PROBLEM = {
    "status": 422,
    "detail": "Nothing was stored: some readings break a rule",
    "errors": [{"index": 0, "field": "temperature", "message": "must be a number from -50 to 50 (degrees Celsius)"}],
}
INGEST = "http://ingest.temperature.svc.cluster.local"


class Served(NamedTuple):
    address: str
    process_id: int

    @property
    def peak_bytes(self) -> int:
        """Of its memory, so far."""
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process_id}/status").read_text())
        return int(peak) * 1024


@contextmanager
def _server(log: Path, **variables: str) -> Iterator[Served]:
    """A function as its image serves it."""
    port = free_port()
    passed = {"PATH": os.environ["PATH"], "PORT": str(port), "PYTHONPATH": str(ROOT / "functions")}
    with log.open("a") as output:
        command = [sys.executable, "-m", "shared.server"]
        server = subprocess.Popen(command, env={**variables, **passed}, stderr=output, stdout=output)
    try:
        wait_until(lambda: server.poll() is not None or listens(port), seconds=30)
        yield Served(f"http://127.0.0.1:{port}/", server.pid)
    finally:
        server.terminate()
        server.wait(10)


class Box:
    """The function, its folder, and its program."""

    def __init__(self, folder: Path) -> None:
        objects = overlay("eventing")
        (source,) = next(
            value["data"].values()
            for name, value in of_kind(objects, "ConfigMap").items()
            if name.startswith("dead-letters")
        )
        template = templates(objects)["dead-letter-box"]
        limit = template["spec"]["containers"][0]["resources"]["limits"]["memory"]
        self.memory_limit_bytes = int(limit.removesuffix("Mi")) * 1024 * 1024
        self.function = template["spec"]["containers"][0]["image"].rpartition("/")[2].partition(":")[0]
        self.settings = environment(template)
        self.program = folder / Path(self.settings["FUNCTION_SOURCE"]).name
        self.program.write_text(source)
        self.letters = folder / "letters"
        self.letters.mkdir()
        self.log = folder / "log"

    @contextmanager
    def running(self) -> Iterator[Served]:
        """It, as its manifest has it."""
        found = {"FUNCTION_SOURCE": str(self.program), "DEAD_LETTERS": str(self.letters)}
        with _server(self.log, **{**self.settings, **found}) as served:
            yield served

    def told(self, *arguments: str, sink: str = NOWHERE, **variables: str) -> "subprocess.CompletedProcess[str]":
        """What an operator types in its pod."""
        image = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "functions")}
        passed = {**image, "DEAD_LETTERS": str(self.letters), "SINK_URL": sink, **variables}
        command = [sys.executable, str(self.program), *arguments]
        return subprocess.run(command, capture_output=True, check=False, env=passed, text=True)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def _dead(
    identity: str, data: object, errors: Mapping[str, str], *, structured: bool = False
) -> tuple[dict[str, str], bytes]:
    attributes = {"type": "dev.temperature.reading.v1", "source": "/x", "id": identity, **errors}
    return (to_structured if structured else to_binary)(
        CloudEvent(attributes, data), data_marshaller=None if structured else lambda raw: raw
    )


def _encoded(answer: str | bytes) -> str:
    """As Knative does it."""
    return base64.b64encode(answer if isinstance(answer, bytes) else answer.encode()).decode()[:1024]


LONG = json.dumps({**PROBLEM, "errors": PROBLEM["errors"] * 20})  # type: ignore[operator]
REASONS: dict[str, tuple[dict[str, str], str]] = {
    "a problem document": (
        {"knativeerrorcode": "422", "knativeerrordata": _encoded(json.dumps(PROBLEM)), "knativeerrordest": INGEST},
        f"{INGEST} answered 422: Nothing was stored: some readings break a rule;"
        " temperature must be a number from -50 to 50 (degrees Celsius)\n",
    ),
    "one that was cut off": (
        {"knativeerrorcode": "422", "knativeerrordata": _encoded(LONG)},
        'its sink answered 422: {"status": 422, "detail": "Nothing was stored: some readings break a rule", "err',
    ),
    "cut in the middle of a letter": (
        {"knativeerrorcode": "500", "knativeerrordata": _encoded(b"x" * 767 + "\u20ac".encode())},
        f"its sink answered 500: {'x' * 600}...\n",
    ),
    "nothing": ({}, "Knative did not say why\n"),
    "no answer": ({"knativeerrorcode": "-1", "knativeerrordest": INGEST}, f"{INGEST} gave no answer\n"),
    "an answer without a body": ({"knativeerrorcode": "503", "knativeerrordata": ""}, "its sink answered 503\n"),
    "plain text": (
        {"knativeerrorcode": "500", "knativeerrordata": "out of order!"},
        "its sink answered 500: out of order!\n",
    ),
    "words that might be base64": (
        {"knativeerrorcode": "500", "knativeerrordata": "overload"},
        "its sink answered 500: overload\n",
    ),
    "percent signs": (
        {"knativeerrorcode": "500", "knativeerrordata": "too%20much%20%E2%82%AC"},
        "its sink answered 500: too much \u20ac\n",
    ),
    "damaged base64": (
        {"knativeerrorcode": "422", "knativeerrordata": f"*{_encoded('fine')}"},
        "its sink answered 422: *ZmluZQ==\n",
    ),
    "bytes that are no text": (
        {"knativeerrorcode": "500", "knativeerrordata": _encoded(bytes(range(128, 160)))},
        f"its sink answered 500: {_encoded(bytes(range(128, 160)))}\n",
    ),
    "signs that terminals obey": (
        {"knativeerrorcode": "500", "knativeerrordata": _encoded("\x1b[2Jgone")},
        "its sink answered 500: \ufffd[2Jgone\n",
    ),
    "JSON that is no problem": (
        {"knativeerrorcode": "500", "knativeerrordata": _encoded('["a", 1]')},
        'its sink answered 500: ["a", 1]\n',
    ),
    "a problem of another shape": (
        {"knativeerrorcode": "400", "knativeerrordata": _encoded('{"title": "Bad", "errors": "all"}')},
        "its sink answered 400: Bad\n",
    ),
}


def test_its_image_has_each_package_that_it_imports(box: Box) -> None:
    pinned = (ROOT / "functions" / box.function / "requirements.txt").read_text()
    of_module = packages_distributions()
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(box.program.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    lacking = {
        module
        for module in imported - sys.stdlib_module_names - {"shared"}
        if not any(re.search(rf"(?m)^{package}(\[.*\])?==", pinned) for package in of_module[module])
    }
    assert lacking == set()


def test_each_dead_letter_is_logged_and_listed_with_the_reason_in_words(box: Box) -> None:
    with box.running() as (address, _):
        began = datetime.now(UTC).replace(microsecond=0)
        for number, (errors, _) in enumerate(REASONS.values()):
            headers, body = _dead(f"lost-{number}", b"no JSON at all", errors)
            answer = requests.post(address, data=body, headers=headers, timeout=10)
            assert (answer.status_code, answer.content) == (204, b"")
        assert requests.post(address, data=b"no event", timeout=10).status_code == 400
        assert requests.post(address, data=b"\xff", timeout=10).status_code == 400
    # As the functions do on Kubernetes: a line of JSON for each.
    logged = "".join(json.loads(line)["message"] + "\n" for line in box.log.read_text().splitlines())
    listed = box.told().stdout
    for number, (_, reason) in enumerate(REASONS.values()):
        name = f"type 'dev.temperature.reading.v1' source '/x' id 'lost-{number}'"
        assert f"{name} was not delivered: {reason}" in logged
        assert f"{name}: {reason}" in listed
    assert listed.count("\n  no JSON at all\n") == len(REASONS)
    assert began <= datetime.fromisoformat(listed.partition(" ")[0]) <= datetime.now(UTC)
    assert listed.endswith(f"\n{len(REASONS)} dead letters\n")
    assert "Traceback" not in box.log.read_text()


def test_when_the_cause_is_mended_they_are_stored_once_and_what_breaks_a_rule_stays(box: Box, plain: Urls) -> None:
    away = {"knativeerrorcode": "503", "knativeerrordata": "", "knativeerrordest": INGEST}
    letters = [
        _dead("good", json.dumps(READING).encode(), away),
        _dead("structured", {**READING, "room_id": "102"}, away, structured=True),
        _dead("hot", json.dumps({**READING, "temperature": 99}).encode(), away),
        _dead("damaged", b'{"building_id"', away),
    ]
    with box.running() as (address, _):
        for headers, body in letters:
            assert requests.post(address, data=body, headers=headers, timeout=10).status_code == 204
        # A sender that did not hear of it brings it again.
        headers, body = letters[0]
        assert requests.post(address, data=body, headers=headers, timeout=10).status_code == 204
    said = box.told("redeliver", sink="http://127.0.0.1:1/")
    assert (said.returncode, said.stdout) == (1, "0 delivered, 0 refused again, 5 left\n")
    assert "http://127.0.0.1:1/ does not answer (ClientConnectorError): the rest stays" in said.stderr
    ingest = {"FUNCTION_TARGET": "ingest", "FUNCTION_SOURCE": str(ROOT / "functions/ingest/main.py")}
    with _server(box.log, **ingest, DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1") as (sink, _):
        said = box.told("redeliver", sink=sink)
        assert (said.returncode, said.stdout) == (1, "0 delivered, 0 refused again, 5 left\n")
        assert f"{sink} answers 503: " in said.stderr
    with _server(box.log, **ingest, DATABASE_URL=plain(WRITER), WRITE_TOKENS="a-token-of-the-sink") as (sink, _):
        assert f"{sink} answers 401: " in box.told("redeliver", sink=sink).stderr
        said = box.told("redeliver", sink=sink, SINK_TOKEN="a-token-of-the-sink")
        assert said.returncode == 1
        hot, damaged, last = said.stdout.splitlines()
        assert "id 'hot' is refused again: 422, Nothing was stored" in hot
        assert "id 'damaged' is refused again: 400, " in damaged
        assert last == "3 delivered, 2 refused again, 2 left"
        assert box.told("discard", "hot", "damaged").stdout == "2 discarded\n"
        said = box.told("redeliver", sink=sink)
        assert (said.returncode, said.stdout) == (0, "0 delivered, 0 refused again, 0 left\n")
    with psycopg.connect(plain(OWNER)) as connection:
        rooms = connection.execute("SELECT room_id FROM temperatures ORDER BY room_id").fetchall()
    assert rooms == [("101",), ("102",)]


def test_an_answer_that_says_nothing_about_the_event_ends_it_and_all_stay(box: Box, sink: Sink) -> None:
    with box.running() as (address, _):
        for name in ("first", "second"):
            headers, body = _dead(name, b"{}", {})
            assert requests.post(address, data=body, headers=headers, timeout=10).status_code == 204
    for attempts, status in enumerate((403, 404, 429, 503), 1):
        sink.refuse(1, status)
        said = box.told("redeliver", sink=sink.url)
        assert said.stdout == "0 delivered, 0 refused again, 2 left\n"
        assert f"{sink.url} answers {status}: " in said.stderr
        assert sink.attempts == attempts
    for status in (302, 422):
        sink.refuse(2, status)
        assert box.told("redeliver", sink=sink.url).stdout.endswith("0 delivered, 2 refused again, 2 left\n")
    assert box.told("redeliver", sink=sink.url).stdout == "2 delivered, 0 refused again, 0 left\n"


def test_what_cannot_be_kept_is_not_taken(box: Box) -> None:
    shutil.rmtree(box.letters)
    with box.running() as (address, _):
        headers, body = _dead("lost", b"{}", {})
        answer = requests.post(address, data=body, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["detail"]) == (503, "The event cannot be kept; send it again")
        box.letters.mkdir()
        assert requests.post(address, data=body, headers=headers, timeout=10).status_code == 204
    (box.letters / "00000000000000000001-half.json").write_text('{"headers"')
    (box.letters / "00000000000000000002-cut.part").write_text("{")
    said = box.told()
    assert said.stdout.endswith("\n1 dead letters\n")
    assert said.stderr.endswith("half.json is damaged, and stays\n")
    assert "Traceback" not in box.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="where a system has the peak of a process differs")
def test_large_events_are_kept_in_the_memory_of_the_pod_and_larger_ones_are_refused(box: Box, sink: Sink) -> None:
    headers, body = _dead("large", bytes(range(256)) * 65_536, {})
    senders = range(4)
    with box.running() as served:

        def send(data: bytes) -> int:
            return requests.post(served.address, data=data, headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(len(senders)) as pool:
            assert list(pool.map(lambda _: send(body), senders)) == [204] * len(senders)
        assert send(body + b"!") == 413
        assert served.peak_bytes < box.memory_limit_bytes
    assert box.told("redeliver", sink=sink.url).stdout == f"{len(senders)} delivered, 0 refused again, 0 left\n"
    assert {received for _, received in sink.requests} == {body}


@pytest.mark.parametrize("arguments", [("resend",), ("redeliver", "all"), ("discard",), ("discard", "unknown")])
def test_what_it_is_not_told_to_do_it_does_not_do(box: Box, arguments: tuple[str, ...]) -> None:
    said = box.told(*arguments)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
