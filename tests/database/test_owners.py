"""A database that somebody else administers: the owner of the schema is no superuser, and owns as little as can be."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from urllib.parse import quote

import psycopg
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from local.postgres import MONITOR, READER, WATCHER, WRITER, Postgres
from migrations.database import explained
from shared.settings import SettingError
from tests.support import SUPERUSER, Urls, migrate, python, slow_down

READING = {"building_id": "B1", "room_id": "101", "temperature": 30.5, "timestamp": "2024-12-01T12:34:56Z"}
DAY = {"building_id": "B1", "start": "2024-12-01T00:00:00Z", "end": "2024-12-02T00:00:00Z"}
MINE = "service_owner"
CLOSED = "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE TEMPORARY ON DATABASE DATABASE_NAME FROM PUBLIC"
_numbers = count(1)


@pytest.fixture
def service(postgres: Postgres) -> Iterator[Callable[..., Urls]]:
    """Make a database as a service provides it: with what its superuser did, and roles of which none is one."""
    with ExitStack() as stack:
        yield lambda *statements: stack.enter_context(_provided(postgres, statements))


@contextmanager
def _provided(postgres: Postgres, statements: tuple[str, ...]) -> Iterator[Urls]:
    name = f"service_{next(_numbers)}"
    with psycopg.connect(postgres.url(database="postgres"), autocommit=True) as superuser:
        for role in (MINE, "service_admin"):
            superuser.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS")
        superuser.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            with psycopg.connect(postgres.url(database=name), autocommit=True) as inside:
                for statement in statements:
                    inside.execute(statement.replace("DATABASE_NAME", name))
            yield lambda role: postgres.url(role, name)
        finally:
            superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
            superuser.execute(f"DROP ROLE {MINE}; DROP ROLE service_admin")


def migrated(url: str) -> None:
    """The migrations succeed, twice."""
    for _ in range(2):
        migrate(url)


def refused(url: str) -> str:
    """The sentence with which they end."""
    with pytest.raises(SettingError) as refusal, explained():
        migrate(url)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("owned", "schema"),
    [
        ((f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}",), ""),
        ((f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}", CLOSED), ""),
        ((CLOSED, f'CREATE SCHEMA "Our temperatures" AUTHORIZATION {MINE}'), '"Our temperatures"'),
        ((f"GRANT CREATE ON SCHEMA public TO {MINE}",), ""),
    ],
    ids=["the database", "a database that is closed to others", "a schema in one that is closed", "only its tables"],
)
def test_an_owner_needs_no_more_than_a_place_for_its_tables(
    service: Callable[..., Urls],
    serve: Callable[..., TestClient],
    caplog: pytest.LogCaptureFixture,
    owned: tuple[str, ...],
    schema: str,
) -> None:
    urls = service(*owned)
    path = f"&options={quote(f'-csearch_path={schema}'.replace(' ', chr(92) + ' '))}" if schema else ""
    migrated(urls(MINE) + path)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    ingest, average, watch = (
        serve(function, DATABASE_URL=urls(role) + path, ALARM_RULES='[{"above": 28}]')
        for function, role in (("ingest", WRITER), ("average", READER), ("watch", WATCHER))
    )
    assert [ingest.post("/", json=READING).json()["duplicates"] for _ in range(2)] == [0, 1]
    assert watch.post("/").json()["raised"] == 1
    assert len(average.get("/v1/temperature/alarms", params={"start": DAY["start"]}).json()["alarms"]) == 1
    for _ in range(2):
        assert average.get("/v1/temperature/average", params=DAY).json()["count"] == 1
        with psycopg.connect(urls(MINE) + path, autocommit=True) as owner:
            owner.execute("CALL summarize()")


STRANGE = 'App "User\'s" 50% a:b {c}'


def test_roles_and_schemas_may_have_any_name(
    service: Callable[..., Urls], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = [STRANGE, *(f"{STRANGE} {kind}" for kind in ("writer", "reader", "watcher", "admin", "monitor"))]
    owner, writer, *_ = quoted = ['"{}"'.format(name.replace('"', '""')) for name in names]
    urls = service(
        *(f"CREATE ROLE {role} LOGIN" for role in quoted),
        f"ALTER DATABASE DATABASE_NAME OWNER TO {owner}",
        # The search_path of every role begins with the schema of its own name.
        f"CREATE SCHEMA {owner} AUTHORIZATION {owner}",
        # What the role gets, and what it would get that it must not have.
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {owner} GRANT ALL ON TABLES TO {writer}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT ALL ON FUNCTIONS TO {writer}",
    )
    for setting, name in zip(("WRITER", "READER", "WATCHER", "ADMIN", "MONITOR"), names[1:], strict=True):
        monkeypatch.setenv(f"{setting}_ROLE", name)
    try:
        migrated(urls(quote(STRANGE, safe="")))
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
        with psycopg.connect(urls(SUPERUSER)) as superuser:
            [(tables, may_insert, may_select, may_remove)] = superuser.execute(
                "SELECT count(*), bool_or(has_table_privilege(%(writer)s, pg_class.oid, 'INSERT')),"
                " bool_or(has_table_privilege(%(writer)s, pg_class.oid, 'SELECT')),"
                " has_function_privilege(%(writer)s, (SELECT oid FROM pg_proc WHERE proname = 'begin_removal'),"
                " 'EXECUTE')"
                " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
                " WHERE nspname = %(owner)s AND relname = 'temperatures'",
                {"writer": names[1], "owner": STRANGE},
            ).fetchall()
        assert (tables, may_insert, may_select, may_remove) == (1, True, False, False)
    finally:
        with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
            for role in quoted:
                superuser.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
                superuser.execute(f"DROP OWNED BY {role} CASCADE")
                superuser.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("owned", "sentence"),
    [
        (
            (),
            f"The role {MINE} may create nothing in the schema public. Allow it, as the owner of the schema or of the"
            f" database: GRANT CREATE ON SCHEMA public TO {MINE}",
        ),
        (
            (CLOSED,),
            'None of the schemas that the search_path names ("$user", public) is there for the role'
            f" {MINE}. Make one, as the owner of the database: CREATE SCHEMA ... AUTHORIZATION {MINE}",
        ),
        (
            (
                f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}",
                "CREATE TABLE temperatures ()",
                "ALTER TABLE temperatures OWNER TO service_admin",
            ),
            f"The tables in the schema public belong to the role service_admin, and the migrations run as {MINE}. Run"
            f" them as that role, or let this one act for it: GRANT service_admin TO {MINE}",
        ),
        (
            (
                f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}",
                "ALTER DATABASE DATABASE_NAME SET default_transaction_read_only = on",
            ),
            "The database only reads: it is a standby, or default_transaction_read_only is on. Name the primary in"
            " DATABASE_URL, or have it write again",
        ),
        (
            ("REVOKE CONNECT ON DATABASE DATABASE_NAME FROM PUBLIC",),
            "FATAL: permission denied for database",
        ),
    ],
    ids=["no place", "no schema", "tables of another", "read only", "no way in"],
)
def test_whoever_may_not_is_told_what_to_do(
    service: Callable[..., Urls], owned: tuple[str, ...], sentence: str
) -> None:
    said = refused(service(*owned)(MINE))
    assert sentence in said


def test_a_database_that_is_not_migrated_yet_is_said_and_needs_no_restart(
    service: Callable[..., Urls], serve: Callable[..., TestClient]
) -> None:
    urls = service(f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}")
    ingest, average, watch = (
        serve(function, DATABASE_URL=urls(role), DEADLINE_SECONDS="1", ALARM_RULES='[{"above": 28}]')
        for function, role in (("ingest", WRITER), ("average", READER), ("watch", WATCHER))
    )

    def asked() -> list[Response]:
        return [
            ingest.post("/", json=READING),
            average.get("/v1/temperature/average", params=DAY),
            average.get("/v1/temperature/rooms"),
            watch.post("/"),
        ]

    for again, answer in zip(
        ("send the readings again", "ask again", "ask again", "check again"), asked(), strict=True
    ):
        sentence = f"The database lacks tables or rights until it is migrated; {again} then"
        assert (answer.status_code, answer.json()["detail"]) == (503, sentence)
    migrated(urls(MINE))
    assert [answer.status_code for answer in asked()] == [201, 200, 200, 200]


ROW_SECURITY_FOR_ALL = """
    CREATE FUNCTION secure_rows() RETURNS event_trigger LANGUAGE plpgsql AS $$
    DECLARE made record;
    BEGIN
        FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
        END LOOP;
    END $$;
    CREATE EVENT TRIGGER secure_rows ON ddl_command_end EXECUTE FUNCTION secure_rows();
