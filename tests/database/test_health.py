"""What only the database knows of how it is: each fault is found, and over when it is mended; what is usual is none."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from local.postgres import MONITOR, OWNER, PROGRAMS, READER
from migrations import health
from tests.faults.link import Link
from tests.kubectl import KUBECTL, status
from tests.local.machine import place
from tests.support import (
    NOWHERE,
    ROOT,
    SUPERUSER,
    Urls,
    alembic,
    embedded,
    free_port,
    migrate,
    python,
    wait_for_locks,
    wait_until,
)

Owner = psycopg.Connection[Any]
ROOMS = """
    INSERT INTO temperatures
    SELECT 'B1', room::text, now() - hours * interval '1 hour', 20
    FROM generate_series(1, 10) AS room, generate_series(0, 5) AS hours
"""


@pytest.fixture
def owner(plain: Urls) -> Iterator[Owner]:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        yield connection


def measured(urls: Urls, role: str = MONITOR) -> dict[tuple[str, str], health.Measure]:
    return {(measure.metric, measure.of): measure for measure in health.look(urls(role))}


def faults(urls: Urls) -> dict[str, str]:
    return {metric: measure.fault for (metric, _), measure in measured(urls).items() if measure.fault}


def make_it_well(owner: Owner) -> None:
    """Ten rooms, of which everything is summed up, and a look for alarms that was a moment ago."""
    owner.execute(ROOMS)
    owner.execute("CALL summarize()")
    owner.execute("UPDATE watching SET checked = now()")


def test_a_database_that_has_just_been_made_is_well(plain: Urls, owner: Owner) -> None:
    def server_seconds() -> float:
        [(age,)] = owner.execute("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8").fetchall()
        return float(age)

    wait_until(lambda: server_seconds() > 2)
    alembic(plain(OWNER), "downgrade", "base")
    before = server_seconds()
    migrate(plain(OWNER))
    since = measured(plain)["summaries_seconds", ""].value
    # When it was made is known to the second.
    assert since < server_seconds() - before + 1, "its server may be years old"
    assert faults(plain) == {}
    found = measured(plain)
    assert found["rooms", ""].value == found["unsummarized_seconds", ""].value == 0
    assert found["database_bytes", ""].value > 1_000_000


def test_of_an_odd_number_of_rooms_half_is_rounded_up(plain: Urls, owner: Owner) -> None:
    for room in range(3):
        owner.execute("INSERT INTO temperatures VALUES ('B1', %s, now() - interval '4 hours', 20)", (str(room),))
    behind = measured(plain)["rooms_behind", ""]
    assert (behind.value, behind.most) == (3, 2)


def test_one_that_is_used_is_well(plain: Urls, owner: Owner) -> None:
    make_it_well(owner)
    assert faults(plain) == {}
    assert measured(plain)["rooms", ""].value == 10


ALARM = (
    "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
    " VALUES ('B1', '1', 'low', 1, 0, now())"
)
EVENT = (
    f"{ALARM}; INSERT INTO alarm_events (alarm, state, sink, raised, made, attempts, next_attempt, given_up)"
    " SELECT id, 'raised', 'x', raised, now() - interval '1 hour', {} FROM alarms"
)
REMOVAL = (
    "INSERT INTO removals (building_id, since, before, everything, until, asked_by, known_until, asked)"
    " VALUES ('B1', '-infinity', 'infinity', true, now(), '', now(), now() - interval '2 hours')"
)
FAULTS = {
    "nothing is summed up": (
        "SELECT setval('summarized', extract(epoch FROM now() - interval '20 minutes')::bigint)",
        "CALL summarize()",
        {"summaries_seconds": "Nothing has summed up readings for 20 minutes, and averages get slower."},
    ),
    "what is summed up is less than what comes": (
        "INSERT INTO temperatures SELECT 'B1', room::text, now() - interval '3 hours', 21"
        " FROM generate_series(1, 6) AS room",
        "CALL summarize()",
        {"rooms_behind": "Of 10 rooms 6 have readings older than two hours that are not summed up:"},
    ),
    "nobody looks for alarms": (
        "UPDATE watching SET checked = now() - interval '11 minutes'",
        "UPDATE watching SET checked = now()",
        {"watch_seconds": "Nobody has looked for alarms for 11 minutes."},
    ),
    "a removal stands still, and retention with it": (
        f"{REMOVAL}; UPDATE upkeep SET retention = '7 days', dropped_before = now() - interval '10 days'",
        "CALL summarize()",
        {
            "removal_seconds": "A removal of readings has not been finished for 2 hours.",
            "retention_seconds": "Readings are there 3 days longer than RETENTION_DAYS says; a removal is not",
        },
    ),
    "readings are not dropped while rooms lack their courses": (
        "UPDATE upkeep SET retention = '7 days', dropped_before = now() - interval '10 days';"
        " UPDATE rooms SET courses_missing_before = summed_until WHERE room_id IN ('1', '2')",
        "CALL summarize()",
        {"retention_seconds": "Readings are there 3 days longer than RETENTION_DAYS says; 2 rooms are not ready for"},
    ),
    "the sink is away": (
        EVENT.format("5, now() + interval '5 minutes', NULL"),
        "DELETE FROM alarms",
        {"alarm_event_seconds": "The sink of alarms has not taken an event for 60 minutes."},
    ),
    "the sink refuses": (
        EVENT.format("10, now(), now()"),
        "DELETE FROM alarms",
        {"alarm_events_given_up": "The sink of alarms was not told of 1 events in the last day, which were given up."},
    ),
}


@pytest.mark.parametrize(("breaks", "mends", "said"), FAULTS.values(), ids=FAULTS)
def test_what_stops_silently_is_found_and_over_when_it_is_mended(
    plain: Urls, owner: Owner, breaks: str, mends: str, said: dict[str, str]
) -> None:
    make_it_well(owner)
    owner.execute(breaks)
    found = faults(plain)
    assert found.keys() == said.keys()
    assert [metric for metric, words in said.items() if not found[metric].startswith(words)] == []
    owner.execute(mends)
    assert faults(plain) == {}


NO_FAULTS = {
    "a backlog comes late to a room": "INSERT INTO temperatures VALUES ('B1', '1', now() - interval '9 days', 21)",
    "the hour before the last is late in every room": (
        "INSERT INTO temperatures SELECT 'B1', room::text, now() - interval '1 hour', 21"
        " FROM generate_series(1, 10) AS room"
    ),
    "half of the rooms fell silent long ago": (
        "INSERT INTO temperatures SELECT 'B2', room::text, now() - interval '9 days', 21"
        " FROM generate_series(1, 20) AS room; CALL summarize()"
    ),
    "a room is new, with its past": "INSERT INTO temperatures VALUES ('B1', 'new', now() - interval '1 year', 1)",
    "an event waits for a sink that there is not any more": EVENT.format("5, now() - interval '1 hour', NULL"),
    "an event has not been tried yet": EVENT.format("0, now() - interval '1 hour', NULL"),
    "an event was given up days ago": EVENT.format("10, now(), now() - interval '2 days'"),
    "looks are rare": "UPDATE watching SET checked = now() - interval '1 day', rarely = true",
    "a removal has just begun": REMOVAL.replace("2 hours", "5 minutes"),
    "retention has just begun": "UPDATE upkeep SET retention = '7 days', dropped_before = now() - interval '170:00'",
}


@pytest.mark.parametrize("happens", NO_FAULTS.values(), ids=NO_FAULTS)
def test_what_is_usual_is_no_fault(plain: Urls, owner: Owner, happens: str) -> None:
    make_it_well(owner)
    for statement in happens.split("; "):
        owner.execute(statement)
    assert faults(plain) == {}


def test_alarms_that_were_never_looked_for_are_a_fault_where_there_are_rooms(plain: Urls, owner: Owner) -> None:
    assert ("watch_seconds", "") not in measured(plain)
    owner.execute(ROOMS)
    # It was made before its server started.
    owner.execute("SELECT setval('summarized', 2, false)")
    [(uptime,)] = owner.execute("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8").fetchall()
    assert measured(plain)["watch_seconds", ""].value >= uptime


def test_a_transaction_that_stays_open_and_connections_are_measured(plain: Urls, owner: Owner) -> None:
    with psycopg.connect(plain(READER)) as reader:
        reader.execute("SELECT 1")
        time.sleep(0.1)
        found = measured(plain)
    assert found["database_transaction_seconds", ""].value >= 0.1
    assert found["database_connections", ""].value >= 3
    # Of 50 three are for superusers.
    assert found["database_connections", ""].most == 37


def test_without_pg_monitor_only_that_is_missing(plain: Urls) -> None:
    everything, less = (measured(plain, role).keys() for role in (SUPERUSER, OWNER))
    assert everything - less == {("database_transaction_seconds", "")}
    assert less <= everything
    assert {metric for metric, _ in everything} <= health.METRICS.keys()


def test_an_archive_that_takes_nothing_and_a_transaction_that_was_prepared_are_found() -> None:
    with place() as folder, embedded(folder / "postgres", log=folder / "log") as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            for setting in ("archive_mode = on", "archive_command = 'false'", "max_prepared_transactions = 2"):
                superuser.execute(f"ALTER SYSTEM SET {setting}")
        server.stop()
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute("SELECT pg_switch_wal()")
            superuser.execute("BEGIN; CREATE TABLE left_open (); PREPARE TRANSACTION 'forgotten'")
            begun = time.monotonic()
            wait_until(lambda: "archive_failing" in faults(server.url))
            assert faults(server.url)["archive_failing"].startswith("The log cannot be archived (0000")
            passed = time.monotonic() - begun
            superuser.execute("BEGIN; CREATE TABLE left_open_too (); PREPARE TRANSACTION 'newer'")
            assert measured(server.url)["database_prepared_seconds", ""].value >= passed, "it is the oldest that counts"
            for name in ("forgotten", "newer"):
                superuser.execute(f"ROLLBACK PREPARED '{name}'")
            superuser.execute("ALTER SYSTEM SET archive_command = 'true'")
            superuser.execute("SELECT pg_reload_conf()")
            wait_until(lambda: "archive_failing" not in faults(server.url))
            superuser.execute("SELECT pg_switch_wal()")
            # What is written now is in a file that is not full.
            wait_until(lambda: 0 < measured(server.url)["archive_bytes", ""].value <= 16 * 2**20)
            assert faults(server.url) == {}
            superuser.execute("ALTER SYSTEM SET archive_mode = off")
        server.stop()
        server.start()
        # What is written now is not to be archived.
        assert ("archive_bytes", "") not in measured(server.url)


def test_a_standby_that_was_the_primary_is_not_blamed_for_what_it_archived_then() -> None:
    with place() as folder, embedded(folder / "postgres", log=folder / "log") as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            for setting in ("archive_mode = on", "archive_command = 'false'"):
                superuser.execute(f"ALTER SYSTEM SET {setting}")
        server.stop()
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute("SELECT pg_switch_wal()")
            wait_until(lambda: "archive_failing" in faults(server.url))
        server.stop()
        (folder / "postgres" / "standby.signal").touch()
        server.start()
        with psycopg.connect(server.url()) as standby:
            # So that it still knows of it.
            assert standby.execute("SELECT FROM pg_stat_archiver WHERE failed_count > 0").rowcount
        assert faults(server.url) == {}


def test_who_subscribes_to_changes_or_keeps_the_log_is_no_standby() -> None:
    with place() as folder, embedded(folder / "postgres", log=folder / "log") as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute("ALTER SYSTEM SET wal_level = logical")
            superuser.execute("CREATE DATABASE subscriber")
        server.stop()
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STANDBYS", "1")
            migrate(server.url(OWNER))
        with (
            psycopg.connect(server.url(), autocommit=True) as publisher,
            psycopg.connect(server.url(database="subscriber"), autocommit=True) as subscriber,
        ):
            for connection in (publisher, subscriber):
                connection.execute("CREATE TABLE changes (number integer PRIMARY KEY)")
            publisher.execute("CREATE PUBLICATION changes FOR TABLE changes")
            publisher.execute("SELECT pg_create_logical_replication_slot('changes', 'pgoutput')")
            subscriber.execute(
                f"CREATE SUBSCRIPTION changes CONNECTION '{make_conninfo(server.url())}' PUBLICATION changes"
                " WITH (create_slot = false)"
            )
            follows = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL"
            wait_until(lambda: publisher.execute(follows).rowcount)
            # What there was is copied by another, through a slot that it drops in the end.
            copied = "SELECT FROM pg_subscription_rel WHERE srsubstate = 'r'"
            wait_until(lambda: subscriber.execute(copied).rowcount)
            (folder / "wal").mkdir()
            server.give(folder / "wal")
            server.let_pass(folder / "wal")
            receiver = server.begin("pg_receivewal", "--dbname", server.url(), "--directory", folder / "wal")
            streams = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NULL"
            wait_until(lambda: publisher.execute(streams).rowcount)
            assert faults(server.url) == {
                "standbys_missing": "Of 1 standbys 0 follow the primary. docs/reliability.md#a-standby-does-not-follow"
            }
            assert "standby_seconds" not in {metric for metric, _ in measured(server.url)}
            receiver.terminate()
            receiver.wait()
            subscriber.execute("DROP SUBSCRIPTION changes")


def test_each_fault_leads_to_a_section_of_the_runbook() -> None:
    sources = [ROOT / "migrations/sql/health.sql", ROOT / "local/observer.py", ROOT / "kind/look.sh"]
    anchors = {anchor for file in sources for anchor in re.findall(r"docs/reliability\.md#([a-z-]+)", file.read_text())}
    headings = re.findall(r"^### (.+)$", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE)
    assert len(anchors) > 10
    assert anchors <= {heading.lower().replace(" ", "-") for heading in headings}


def test_it_is_said_in_words_with_a_status_for_programs(plain: Urls, owner: Owner) -> None:
    make_it_well(owner)
    well = python("-m", "migrations.health", "--words", DATABASE_URL=plain(MONITOR))
    assert (well.returncode, well.stdout) == (0, "Nothing is wrong that the database knows of.\n")
    owner.execute("UPDATE watching SET checked = now() - interval '1 hour'")
    ill = python("-m", "migrations.health", "--words", DATABASE_URL=plain(MONITOR))
    assert (ill.returncode, ill.stdout.splitlines()) == (
        1,
        ["Nobody has looked for alarms for 60 minutes. docs/reliability.md#watch-stops"],
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (NOWHERE, "The database does not answer: connection"),
        ("reader", "This role may not see how the database is: it is MONITOR_ROLE of the migrations that may"),
        ("not migrated", "The database has no database_health() yet: run the migrations"),
    ],
)
def test_why_it_cannot_be_said_is_said(plain: Urls, url: str, words: str) -> None:
    if url == "not migrated":
        alembic(plain(OWNER), "downgrade", "base")
    url = url if url == NOWHERE else plain(READER if url == "reader" else MONITOR)
    run = python("-m", "migrations.health", "--words", DATABASE_URL=url)
    assert run.returncode == 1
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_the_status_of_a_cluster_waits_for_nobody_who_keeps_a_table(tmp_path: Path) -> None:
    with place() as folder, embedded(folder / "postgres", log=folder / "log") as server:
        [host] = parse_qs(urlsplit(server.url()).query)["host"]
        asks = f'while [ "$1" != -- ]; do shift; done; shift; PATH={PROGRAMS}:$PATH PGHOST={host} exec "$@" ;;'
        kubectl = re.sub(r"(?<=\*database_health\*\) ).*", lambda _: asks, KUBECTL)
        assert status(tmp_path, kubectl) == "Nothing is wrong that can be seen from here."
        with psycopg.connect(server.url()) as keeper:
            keeper.execute("SET idle_in_transaction_session_timeout = '30s'")
            keeper.execute("LOCK TABLE rooms IN ACCESS EXCLUSIVE MODE")
            assert status(tmp_path, kubectl).startswith("The database does not say how it is: docs/")


@pytest.fixture
def link(plain: Urls) -> Iterator[Link]:
    """A network to the database, which can be stalled."""
    found = conninfo_to_dict(plain(MONITOR))
    network = Link(lambda: Path(str(found["host"])) / f".s.PGSQL.{found.get('port', 5432)}")
    yield network
    network.resume()
    network.close()


@pytest.mark.parametrize("when", ["before it is asked", "while it is asked"])
def test_a_database_that_says_nothing_is_away_before_a_prometheus_stops_waiting(
    plain: Urls, owner: Owner, link: Link, when: str
) -> None:
    url = make_conninfo(plain(MONITOR), host="127.0.0.1", port=link.port, sslmode="disable")
    asked = health.Health(lambda: health.look(url))
    with ThreadPoolExecutor(1) as pool, owner.transaction():
        if when == "before it is asked":
            link.stall()
        else:
            owner.execute("LOCK TABLE rooms IN ACCESS EXCLUSIVE MODE")
        collected = pool.submit(lambda: [sample.value for family in asked.collect() for sample in family.samples])
        if when == "while it is asked":
            wait_for_locks(plain)
            link.stall()
        try:
            # 10 seconds is what a Prometheus waits by default.
            assert collected.result(9) == [0]
        finally:
            link.resume()


def test_what_the_database_refused_is_said_without_the_statement(plain: Urls, owner: Owner) -> None:
    with owner.transaction():
        owner.execute("LOCK TABLE rooms IN ACCESS EXCLUSIVE MODE")
        run = python("-m", "migrations.health", "--words", DATABASE_URL=plain(MONITOR))
    assert run.stderr == "The database does not answer: canceling statement due to lock timeout\n"


@pytest.fixture
def exporter(plain: Urls, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """What answers a Prometheus, as a process of its own; its address and its log."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "migrations.health"],
            env={"PYTHONPATH": f"{ROOT}/functions:{ROOT}", "PORT": str(port), "DATABASE_URL": plain(MONITOR)},
            stderr=output,
        )
    yield f"http://127.0.0.1:{port}", process, log
    process.kill()
    process.wait()


