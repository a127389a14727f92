"""The databases that tests run on, each real, and the functions as functions-framework serves them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from functions_framework.aio import create_asgi_app
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WRITER, Postgres
from tests.support import ROOT, SUPERUSER, Urls, alembic, migrate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of TimescaleDB share one database, those of manifests what was built of them: each run in one process."""
    for item in items:
        if (folder := item.path.parent.name) in {"timescale", "manifests"}:
            item.add_marker(pytest.mark.xdist_group(folder))


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
    folder = Path(tempfile.mkdtemp(prefix="temperature-test-"))
    server = Postgres(folder / "postgres", log=folder / "postgres.log")
    try:
        server.start()
        migrate(server.url(OWNER))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _database_numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture
def plain(postgres: Postgres, _database_numbers: Iterator[int]) -> Iterator[Urls]:
    """A database of its own, migrated and empty, on plain PostgreSQL."""
    name = f"test_{next(_database_numbers)}"
    with psycopg.connect(postgres.url(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE temperature")
        yield lambda role: postgres.url(role, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _timescale_server() -> Iterator[Urls]:
    """TimescaleDB's community edition: the server at TIMESCALE_URL (as superuser), or one in WebAssembly under Node."""
    if url := os.environ.get("TIMESCALE_URL"):
        yield lambda role: make_conninfo(url, user=role) if role != SUPERUSER else url
        return
    folder = ROOT / "tests" / "timescale" / "server"
    if not ((node := shutil.which("node")) and (folder / "node_modules").exists()):
        if os.environ.get("CI"):
            pytest.fail("TimescaleDB cannot be tested: install Node.js and run `make test`, or set TIMESCALE_URL")
        pytest.skip("needs Node.js (make test installs the rest), or TIMESCALE_URL")
    with subprocess.Popen([node, folder / "server.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin and server.stdout
        port = json.loads(server.stdout.readline())["port"]
        yield lambda role: f"postgresql://{role}:postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        server.stdin.close()


@contextmanager
def _migrated(server: Urls) -> Iterator[Urls]:
    with psycopg.connect(server(SUPERUSER), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        # The tests run the jobs themselves: one refresh refuses another at the same time.
        connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
        for role in (OWNER, WRITER, READER):
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount:
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'postgres'")
        connection.execute(f"GRANT CREATE ON SCHEMA public TO {OWNER}")
    migrate(server(OWNER))
    yield server
    alembic(server(OWNER), "downgrade", "base")


@pytest.fixture(scope="module")
def _community(_timescale_server: Urls) -> Iterator[Urls]:
    with _migrated(_timescale_server) as urls:
        yield urls


@pytest.fixture
def community(_community: Urls) -> Urls:
    """An empty database on TimescaleDB's community edition."""
    with psycopg.connect(_community(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures")
        for view in ("avg_temperature_time_interval", "avg_temperature_hourly", "avg_temperature_daily"):
            connection.execute(f"TRUNCATE {view}")
    return _community


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Start a function with settings, as functions-framework does, and get a client for it."""
    clients: list[TestClient] = []

    def start(function: str, **environment: str) -> TestClient:
        os.environ.update(environment)
        app = create_asgi_app(function, ROOT / "functions" / function / "main.py", "http")
        client = TestClient(app)
        clients.append(client)
        client.__enter__()
        return client

    yield start
    for client in clients:
        client.__exit__()
