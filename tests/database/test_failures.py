"""Whether another try of the migrations may mend what failed, as their exit code says."""

import psycopg
import pytest

from local.postgres import OWNER, Postgres
from migrations.failures import EXIT_CODE
from tests.support import NOWHERE, SUPERUSER, Urls, python

SETTINGS = {
    "BUCKET_MINUTES": ("7", "BUCKET_MINUTES must divide 60"),
    "RETENTION_DAYS": ("3", "RETENTION_DAYS must be 0 or at least 7"),
    "COLUMNSTORE_AFTER_DAYS": ("never", "COLUMNSTORE_AFTER_DAYS must be a whole number"),
    "REQUIRE_TIMESCALEDB": ("maybe", "REQUIRE_TIMESCALEDB must be true or false"),
    "DATABASE_URL": ("postgresql://a:b@c@d/e", "DATABASE_URL is not a connection string that can be used"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_makes_no_sense_is_final(name: str) -> None:
    value, sentence = SETTINGS[name]
    run = python("-m", "migrations", **{"DATABASE_URL": NOWHERE, name: value})
    assert (run.returncode, run.stdout) == (EXIT_CODE, "")
    (said,) = run.stderr.splitlines()
    assert said.startswith(sentence)


def test_a_database_of_another_encoding_is_final(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE latin OWNER {OWNER} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            run = python("-m", "migrations", DATABASE_URL=postgres.url(OWNER, "latin"))
        finally:
            connection.execute("DROP DATABASE latin WITH (FORCE)")
    assert (run.returncode, run.stderr) == (
        EXIT_CODE,
        "The database must have the encoding UTF8: CREATE DATABASE ... ENCODING 'UTF8'\n",
    )


@pytest.mark.parametrize(
    ("role", "variables"),
    [
        ("", {"DATABASE_URL": NOWHERE}),
        ("a role that is not there yet", {"PGUSER": "late"}),
        (OWNER, {"REQUIRE_TIMESCALEDB": "true"}),
        (OWNER, {"PGOPTIONS": "-c default_transaction_read_only=on"}),
        (OWNER, {"PGOPTIONS": "-c lock_timeout=100ms"}),
    ],
)
def test_what_may_be_over_in_a_moment_is_tried_again(plain: Urls, role: str, variables: dict[str, str]) -> None:
    url = plain(role) if role == OWNER else plain("late")
    with psycopg.connect(plain(SUPERUSER)) as other:
        # Somebody else migrates.
        other.execute("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))")
        if "lock_timeout" not in str(variables):
            other.rollback()
        run = python("-m", "migrations", **{"DATABASE_URL": url, **variables})
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
