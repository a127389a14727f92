"""Databases whose administrators chose settings at random: answers and alarms are what models in Python say."""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WRITER, Postgres
from tests import clock, history
from tests.excursions import Rule
from tests.sink import Sink
from tests.support import LONG, SUPERUSER, Urls, copied, migrate, wait_until
from tests.watched import Game

SEED = int(os.environ.get("SEED") or random.randrange(10**6))
GAMES = int(os.environ.get("RUNS") or (20 if LONG else 1))
WAYS = (
    *("bitmapscan", "hashagg", "hashjoin", "incremental_sort", "indexonlyscan", "indexscan", "material", "memoize"),
    *("mergejoin", "nestloop", "presorted_aggregate", "seqscan", "sort"),
)
"""Of the planner, each of which can be switched off."""
SWITCHES = (
    *("array_nulls", "check_function_bodies", "parallel_leader_participation", "row_security"),
    *("standard_conforming_strings", "track_activities", "track_counts"),
)
"""That are on by default."""
SETTINGS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys((*SWITCHES, *(f"enable_{way}" for way in WAYS)), ("off",)),
    **dict.fromkeys(("transform_null_equals", "quote_all_identifiers", "exit_on_error"), ("on",)),
    **dict.fromkeys(("from_collapse_limit", "join_collapse_limit", "hash_mem_multiplier"), ("1",)),
    **dict.fromkeys(("random_page_cost", "cpu_tuple_cost", "cpu_operator_cost", "parallel_setup_cost"), ("0", "1e9")),
    **dict.fromkeys(("min_parallel_table_scan_size", "min_parallel_index_scan_size", "jit_above_cost"), ("0",)),
    **dict.fromkeys(("statement_timeout", "idle_session_timeout"), ("2s",)),
    "backslash_quote": ("off", "on"),
    "bytea_output": ("escape",),
    "client_encoding": ("LATIN1", "EUC_JP"),
    "client_min_messages": ("debug5", "error"),
    "constraint_exclusion": ("on", "off"),
    "cursor_tuple_fraction": ("0", "1"),
    "DateStyle": ("German, DMY", "SQL, DMY", "Postgres, MDY"),
    "deadlock_timeout": ("10ms",),
    "debug_parallel_query": ("on",),
    "default_statistics_target": ("1",),
    "default_transaction_deferrable": ("on",),
    "default_transaction_isolation": ("repeatable read", "serializable"),
    "extra_float_digits": ("-15", "3"),
    "geqo_threshold": ("2",),
    "idle_in_transaction_session_timeout": ("300ms",),
    "IntervalStyle": ("sql_standard", "iso_8601", "postgres_verbose"),
    "lock_timeout": ("1ms",),
    "max_stack_depth": ("100kB",),
    "plan_cache_mode": ("force_custom_plan", "force_generic_plan"),
    "stats_fetch_consistency": ("snapshot",),
    "synchronous_commit": ("off", "local"),
    "TimeZone": ("<+0530>-05:30", "Pacific/Apia", "America/St_Johns", "Asia/Kathmandu"),
    "timezone_abbreviations": ("Australia", "India"),
    "work_mem": ("64kB",),
    "xmloption": ("document",),
}
"""Of a database, none of them what PostgreSQL has by default."""
OF_THE_TEST = {
    "DateStyle": "ISO",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": "0",
}
"""Without which what it asks itself would be answered otherwise, and what it stores itself refused."""


def chosen(seed: int) -> Mapping[str, str]:
    """The same settings for the same seed, a third of all of them."""
    chance = random.Random(seed)
    return {name: chance.choice(values) for name, values in SETTINGS.items() if chance.random() < 1 / 3}


@contextmanager
def administered(postgres: Postgres, settings: Mapping[str, str]) -> Iterator[Urls]:
    """A database with settings, that is migrated with them."""
    name = "administered"
    with copied(postgres, name, "template0") as urls:
        with psycopg.connect(postgres.url(), autocommit=True) as superuser:
            for setting, value in settings.items():
                superuser.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        migrate(urls(OWNER))
        yield urls


def of_the_test(urls: Urls) -> Urls:
    """Its own connections, which need a few settings as they are."""
    options = quote(" ".join(f"-c {name}={value}" for name, value in OF_THE_TEST.items()))
    return lambda role: f"{urls(role)}&options={options}" if role in {OWNER, WRITER, SUPERUSER} else urls(role)


def test_no_reading_is_acknowledged_that_no_trigger_marks(postgres: Postgres, serve: Callable[..., TestClient]) -> None:
    reading = {"building_id": "B1", "room_id": "101", "temperature": 20.5, "timestamp": "2026-11-01T00:00:00Z"}
    with administered(postgres, {"session_replication_role": "replica"}) as urls:
        ingest = serve("ingest", DATABASE_URL=urls(WRITER), DEADLINE_SECONDS="1")
        assert ingest.post("/", json=reading).status_code == 503
        with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
            superuser.execute(f"ALTER DATABASE {superuser.info.dbname} RESET session_replication_role")
        assert ingest.post("/", json=reading).json()["duplicates"] == 0
        average = serve("average", DATABASE_URL=urls(READER))
        question = "/v1/temperature/average?building_id=B1&start=2026-11-01T00:00:00Z"
        assert average.get(question).json()["count"] == 1


def test_migrations_say_that_a_commit_waits(
    postgres: Postgres, plain: Urls, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.database.COMMIT_WAITS_SECONDS", 0.5)
    migrate(plain(OWNER))
    assert "synchronous_standby_names" not in caplog.text
    with psycopg.connect(postgres.url(), autocommit=True) as superuser, ThreadPoolExecutor() as pool:
        superuser.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        superuser.execute("SELECT pg_reload_conf()")
        try:
            waiting = pool.submit(migrate, plain(OWNER))
            wait_until(lambda: "synchronous_standby_names" in caplog.text)
        finally:
            superuser.execute("ALTER SYSTEM RESET synchronous_standby_names")
            superuser.execute("SELECT pg_reload_conf()")
        waiting.result()


@pytest.mark.timeout(3600 if LONG else 300)
def test_answers_and_alarms_are_right_whatever_the_administrator_chose(
    postgres: Postgres, serve: Callable[..., TestClient], sink: Sink
) -> None:
    for seed in range(SEED, SEED + GAMES):
        settings = chosen(seed)
        try:
            with administered(postgres, settings) as urls:
                play(urls, serve)
                watch(urls, serve, sink, seed)
        except Exception as error:
            raise AssertionError(f"SEED={seed}: {settings}") from error


def play(urls: Urls, serve: Callable[..., TestClient]) -> None:
    """Play with readings, once."""
    ingests = [serve("ingest", DATABASE_URL=urls(WRITER)) for _ in range(2)]
    average = history.served(serve, urls)
    history.play(history.World(of_the_test(urls), average, ingests, hypertable=False, at_once=True), examples=1)


def watch(urls: Urls, serve: Callable[..., TestClient], sink: Sink, seed: int) -> None:
    """Play with alarms, once, on a clock that is made up."""
    own = of_the_test(urls)
    with psycopg.connect(own(OWNER), autocommit=True) as owner:
        owner.execute("TRUNCATE temperatures, removals")
    url = clock.begin(own)
    sink.requests.clear()

    def function(rules: Sequence[Rule]) -> TestClient:
        return serve("watch", DATABASE_URL=url, ALARM_RULES=json.dumps(rules), ALARM_SINK_URL=sink.url)

    Game(own, function, sink, random.Random(seed), removes=True).play(16)
