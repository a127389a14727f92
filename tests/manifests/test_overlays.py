"""The example of an overlay, and the certificates that it has everybody look at."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import DATABASE, OWNER, WRITER, Postgres
from tests.manifests.support import Object, containers, environment, functions, of_kind, overlay, templates
from tests.support import ROOT, free_port, migrate, program, wait_until
from tests.versions.conftest import programs

USERS = {"average", "health", "ingest", "migrations", "summaries", "watch"}
"""Who connects to the database."""
DOCUMENTATION = (ROOT / "docs" / "kubernetes.md").read_text()


def _by_name(objects: list[Object]) -> dict[str, Object]:
    return {f"{part['kind']} {part['metadata']['name']}": part for part in objects}


def _variable(template: Object, name: str) -> Any:
    (container,) = containers(template)
    (variable,) = [variable for variable in container["env"] if variable["name"] == name]
    return variable.get("value") or variable["valueFrom"]["secretKeyRef"]["name"]


def test_the_example_changes_what_it_says_of_production() -> None:
    production, example = _by_name(overlay("production")), _by_name(overlay("example"))
    assert production.keys() == example.keys()
    assert {name for name in production if production[name] != example[name]} == {
        "CronJob every-minute-watch",
        "CronJob summaries",
        "Deployment health",
        "Job migrations",
        "Service average",
        "Service ingest",
        "Service watch",
        "postgresql temperature-db",
    }
    pods = templates(overlay("example"))
    settings = environment(pods["migrations"])
    assert [settings[f"{name}"] for name in ("BUCKET_MINUTES", "RETENTION_DAYS", "COLUMNSTORE_AFTER_DAYS")] == [
        *("30", "730", "30")
    ]
    # What the manifests say already stays.
    assert settings["REQUIRE_TIMESCALEDB"] == "true"
    annotations = pods["average"]["metadata"]["annotations"]
    scale = {name: annotations[f"autoscaling.knative.dev/{name}"] for name in ("min-scale", "max-scale", "target")}
    assert scale == {"min-scale": "1", "max-scale": "10", "target": "20"}
    assert (_variable(pods["ingest"], "LOG_LEVEL"), _variable(pods["ingest"], "LOG_FORMAT")) == ("warning", "json")
    assert _variable(pods["ingest"], "COPIES") == "2"
    for pod, tokens in (
        ("ingest", "WRITE_TOKENS"),
        ("watch", "WRITE_TOKENS"),
        ("every-minute-watch", "WRITE_TOKENS"),
        ("average", "READ_TOKENS"),
        ("average", "ADMIN_TOKENS"),
    ):
        assert _variable(pods[pod], tokens) == "tokens-of-the-house"
    database = of_kind(overlay("example"), "postgresql")["temperature-db"]["spec"]
    assert database["volume"] == {"size": "500Gi", "storageClass": "fast"}


def test_with_certificates_everybody_looks_at_them() -> None:
    pods = templates(overlay("example"))
    secret = of_kind(overlay("example"), "postgresql")["temperature-db"]["spec"]["tls"]["secretName"]
    for user in USERS:
        settings = environment(pods[user])
        assert settings["PGSSLMODE"] == "verify-full"
        (container,) = containers(pods[user])
        folder, _, name = settings["PGSSLROOTCERT"].rpartition("/")
        (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == folder]
        (volume,) = [volume for volume in pods[user]["spec"]["volumes"] if volume["name"] == mount["name"]]
        # The key is PostgreSQL's alone.
        assert volume["secret"] == {"secretName": secret, "items": [{"key": name, "path": name}]}
    assert {name for name, pod in pods.items() if "PGHOST" in environment(pod)} == USERS
    # What else was mounted stays.
    assert {mount["name"] for mount in containers(pods["watch"])[0]["volumeMounts"]} == {"alarms", "database"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Make certificates as the documentation does, and return their folder."""
    program("openssl")
    (commands,) = re.findall(r"^(openssl req .+?)^kubectl", DOCUMENTATION, re.MULTILINE | re.DOTALL)

    def make() -> Path:
        folder = tmp_path_factory.mktemp("certificates")
        subprocess.run(["bash", "-ec", commands], check=True, capture_output=True, cwd=folder)
        return folder

    return make


