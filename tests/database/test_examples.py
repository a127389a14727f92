"""The examples do what they say, on the functions as `make run` and a cluster serve them."""

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from bench.stack import command, serve, target
from local.postgres import ADMIN, OWNER, READER, WRITER
from tests.support import ROOT, Urls, free_port, program, wait_until

EXAMPLES = ROOT / "examples"
TOKEN = "a-token-of-the-examples"
ROWS = "SELECT room_id, temperature FROM temperatures ORDER BY timestamp"


@pytest.fixture
def addresses(plain: Urls, tmp_path: Path) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        served = {
            name: stack.enter_context(serve(command(), {**target(name, plain(role)), **more}, log=tmp_path / name))
            for name, role, more in (
                ("ingest", WRITER, {}),
                ("average", READER, {"ADMIN_DATABASE_URL": plain(ADMIN), "ADMIN_TOKENS": TOKEN}),
            )
        }
        yield {name: f"http://127.0.0.1:{function.port}" for name, function in served.items()}


def rows(urls: Urls) -> list[tuple[str, float]]:
    with psycopg.connect(urls(OWNER)) as connection:
        return connection.execute(ROWS).fetchall()


def device(url: str, file: Path, *options: str, token: str = "") -> "subprocess.Popen[str]":
    arguments = [url, "B1", "104", "--every", "0.2", "--file", str(file), *options]
    environment = {"TOKEN": token} if token else {}
    return subprocess.Popen(
        [sys.executable, EXAMPLES / "device.py", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_the_device_sends_what_it_measured_while_nobody_answered(plain: Urls, tmp_path: Path) -> None:
    port = free_port()
    url, file = f"http://127.0.0.1:{port}/v1/temperature", tmp_path / "unsent.ndjson"
    # Nobody is there. It loses its power after a while, and goes on with what is in its file.
    with device(url, file) as early:
        wait_until(lambda: file.exists() and file.read_text().count("\n") >= 3)
        assert early.poll() is None
        early.kill()
    kept = file.read_text().splitlines()
    with (
        serve(command(), {**target("ingest", plain(WRITER)), "WRITE_TOKENS": TOKEN}, port=port, log=tmp_path / "log"),
        device(url, file, "--count", "2", token=TOKEN) as late,
    ):
        assert late.wait(20) == 0
    assert len(rows(plain)) == len(kept) + 2
    assert file.read_text() == ""


def test_the_device_gives_up_only_what_breaks_a_rule(addresses: dict[str, str], plain: Urls, tmp_path: Path) -> None:
    file = tmp_path / "unsent.ndjson"
    readings = [
        {"building_id": "B1", "room_id": "104", "temperature": temperature, "timestamp": f"2024-12-01T00:00:0{number}Z"}
        for number, temperature in enumerate((20, 999, 21))
    ]
    file.write_text("".join(f"{json.dumps(reading)}\n" for reading in readings))
    with device(addresses["ingest"], file, "--count", "0") as late:
        assert late.wait(20) == 0
        assert late.stderr and "must be a number from -50 to 50" in late.stderr.read()
    assert rows(plain) == [("104", 20.0), ("104", 21.0)]


def test_the_device_outlives_whatever_answers_it(tmp_path: Path) -> None:
    """Such as a proxy that names a date, what is no HTTP, and an answer that breaks off."""
    date = f"Retry-After: {formatdate(usegmt=True)}"
    answers = [
        f"HTTP/1.1 503 Unavailable\r\n{date}\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Unavailable\r\nRetry-After: 1\r\nContent-Length: 9\r\n\r\n",
        *(
            f"HTTP/1.1 400 Bad Request\r\nRetry-After: 1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            for body in ("null", "[]", '{"errors": null}', '{"errors": ["of a proxy"]}', '{"errors": [{}]}')
        ),
    ]
    # Each has a device wait for a second at least.
    with ThreadPoolExecutor(len(answers)) as pool:
        list(pool.map(outlives, answers, [tmp_path / f"{number}.ndjson" for number in range(len(answers))]))


def outlives(first: str, file: Path) -> None:
    """A device gets this answer, and the next time that its reading is stored."""
    stored = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with device(url, file, "--count", "1") as measuring:
            for answer in (first, stored):
                server.settimeout(20)
                connection, _ = server.accept()
                with connection:
                    while not connection.recv(65536).endswith(b"}"):
                        pass
                    connection.sendall(answer.encode())
            assert measuring.wait(20) == 0
            assert measuring.stderr and "Traceback" not in measuring.stderr.read()
    assert file.read_text() == ""


def answering(server: socket.socket, *answers: str) -> list[str]:
    """Answer the next requests of a server with these, each over a connection of its own; return their first lines."""
    asked = []
    server.settimeout(20)
    for answer in answers:
        connection, _ = server.accept()
        with connection:
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            while head.startswith(b"POST") and not body.endswith(b"}"):
                body += connection.recv(65536)
            connection.sendall(answer.encode())
        asked.append(head.decode().partition(" HTTP")[0])
    return asked


# As many a proxy leads from http to https, and a client turns the POST into a GET of a page.
REDIRECTED = (
    "HTTP/1.1 301 Moved\r\nLocation: /page\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
)


def test_the_device_keeps_what_a_redirect_led_to_a_page(tmp_path: Path) -> None:
    file = tmp_path / "unsent.ndjson"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        device(f"http://127.0.0.1:{server.getsockname()[1]}/", file, "--count", "1") as measuring,
    ):
        assert answering(server, *REDIRECTED) == ["POST /", "GET /page"]
        assert measuring.stderr and measuring.stderr.readline() == "200: this is no acknowledgement, which is 201\n"
        measuring.kill()
    assert file.read_text().count("\n") == 1


def test_the_event_of_the_sdk_does_not_go_where_a_redirect_leads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        arguments = [sys.executable, str(EXAMPLES / "event.py"), address]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as sending:
            assert answering(server, REDIRECTED[0]) == ["POST /"]
            assert sending.communicate(timeout=20)[0].startswith("301")
            assert sending.returncode == 1


@pytest.mark.parametrize("cut", ['{"building_id": "B1", "room_', "\0\0\0\0", "nonsense"])
def test_the_device_gives_up_a_line_that_was_cut(
    addresses: dict[str, str], plain: Urls, tmp_path: Path, cut: str
) -> None:
    file = tmp_path / "unsent.ndjson"
    reading = {"building_id": "B1", "room_id": "104", "temperature": 20, "timestamp": "2024-12-01T00:00:00Z"}
    file.write_text(f"{json.dumps(reading)}\n{cut}\n{json.dumps({**reading, 'temperature': 21})}\n{cut}")
    with device(addresses["ingest"], file, "--count", "0") as late:
        assert late.wait(20) == 0
        assert late.stderr and "given up" in late.stderr.read()
    assert sorted(rows(plain)) == [("104", 20.0), ("104", 21.0)]
    assert file.read_text() == ""


def test_the_device_gives_up_what_the_function_calls_no_json(
    addresses: dict[str, str], plain: Urls, tmp_path: Path
) -> None:
    # Python reads NaN and more than JSON has.
    file = tmp_path / "unsent.ndjson"
    reading = {"building_id": "B1", "room_id": "104", "temperature": 20, "timestamp": "2024-12-01T00:00:00Z"}
    lone = json.dumps({**reading, "room_id": "\ud800"})
    file.write_text(f"{lone}\n{json.dumps(reading)}\n{lone}\n")
    with device(addresses["ingest"], file, "--count", "0") as late:
        assert late.wait(20) == 0
    assert rows(plain) == [("104", 20.0)]


def test_the_event_of_the_sdk_is_stored(addresses: dict[str, str], plain: Urls) -> None:
    subprocess.run([sys.executable, EXAMPLES / "event.py", addresses["ingest"]], check=True)
    assert rows(plain) == [("105", 21.5)]


def test_the_commands_for_curl_store_and_ask(addresses: dict[str, str], plain: Urls, tmp_path: Path) -> None:
    # One address has both, as `make run` and the cluster do.
    script = (EXAMPLES / "curl.sh").read_text()
    script = re.sub(r'(-G|-X DELETE) "\$address', rf'\1 "{addresses["average"]}', script)
    program("curl")
    run = subprocess.run(
        ["sh", "-c", script, "sh", addresses["ingest"]],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "ADMIN_TOKEN": TOKEN},
    )
    stored, average, header, row, header_of_days, day, over_time, removal = run.stdout.strip().splitlines()
    assert json.loads(stored)["accepted"] == 1
    assert json.loads(average)["average_temperature"] == 22.5
    assert header.startswith("start,average_temperature")
    assert ",22.5,1,22.5,22.5" in row
    assert header_of_days == header
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00\+0[12]:00,22\.5,1,22\.5,22\.5", day)
    held = json.loads(over_time)
    assert (held["average_temperature"], held["last"]["temperature"]) == (22.5, 22.5)
    assert held["above"]["seconds"] == held["covered_seconds"]
    assert json.loads(removal)["readings"] == 1
    assert rows(plain) == [("106", 22.5)]


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_the_download_goes_on_where_it_broke_off(
    addresses: dict[str, str], plain: Urls, tmp_path: Path, suffix: str
) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute(
            "INSERT INTO temperatures"
            " SELECT 'B1', 'r ' || number %% 3 || chr(34) || chr(13) || chr(10),"
            " %s::timestamptz + number * interval '1 second', 20"
            " FROM generate_series(1, 30000) AS number",
            ("2024-12-01T00:00:00Z",),
        )
    file = tmp_path / f"readings.{suffix}"
    interval = ("2024-12-01T00:00:00Z", "2024-12-02T00:00:00Z")

    def download() -> bytes:
        arguments = [sys.executable, str(EXAMPLES / "download.py"), addresses["average"], str(file), *interval, "B1"]
        subprocess.run(arguments, check=True, timeout=60)
        return file.read_bytes()

    whole = download()
    assert whole.count(b"2024-12-01T") == 30_000
    for place in (0, 5, 42, 60, *random.sample(range(len(whole)), 4)):
        file.write_bytes(whole[:place])
        assert download() == whole, place
    assert download() == whole