def scraped(address: str) -> dict[str, float]:
    def text() -> str:
        with suppress(requests.ConnectionError):
            return requests.get(f"{address}/metrics", timeout=10).text
        return ""

    families: Any = text_string_to_metric_families(wait_until(text))
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_that_the_database_is_away_is_said_once(
    plain: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0)
    caplog.set_level("INFO", "health")
    urls = [NOWHERE, NOWHERE, plain(MONITOR), plain(MONITOR)]
    collector = health.Health(lambda: health.look(urls.pop(0)))
    assert [next(iter(collector.collect())).samples[0].value for _ in range(4)] == [0, 0, 1, 1]
    away, back = caplog.messages
    assert away.startswith("The database does not answer: ")
    assert back == "the database answers again"


def test_a_prometheus_is_answered_while_the_database_is_away_too(
    plain: Urls, owner: Owner, exporter: tuple[str, "subprocess.Popen[bytes]", Path]
) -> None:
    address, process, log = exporter
    found = scraped(address)
    assert found["temperature_database_up"] == 1
    assert (found["temperature_summaries_seconds_limit"], found["temperature_rooms"]) == (900, 0)
    # A limit of nothing is none of its own.
    assert "temperature_alarm_events_given_up_limit" not in found
    owner.execute(ROOMS)
    # What was measured a moment ago is not measured again.
    assert scraped(address)["temperature_rooms"] == 0
    owner.execute("DROP FUNCTION database_health")
    time.sleep(health.FRESH_SECONDS)
    assert scraped(address) == {"temperature_database_up": 0}
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert log.read_text().count("The database has no database_health() yet") == 1


def test_the_migrations_leave_the_time_of_the_last_summary_alone(plain: Urls, owner: Owner) -> None:
    owner.execute("SELECT setval('summarized', 1000)")
    migrate(plain(OWNER))
    assert owner.execute("SELECT last_value FROM summarized").fetchall() == [(1000,)]