@contextmanager
def _encrypted(folder: Path, certificates: Path) -> Iterator[int]:
    """PostgreSQL with the certificates, at a port of 127.0.0.1, with the newest schema."""
    # That of the product itself speaks through sockets alone.
    server = Postgres(folder / "postgres", log=folder / "log", programs=programs("17"))
    server.start()
    try:
        migrate(server.url(OWNER))
    finally:
        server.stop()
    keys = folder / "keys"
    keys.mkdir()
    for name in ("tls.crt", "tls.key"):
        (keys / name).write_bytes((certificates / name).read_bytes())
        (keys / name).chmod(0o600)
        server.give(keys / name)
    server.give(keys)
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": str(keys / "tls.crt"),
        "ssl_key_file": str(keys / "tls.key"),
    }
    arguments = [part for setting in settings.items() for part in ("-c", "=".join(setting))]
    process = server.begin("postgres", "-D", server.folder, *arguments)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"host=127.0.0.1 port={port} user={OWNER} dbname={DATABASE} sslmode=require").close()
            return True
        return False

    try:
        wait_until(answers, seconds=30)
        yield port
    finally:
        # Whoever is connected is not waited for.
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_who_is_not_the_database_gets_no_connection(
    certificates: Callable[[], Path],
    tmp_path: Path,
    serve: Callable[..., TestClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, another = certificates(), certificates()
    pods = templates(overlay("example"))
    with _encrypted(tmp_path, ours) as port:

        def connection(pod: str, folder: Path, **others: str) -> dict[str, str]:
            settings = {
                name: value for name, value in environment(pods[pod]).items() if name.startswith("PG") and value
            }
            file = Path(settings["PGSSLROOTCERT"]).name
            found = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(port), "PGSSLROOTCERT": str(folder / file)}
            return {**settings, **found, **others}

        for user in USERS:
            _connect(connection(user, ours))
            with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
                _connect(connection(user, another))
            with pytest.raises(psycopg.OperationalError, match="does not match host name"):
                _connect(connection(user, ours, PGHOST="pretender"))
        body = {"building_id": "B1", "room_id": "101", "temperature": 20, "timestamp": "2024-12-01T12:34:56Z"}
        # As in the cluster, where nobody but the settings says where it is.
        assert not os.environ.get("DATABASE_URL")
        for folder, status in ((ours, 201), (another, 503)):
            client = serve(
                "ingest", **connection("ingest", folder, PGUSER=WRITER), DEADLINE_SECONDS="1", DATABASE_POOLER="false"
            )
            assert client.post("/", json=body).status_code == status
        assert "certificate verify failed" in caplog.text


def _connect(variables: dict[str, str]) -> None:
    names = {"PGDATABASE": "dbname", "PGTARGETSESSIONATTRS": "target_session_attrs"}
    parameters = {names.get(name, name.removeprefix("PG").lower()): value for name, value in variables.items()}
    with psycopg.connect(**{"dbname": DATABASE, **parameters, "user": OWNER}) as connection:  # type: ignore[arg-type]
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)


def test_the_functions_are_those_whose_pods_the_budgets_mean() -> None:
    budgets = of_kind(overlay("production"), "PodDisruptionBudget")
    meant = [budget["spec"]["selector"]["matchLabels"] for budget in budgets.values()]
    assert {labels["serving.knative.dev/service"] for labels in meant if len(labels) == 1} <= functions(
        overlay("production")
    ).keys()
    # The operator has one for the primary, and a pod of two budgets could not be moved at all.
    assert budgets["standbys"]["spec"]["selector"]["matchLabels"]["spilo-role"] == "replica"