def test_a_download_that_was_cut_off_before_its_end_is_not_taken_for_whole(tmp_path: Path) -> None:
    file, header, line = (
        tmp_path / "readings.csv",
        "building_id,room_id,timestamp,temperature\r\n",
        "B1,1,2024-12-01Z,1\r\n",
    )
    length = len(header + 2 * line)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        arguments = [
            sys.executable,
            str(EXAMPLES / "download.py"),
            address,
            str(file),
            "2024-12-01Z",
            "2024-12-02Z",
            "B1",
        ]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as downloading:
            # A proxy that ends closes the connection, and says nothing.
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length:"
            cut = f"{head} {length}\r\n\r\n{header}{line}"
            rest = f"{head} {len(line)}\r\n\r\n{line}"
            first, second = answering(server, cut, rest)
            said = downloading.communicate(timeout=20)[1]
    assert (downloading.returncode, "broken off" in said) == (0, True)
    assert ("after=" in first, "after=B1%2C1" in second) == (False, True)
    assert file.read_bytes() == (header + 2 * line).encode()


def test_a_download_waits_where_it_asked_too_often(tmp_path: Path) -> None:
    file, text = tmp_path / "readings.csv", "building_id,room_id,timestamp,temperature\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        arguments = [sys.executable, str(EXAMPLES / "download.py"), address, str(file), "a", "b", "B1"]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as downloading:
            busy = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy"
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length:"
            answering(server, busy, f"{head} {len(text)}\r\n\r\n{text}")
            said = downloading.communicate(timeout=20)[1]
    assert (downloading.returncode, said, file.read_text()) == (0, "429: busy\n", text.replace("\r\n", "\n"))


