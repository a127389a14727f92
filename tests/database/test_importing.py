"""`make import`: large files in, whatever stands in them, whenever it ends."""

import csv
import gzip
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
import requests
from hypothesis import given
from starlette.testclient import TestClient

from bench import stack
from bench.stack import Served, command, target
from local.postgres import OWNER, READER, WRITER
from tests import transfer
from tests.support import ANY_CLOCK, ROOT, Urls, examples, free_port, wait_until, without_locks
from tests.transfer import FIRST, rows

TOKEN = "a-token-of-the-importer"
HEADER = "building_id,room_id,timestamp,temperature"


@pytest.fixture
def ingest(plain: Urls, tmp_path: Path) -> Iterator[Served]:
    variables = {**target("ingest", plain(WRITER)), **ANY_CLOCK, "WRITE_TOKENS": TOKEN}
    with stack.serve(command(), variables, log=tmp_path / "ingest.log") as served:
        yield served


def start(file: Path, port: int, **variables: str) -> "subprocess.Popen[str]":
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"URL", "PORT"}},
        "PYTHONPATH": "functions:.",
        "FILE": str(file),
        "URL": f"http://127.0.0.1:{port}/",
        "TOKEN": TOKEN,
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "local.importing"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def imported(file: Path, served: Served, **variables: str) -> tuple[int, int, int]:
    """Import the file; how many readings were stored, were there already, and how many lines are faulty."""
    with start(file, served.port, **variables) as process:
        said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, ""), errors
    assert not file.with_name(f"{file.name}.progress").exists()
    return counts(said)


def counts(said: str) -> tuple[int, int, int]:
    stored, duplicates, faulty = re.findall(r"\d[\d,]*(?= )", said.splitlines()[-1])[:3]
    return int(stored.replace(",", "")), int(duplicates.replace(",", "")), int(faulty.replace(",", ""))


def refused(file: Path, port: int, **variables: str) -> str:
    with start(file, port, **variables) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    return errors


def faulty(file: Path) -> list[tuple[int, str, str]]:
    """The file of faulty lines."""
    with file.with_name(f"{file.name}.faulty.csv").open(newline="") as content:
        head, *found = csv.reader(content)
    assert head == ["line", "reason", "text"]
    return [(int(line), reason, text) for line, reason, text in found]


def stored(urls: Urls) -> list[transfer.Reading]:
    with psycopg.connect(urls(OWNER)) as connection:
        return rows(connection)


def lines(number: int, begin: int = 0) -> list[str]:
    return [
        f"B1,room {each % 7},{(FIRST + timedelta(seconds=each)).isoformat()},{each % 40}.25"
        for each in range(begin, begin + number)
    ]


def write(file: Path, *found: str, end: str = "\r\n", encoding: str = "utf-8") -> Path:
    file.write_bytes("".join(f"{line}{end}" for line in found).encode(encoding))
    return file


