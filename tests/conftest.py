"""The databases that tests run on, each real, and the functions as functions-framework serves them."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from local.postgres import OWNER, Postgres
from shared import server
from tests.sink import Sink, listening
from tests.support import LONG, MEMORY, ROOT, TimescaleMissing, Urls, alembic, copied, embedded, migrate, timescale


def pytest_configure() -> None:
    """Take the signals of a terminal, also where `nohup`, or a shell in the background, has them ignored."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each has an id of its own: xdist runs one of those with the same. Those that take long are for `make torture`."""
    for item in items:
        # Schemathesis makes a test for each operation, whose name pytest 9.2 leaves out of the id.
        if operation := getattr(item, "operation_label", None):
            item._id = replace(item._id, params=operation)
    assert len({item.nodeid for item in items}) == len(items), "some tests have the same id"
    long = [item for item in items if item.get_closest_marker("long") and not LONG]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


class Together(LoadScopeScheduling):
    """Tests of TimescaleDB share one database, others what was built or started: each group runs in one process.

    Marks say nothing here: with the groups of xdist 3.8 they have no effect under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, file = Path(nodeid.partition("::")[0]).parts[-2:]
        if folder in {"timescale", "manifests", "faults"}:
            return folder
        if folder == "versions":
            return f"{folder} {nodeid.partition('[')[2]}"
        return file if folder == "browser" else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Hand the tests out in groups."""
    return Together(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests have properties for."""
    rows = [
        # An attempt that is repeated records the same columns again.
        [(str(name), str(cell)) for name, cell in dict(report.user_properties).items()]
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.user_properties
    ]
    # The first column is named for what its table is about.
    for table, of in groupby(sorted(rows, key=lambda row: row[0][0]), lambda row: row[0][0]):
        found = list(of)
        terminalreporter.write_sep("=", table)
        names = [name for name, _ in found[0]]
        for cells in [names, ["---"] * len(names), *([cell for _, cell in row] for row in found)]:
            terminalreporter.write_line("| " + " | ".join(cells) + " |")


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """functions-framework and the migrations leave variables behind; no test sees those of another."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """An embedded PostgreSQL, whose database `temperature` is migrated and stays empty: tests copy it."""
    with (
        tempfile.TemporaryDirectory(prefix="temperature-test-", dir=MEMORY) as folder,
        embedded(Path(folder) / "postgres", log=Path(folder) / "postgres.log") as server,
    ):
        with psycopg.connect(server.url(database="postgres"), autocommit=True) as superuser:
            # Nobody cuts its power, and each test has a database made and dropped.
            superuser.execute("ALTER SYSTEM SET fsync = off")
            superuser.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="session")
def _database_numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture(scope="session")
def new_database(postgres: Postgres, _database_numbers: Iterator[int]) -> Callable[[], AbstractContextManager[Urls]]:
    """Make a database, migrated and empty, on plain PostgreSQL."""

    return lambda: copied(postgres, f"test_{next(_database_numbers)}")


@pytest.fixture
def plain(new_database: Callable[[], AbstractContextManager[Urls]]) -> Iterator[Urls]:
    """A database of its own, migrated and empty, on plain PostgreSQL."""
    with new_database() as urls:
        yield urls


@pytest.fixture(scope="session")
def _timescale_server() -> Iterator[Urls]:
    try:
        with timescale(os.environ.get("TIMESCALE_URL")) as urls:
            yield urls
    except TimescaleMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def _community(_timescale_server: Urls) -> Iterator[Urls]:
    migrate(_timescale_server(OWNER))
    yield _timescale_server
    alembic(_timescale_server(OWNER), "downgrade", "base")


@pytest.fixture
def community(_community: Urls) -> Urls:
    """An empty database on TimescaleDB's community edition."""
    with psycopg.connect(_community(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures, alarms, alarm_events, removals")
        connection.execute("TRUNCATE avg_temperature_time_interval")
    return _community


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Start a function with settings, as functions-framework does, and get a client for it."""
    clients: list[TestClient] = []

    def start(function: str, **environment: str) -> TestClient:
        os.environ.update(environment)
        app = server.application(function, ROOT / "functions" / function / "main.py")
        client = TestClient(app)
        clients.append(client)
        client.__enter__()
        return client

    yield start
    for client in clients:
        client.__exit__()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Where events can be sent to."""
    with listening() as server:
        yield server