def test_the_download_takes_no_page_for_readings(tmp_path: Path) -> None:
    file, begun = tmp_path / "readings.ndjson", b'{"building_id":"B1"}\n'
    file.write_bytes(begun)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        arguments = [sys.executable, str(EXAMPLES / "download.py"), address, str(file), "a", "b", "B1"]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as downloading:
            answering(server, *REDIRECTED)
            said = downloading.communicate(timeout=20)[1]
    assert (downloading.returncode, file.read_bytes()) == (1, begun)
    assert "answered with text/plain, not with readings" in said


def test_the_query_of_grafana_runs_as_the_reader(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO temperatures (building_id, room_id, timestamp, temperature)"
            " VALUES ('B1', '101', '2024-12-01 00:00:30Z', 20), ('B1', '101', '2024-12-01 00:05:00Z', 30)"
        )
    query = (EXAMPLES / "grafana.sql").read_text()
    # As Grafana replaces its macros and variables.
    query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN '2024-12-01Z' AND '2024-12-02Z'", query)
    query = query.replace("$__interval_ms", "3600000").replace("$building", "B1").replace("$room", "101")
    with psycopg.connect(plain(READER), row_factory=dict_row) as connection:
        (found,) = connection.execute(query.encode()).fetchall()
    assert (found["average"], found["lowest"], found["highest"]) == (25.0, 20.0, 30.0)