"""
"""As some services have it."""


def test_no_answer_lacks_rows_that_a_policy_hides(
    service: Callable[..., Urls], serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    urls = service(f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}", ROW_SECURITY_FOR_ALL)
    migrated(urls(MINE))
    for role in (WRITER, READER, WATCHER):
        assert re.search(rf"row level security keeps the role {role} from [a-z_, ]*\btemperatures\b", caplog.text)
        assert f"A superuser can let it pass: ALTER ROLE {role} BYPASSRLS" in caplog.text
    assert f"keeps the role {MONITOR} from" not in caplog.text, "it reads no table"
    rules = '[{"above": 28}]'
    ingest, watch, average = (
        serve(function, DATABASE_URL=urls(role), DEADLINE_SECONDS="1", DATABASE_POOLER=pooled, ALARM_RULES=rules)
        for function, role, pooled in (
            ("ingest", WRITER, "false"),
            ("watch", WATCHER, "true"),
            ("average", READER, "false"),
        )
    )

    def asked() -> list[int]:
        questions = {"average": DAY, "rooms": {}, "readings": DAY, "alarms": {}}
        answers = [average.get(f"/v1/temperature/{path}", params=query) for path, query in questions.items()]
        return [answer.status_code for answer in (ingest.post("/", json=READING), watch.post("/"), *answers)]

    assert set(asked()) == {503}
    with psycopg.connect(urls(MINE), autocommit=True) as owner:
        # Who sees some of the rows is told of none.
        owner.execute(f"CREATE POLICY some_rooms ON rooms TO {READER} USING (building_id <> 'B1')")
    assert set(asked()) == {503}
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
        for role in (WRITER, READER, WATCHER):
            superuser.execute(f"ALTER ROLE {role} BYPASSRLS")
        try:
            assert asked() == [201, 200, 200, 200, 200, 200]
            caplog.clear()
            migrated(urls(MINE))
            assert f"keeps the role {READER} from" not in caplog.text
        finally:
            # The roles are those of the other tests too.
            for role in (WRITER, READER, WATCHER):
                superuser.execute(f"ALTER ROLE {role} NOBYPASSRLS")


def test_who_may_act_for_the_owner_of_the_tables_may_migrate(service: Callable[..., Urls]) -> None:
    urls = service(f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}")
    migrated(urls(MINE))
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(f"GRANT {MINE} TO service_admin")
    migrated(urls("service_admin"))


def test_who_alone_can_let_the_functions_in_is_told(
    service: Callable[..., Urls], caplog: pytest.LogCaptureFixture
) -> None:
    migrated(service(CLOSED, f"GRANT USAGE, CREATE ON SCHEMA public TO {MINE}")(MINE))
    assert (
        f"the role {READER} may not use the schema, and its owner alone can let it: GRANT USAGE ON SCHEMA public TO"
        in caplog.text
    )


def test_migrations_go_on_for_longer_than_the_statements_of_their_role_may(service: Callable[..., Urls]) -> None:
    urls = service(
        f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}", f"ALTER ROLE {MINE} SET statement_timeout = '300ms'"
    )
    migrated(urls(MINE))
    with psycopg.connect(urls(SUPERUSER)) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))")
        # Another run is at work for so long.
        timer = threading.Timer(1.5, other.rollback)
        timer.start()
        migrated(urls(MINE))
        timer.join()


def test_a_backlog_is_summed_up_however_short_the_statements_of_the_owner_must_be(service: Callable[..., Urls]) -> None:
    urls = service(f"ALTER DATABASE DATABASE_NAME OWNER TO {MINE}")
    migrated(urls(MINE))
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, timestamptz '2024-12-01Z' + number * interval '30 s', 20"
            " FROM generate_series(1, 4) AS room CROSS JOIN generate_series(1, 25000) AS number"
        )
        slow_down(superuser, "INSERT ON room_hours", 0.1)
        superuser.execute(f"ALTER ROLE {MINE} SET statement_timeout = '1s'")
        timer = python("-m", "migrations", "summarize", DATABASE_URL=urls(MINE))
        assert (timer.returncode, timer.stdout) == (0, ""), timer.stderr
        assert superuser.execute("SELECT sum(count) FROM room_hours").fetchone() == (100_000,)