def test_a_file_is_stored_once(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    file = write(tmp_path / "readings.csv", HEADER, *lines(5_000))
    assert imported(file, ingest) == (5_000, 0, 0)
    assert len(stored(plain)) == 5_000
    # No proxy is asked for this machine.
    assert imported(file, ingest, http_proxy="http://127.0.0.1:9/", no_proxy="") == (0, 5_000, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("readings")] == ["readings.csv"]


def test_columns_can_have_other_names_and_be_constant(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    write(
        file,
        "Zeit;Raum;Feuchte;Wert",
        "2024-12-01T01:00:00+01:00;B\u00fcro;40;-1,5",
        "2024-12-01T01:00:00+01:00;101;40;20",
        encoding="cp1252",
    )
    names = {"ROOM": "Raum", "TIME": "Zeit", "TEMPERATURE": "Wert", "BUILDING": "=Haus 1, links"}
    assert imported(file, ingest, ENCODING="windows-1252", **names) == (2, 0, 0)
    assert stored(plain) == [("Haus 1, links", "101", FIRST, 20), ("Haus 1, links", "B\u00fcro", FIRST, -1.5)]
    file = write(tmp_path / "export.ndjson", '{"r":"1","t":"2024-12-01T00:00:00Z","v":0.1,"x":{}}')
    names = {"ROOM": "r", "TIME": "t", "TEMPERATURE": "v", "BUILDING": "=A"}
    assert imported(file, ingest, **names) == (1, 0, 0)
    assert stored(plain)[0] == ("A", "1", FIRST, 0.1)


def test_a_file_that_a_spreadsheet_saved_is_read_as_it_is(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    """With a byte order mark, tabs, a decimal comma, empty lines, and spaces in the names of columns."""
    file = write(tmp_path / "saved.txt", "\ufeff t\tv ", "2024-12-01T00:00:00Z\t1,5", "", "2024-12-01T00:00:01Z\t2", "")
    assert imported(file, ingest, BUILDING="=A", ROOM="=1", TIME="t", TEMPERATURE="v") == (2, 0, 0)
    assert stored(plain) == [("A", "1", FIRST, 1.5), ("A", "1", FIRST + timedelta(seconds=1), 2)]


def test_what_is_compressed_is_read_too(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    file = tmp_path / "readings.csv.gz"
    with gzip.open(file, "wt") as content:
        content.write("\n".join([HEADER, *lines(9_000), ""]))
    assert imported(file, ingest) == (9_000, 0, 0)
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read" in refused(file, ingest.port)
    assert len(stored(plain)) == 9_000


def test_a_gzip_file_may_be_damaged_anywhere(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    file = tmp_path / "readings.csv.gz"
    whole = gzip.compress("\n".join([HEADER, *lines(30_000), ""]).encode())
    place = random.randrange(20, len(whole) - 20)
    print(f"16 bytes from {place} on are damaged")
    file.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 16]) + whole[place + 16 :])
    assert "cannot be read" in refused(file, ingest.port)
    file.write_bytes(whole)
    assert imported(file, ingest)[2] == 0
    assert len(stored(plain)) >= 30_000


@pytest.mark.parametrize("delimiter", ["\t", r"\t", " ", ";"])
def test_what_is_between_columns_can_be_named(ingest: Served, plain: Urls, tmp_path: Path, delimiter: str) -> None:
    between = "\t" if delimiter == r"\t" else delimiter
    found = [HEADER, *lines(3)]
    file = write(tmp_path / "readings.txt", *(line.replace("room ", "room").replace(",", between) for line in found))
    assert imported(file, ingest, DELIMITER=delimiter) == (3, 0, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"accepted": "many"}', b'{"accepted": 1}', b"\xff"])
def test_an_address_that_is_not_that_of_ingest_is_told(tmp_path: Path, body: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    file = write(tmp_path / "readings.csv", HEADER, *lines(3))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            said = refused(file, server.server_port)
        finally:
            server.shutdown()
    assert "answers 201, but not how many readings it stored, as ingest does" in said


def test_what_is_before_ingest_may_ask_for_time_and_for_small_bodies(
    ingest: Served, plain: Urls, tmp_path: Path
) -> None:
    attempts: list[float] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            attempts.append(time.monotonic())
            if len(attempts) == 1:
                return self._answer(429)
            if len(body) > 2_000:
                return self._answer(413)
            answer = requests.post(f"http://127.0.0.1:{ingest.port}/", body, headers=dict(self.headers), timeout=10)
            return self._answer(answer.status_code, answer.content)

        def _answer(self, status: int, body: bytes = b"<html>") -> None:
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    found = lines(80)
    file = write(tmp_path / "readings.csv", HEADER, *found, *found, "faulty,,,", *found[:1], "x,,,")
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert imported(file, ingest, URL=f"http://127.0.0.1:{server.server_port}/") == (80, 81, 2)
        finally:
            server.shutdown()
    assert attempts[1] - attempts[0] >= 1
    assert [line for line, *_ in faulty(file)] == [162, 164]


def test_faulty_lines_are_told_and_the_others_stored(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    good = lines(9)
    found = [
        HEADER,
        good[0],
        "B1,101,2024-12-01T00:00:00Z,99",
        good[1],
        "B1,101,2024-12-01T00:00:00Z",
        "",
        'B1,"101,2024-12-01T00:00:00Z,20',
        good[2],
        '=1,"r\r\n2",yesterday,hot',
        good[3],
        f"B1,{'x' * 70_000},2024-12-01T00:00:00Z,20",
    ]
    file = write(tmp_path / "Büro.csv", *found)
    with file.open("ab") as content:
        content.write(b"B1,\xff,2024-12-01T00:00:00Z,20\r\n")
        # Cut off: it was 20.5.
        content.write(f"{good[4]}\r\nB1,101,2024-12-01T00:00:00Z,20".encode())
    # On a terminal that cannot show every name.
    assert imported(file, ingest, PYTHONIOENCODING="ascii") == (5, 0, 7)
    told = faulty(file)
    assert [line for line, *_ in told] == [3, 5, 7, 9, 12, 13, 15]
    assert told[0][1:] == ("temperature must be a number from -50 to 50 (degrees Celsius)", found[2])
    assert told[1][1] == "has 3 fields, but the first line 4"
    assert told[2][1].startswith("is not CSV: ")
    assert told[3][1].count(";") == 1
    assert told[3][2] == '\'=1,"r\r\n2",yesterday,hot'
    assert (told[4][1], told[5][1]) == ("is longer than 65536 bytes", "is not utf-8")
    assert told[6][1].startswith("has no end: ")
    assert [row[2] for row in sorted(stored(plain), key=lambda row: row[2])] == [
        FIRST + timedelta(seconds=second) for second in range(5)
    ]


def test_sixty_thousand_lines_of_which_half_are_faulty(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    bad = ["B1,101,,", "x", "B1,,2024-12-01T00:00:00Z,200", '"', ",,,", 'B1,"a"b,2024-12-01T00:00:00Z,2']
    seed = random.randrange(10**6)
    print(f"SEED={seed}")
    game = random.Random(seed)
    kinds = [game.random() < 0.5 for _ in range(60_000)]
    found = [good if right else game.choice(bad) for good, right in zip(lines(60_000), kinds, strict=True)]
    file = write(tmp_path / "readings.csv", HEADER, *found)
    assert imported(file, ingest) == (sum(kinds), 0, 60_000 - sum(kinds))
    assert [line - 2 for line, *_ in faulty(file)] == [place for place, right in enumerate(kinds) if not right]
    assert len(stored(plain)) == sum(kinds)


def test_lines_that_are_not_json_are_told(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    reading = '{"building_id":"B1","room_id":"1","temperature":%s,"timestamp":"2024-12-01T00:00:00Z"}'
    found = [reading % 1, "{", reading % "NaN", "", reading % 99, "[]", reading % 2, '{"building_id":"B1","roo']
    file = write(tmp_path / "readings.ndjson", *found, end="\n")
    assert imported(file, ingest) == (2, 0, 5)
    assert [line for line, *_ in faulty(file)] == [2, 3, 5, 6, 8]
    assert [row[3] for row in stored(plain)] == [1, 2]


@pytest.mark.parametrize(("names", "digits"), [({}, 1), ({"ROOM": "r"}, 5_000)])
def test_a_faulty_line_of_json_is_told_by_what_it_is(
    ingest: Served, plain: Urls, tmp_path: Path, names: dict[str, str], digits: int
) -> None:
    reading = '{"building_id":"B1","%s":"1","temperature":2,"timestamp":"2024-12-01T00:00:00Z","x":%s}'
    values = ['"' + "x" * 70_000 + '"', "9" * digits, "[" * 30_000 + "]" * 30_000]
    # Python 3.14 reads what is nested, and the column is not sent where another one is renamed.
    found = [reading % (names.get("ROOM", "room_id"), value) for value in (values[:2] if names else values)]
    file = write(tmp_path / "readings.ndjson", "{", *found, end="\n")
    assert imported(file, ingest, **names) == (1, 0, len(found))
    assert [(line, reason.partition(":")[0]) for line, reason, _ in faulty(file)] == [
        (1, "is not JSON"),
        (2, "is longer than 65536 bytes"),
        (4, "is not JSON"),
    ][: len(found)]
    assert [row[3] for row in stored(plain)] == [2]


def test_a_carriage_return_alone_is_told(ingest: Served, tmp_path: Path) -> None:
    file = write(tmp_path / "readings.csv", HEADER, "\r".join(lines(2)), end="\n")
    assert imported(file, ingest) == (0, 0, 1)
    assert faulty(file)[0][1] == "is not CSV: new-line character seen in unquoted field"


def test_a_file_that_is_being_written_is_read_up_to_its_last_whole_line(
    ingest: Served, plain: Urls, tmp_path: Path
) -> None:
    file = write(tmp_path / "readings.csv", HEADER, *lines(30_000), end="\n")
    ended = threading.Event()

    def go_on() -> None:
        with file.open("ab", buffering=0) as output:
            for number in range(30_000, 60_000):
                [line] = lines(1, number)
                output.write(line[:9].encode())
                time.sleep(0.0005)
                output.write(f"{line[9:]}\n".encode())
                if ended.is_set():
                    return

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        found = imported(file, ingest)
    finally:
        ended.set()
        writer.join()
    assert found[0] >= 30_000
    # The one of which the beginning was there.
    assert found[2] <= 1
    if found[2]:
        assert faulty(file)[0][1].startswith("has no end")
    assert imported(file, ingest)[2] == 0
    assert len(stored(plain)) == file.read_bytes().count(b"\n") - 1


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_import_that_ends_anywhere_goes_on(ingest: Served, plain: Urls, tmp_path: Path, kind: int) -> None:
    seed = random.randrange(10**6)
    print(f"SEED={seed}")
    game = random.Random(seed)
    found = [line if number % 997 else f"faulty {number}" for number, line in enumerate(lines(120_000), 1)]
    file = write(tmp_path / "readings.csv", HEADER, *found)
    place = tmp_path / "readings.csv.progress"
    before = 0
    for _ in range(3):
        with start(file, ingest.port) as process:
            wait_until(lambda: process.poll() is not None or place.exists())
            time.sleep(game.random())
            process.send_signal(kind)
            process.communicate(timeout=60)
        if not place.exists():
            break
        now = json.loads(place.read_text())["offset"]
        assert now >= before
        before = now
    else:
        assert before > 0
    imported(file, ingest)
    assert len(stored(plain)) == 120_000 - 120_000 // 997
    assert [line - 1 for line, *_ in faulty(file)] == list(range(997, 120_000, 997))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_it_is_alone_and_ends_at_once_while_nobody_answers(tmp_path: Path, kind: int) -> None:
    file = write(tmp_path / "readings.csv", HEADER, *lines(3))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        start(file, silent.getsockname()[1]) as process,
        silent.accept()[0],
    ):
        assert f"Another import of {file} is running" in refused(file, 1)
        process.send_signal(kind)
        # Long before it gives up a request.
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, said, errors) == (130, "", "Stopped. The same command goes on from here\n")


def test_it_waits_for_ingest_and_goes_on_later(plain: Urls, tmp_path: Path) -> None:
    port = free_port()
    file = write(tmp_path / "readings.csv", HEADER, *lines(50))
    variables = {**target("ingest", plain(WRITER)), **ANY_CLOCK, "WRITE_TOKENS": TOKEN}
    with start(file, port) as process:
        time.sleep(2)
        assert process.poll() is None
        with stack.serve(command(), variables, port=port, log=tmp_path / "ingest.log"):
            said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert said.startswith("50 readings stored, 0 were there already")
    assert len(stored(plain)) == 50


def test_another_file_begins_anew(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    file = write(tmp_path / "readings.csv", HEADER, *lines(3))
    assert "answers 401: A token is needed" in refused(file, ingest.port, TOKEN="wrong")
    assert (tmp_path / "readings.csv.progress").exists()
    write(file, HEADER, *lines(4, begin=10))
    assert imported(file, ingest) == (4, 0, 0)


@pytest.fixture
def broken_off(ingest: Served, tmp_path: Path) -> Path:
    """A file of which an import stored 14,000 lines at least, and then came to one that it cannot read."""
    file = write(tmp_path / "readings.csv", HEADER, *lines(30_000), "x" * 5_000_000)
    assert "is longer than" in refused(file, ingest.port)
    return file


def test_other_columns_another_encoding_or_another_address_begin_anew(ingest: Served, broken_off: Path) -> None:
    place = broken_off.with_name(f"{broken_off.name}.progress")
    progress = place.read_text()
    write(broken_off, HEADER, *lines(30_000))
    for asked in ({"BUILDING": "=B2"}, {"ENCODING": "cp1252"}, {"URL": f"http://localhost:{ingest.port}/temperature"}):
        place.write_text(progress)
        with start(broken_off, ingest.port, **asked) as process:
            said, _ = process.communicate(timeout=120)
        assert "Goes on" not in said
        assert sum(counts(said)) == 30_000


def test_a_file_that_differs_anywhere_in_what_is_stored_begins_anew(
    ingest: Served, plain: Urls, broken_off: Path
) -> None:
    old, place = lines(30_000), random.randrange(4_000, 14_000)
    print(f"{place} lines are before those that were added")
    write(broken_off, HEADER, *old[:place], *lines(1_000, begin=30_000), *old[place:])
    assert imported(broken_off, ingest)[2] == 0
    assert len(stored(plain)) == 31_000


def test_a_file_that_became_shorter_than_what_is_stored_begins_anew(
    ingest: Served, plain: Urls, broken_off: Path
) -> None:
    write(broken_off, HEADER, *lines(5_000), *lines(1, begin=30_000))
    assert imported(broken_off, ingest) == (1, 5_000, 0)
    assert FIRST + timedelta(seconds=30_000) in {row[2] for row in stored(plain)}


def test_a_file_that_grew_at_its_end_goes_on_and_says_so(ingest: Served, plain: Urls, broken_off: Path) -> None:
    write(broken_off, HEADER, *lines(31_000))
    with start(broken_off, ingest.port) as process:
        said, _ = process.communicate(timeout=120)
    # The first line names columns.
    assert re.match(rf"Goes on behind line \d+,\d01, .+ remove {broken_off}\.progress\n", said)
    new, duplicates, faulty_lines = counts(said)
    # What was stored before is counted with it. Only blocks that were under way come twice.
    assert (new + duplicates, faulty_lines) == (31_000, 0)
    assert duplicates <= 16_000
    assert len(stored(plain)) == 31_000


@pytest.mark.parametrize("change", ["removed", "shortened", "corrected", "opened in a spreadsheet"])
def test_faulty_lines_are_all_told_where_somebody_worked_at_their_file_meanwhile(
    ingest: Served, tmp_path: Path, change: str
) -> None:
    found = [line if number % 100 else f"faulty {number}" for number, line in enumerate(lines(30_000))]
    file = write(tmp_path / "readings.csv", HEADER, *found, "x" * 5_000_000)
    told = tmp_path / "readings.csv.faulty.csv"
    assert "is longer than" in refused(file, ingest.port)
    before = told.read_bytes()
    if change == "removed":
        told.unlink()
    else:
        told.write_bytes(
            {
                "shortened": before[:500],
                "corrected": before.replace(b"faulty", b"B1,1,2024-12-01T00:00:00Z,20"),
                "opened in a spreadsheet": b"\xef\xbb\xbf" + before.replace(b",", b";"),
            }[change]
        )
    write(file, HEADER, *found)
    assert imported(file, ingest)[2] == 300
    assert [(line, text) for line, _, text in faulty(file)] == [
        (number + 2, f"faulty {number}") for number in range(0, 30_000, 100)
    ]


def test_a_reading_of_many_lines_is_stored_whatever_its_neighbours_are(
    ingest: Served, plain: Urls, tmp_path: Path
) -> None:
    note = '"' + f"{'x' * 1_000}\r\n" * 70 + '"'
    rows = [f"{note},{lines(1)[0]}", f",{lines(1, 1)[0]}"]
    file = write(tmp_path / "readings.csv", f"note,{HEADER}", *rows, "faulty")
    assert imported(file, ingest) == (2, 0, 1)


def test_a_file_system_without_locks_is_read_too(ingest: Served, tmp_path: Path) -> None:
    file = write(tmp_path / "readings.csv", HEADER, *lines(3))
    assert imported(file, ingest, PYTHONPATH=without_locks(tmp_path)) == (3, 0, 0)


def test_a_line_that_got_its_end_after_it_was_read_is_read_again(ingest: Served, plain: Urls, tmp_path: Path) -> None:
    found = "".join(f"{line}\n" for line in (HEADER, *lines(3)))
    file, place = tmp_path / "readings.csv", tmp_path / "readings.csv.progress"
    file.write_text(found[:-5])
    refused(file, ingest.port, TOKEN="wrong")
    # Killed behind the last block, which was kept, and before the end.
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    place.write_text(
        json.dumps(json.loads(place.read_text()) | {"offset": len(found) - 5, "line": 5, "digest": digest})
    )
    file.write_text(found)
    assert imported(file, ingest) == (3, 0, 0)


@pytest.mark.parametrize(
    ("content", "variables", "message"),
    [
        (b"", {}, "The column 'building_id' of building_id is not in the file"),
        (HEADER.encode(), {"TIME": "%E"}, "Say which one it is, TIME=COLUMN, or what it always is, TIME==VALUE"),
        (b"Raum,Zeit,Raum\n", {"BUILDING": "Raum"}, "is twice in the file, whose columns are Raum, Zeit, Raum. Say"),
        (b"[{}]\n", {}, "is a JSON array"),
        ("a,b\n".encode("utf-16"), {}, "is UTF-16"),
        (b"B\xfcro,b\n", {}, "say what it is: ENCODING=windows-1252"),
        *(
            (b"a,b\n", {"ENCODING": name}, f"no encoding that is known, or none that contains ASCII: {name!r}")
            for name in ("klingon", "punycode", "utf-16")
        ),
        (b"a,b\n", {"DELIMITER": "tab"}, "DELIMITER must be one character, such as ; or \\t for a tab, not 'tab'"),
        (b"a,b\n", {"DELIMITER": '"'}, "DELIMITER must be one character"),
        (b"a,b\n", {"TOKEN": "schl\u00fcsselschl\u00fcssel"}, "TOKEN must be of ASCII characters"),
        (HEADER.encode(), {"URL": "http://a:b@c.test/", "TOKEN": "d"}, "the URL that it is for has a user of its own"),
        (HEADER.encode(), {"URL": "https://a.test/", "https_proxy": "socks5://b.test"}, "says of proxies"),
        (HEADER.encode(), {"URL": "https://a.test/", "SSL_CERT_FILE": "/nonexistent"}, "or of certificates (SSL_CERT"),
        (b"a,b\n", {"URL": "http://["}, "URL must be an http or https URL"),
        (b"a,b\n", {"URL": "http://127.0.0.1\x01/"}, "URL must be an http or https URL"),
        (b"a,b\n", {"URL": "localhost:8080"}, "URL must be an http or https URL"),
        (b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 4, {}, "cannot be read or written beside: Error -3"),
        (HEADER.encode() + b"\n" + b"x" * 5_000_000, {}, "Line 2 is longer than 4194304 bytes"),
        (HEADER.encode() + b"\rB1,1,2024-12-01T00:00:00Z,20\r", {}, "Lines end with CR alone"),
        (HEADER.encode() + b"," + b"x" * 70_000 + b"\n", {}, "is longer than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes, variables: dict[str, str], message: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert message in refused(file, 1, **variables)
    assert "cannot be read" in refused(tmp_path / "nowhere.csv", 1)
    assert "make import FILE=" in refused(Path(), 1, FILE="")


_clients: list[TestClient] = []


@examples(2)
@given(found=transfer.readings.filter(bool))
def test_what_went_out_comes_in_again(
    ingest: Served,
    plain: Urls,
    serve: Callable[..., TestClient],
    tmp_path: Path,
    found: list[transfer.Reading],
) -> None:
    if not _clients:
        _clients.append(serve("average", DATABASE_URL=plain(READER)))
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        transfer.insert(connection, found)
        before = rows(connection)
        for form in transfer.MEDIA_TYPES:
            file = tmp_path / f"file.{form}"
            file.write_bytes(transfer.text_of(_clients[0], form).encode())
            connection.execute("TRUNCATE temperatures")
            assert imported(file, ingest) == (len(before), 0, 0)
            assert rows(connection) == before
        connection.execute("TRUNCATE temperatures")
