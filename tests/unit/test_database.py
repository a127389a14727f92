"""How a function connects."""

import asyncio
import gc

import psycopg
import pytest

from shared import database
from shared.settings import SettingError


def test_the_database_stops_what_would_be_past_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADLINE_SECONDS", "7")
    assert "-c statement_timeout=6300" in database.load(connections=1).options["options"]


def test_behind_a_pooler_nothing_is_asked_that_outlives_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_POOLER", "true")
    pooled = database.load(connections=1)
    assert (pooled.options["prepare_threshold"], "options" in pooled.options) == (None, False)
    # To compile a question takes ten times as long as to answer it, on servers that can.
    for bound in ("'statement_timeout', '9000'", "'jit', 'off'", "'client_min_messages', 'warning'"):
        assert f"set_config({bound}, true)" in (pooled.bounds or "")


def test_a_setting_that_is_neither_true_nor_false_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_POOLER", "pgbouncer")
    with pytest.raises(SettingError, match="DATABASE_POOLER must be true or false, not 'pgbouncer'"):
        database.load(connections=1)


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (
            psycopg.errors.ReadOnlySqlTransaction(),
            "read_only",
            "The database only reads, as a standby does; ask again when it writes too",
        ),
        (
            psycopg.errors.SerializationFailure(),
            "conflict",
            "The database was changed meanwhile, again and again; ask again",
        ),
        (
            psycopg.errors.UndefinedTable(),
            "not_set_up",
            "The database lacks tables or rights until it is migrated; ask again then",
        ),
        (psycopg.OperationalError(), "deadline", "The database does not answer; ask again"),
        (None, "deadline", "The database does not answer; ask again"),
    ],
)
def test_what_the_database_said_last_is_what_a_client_is_told(
    error: Exception | None, reason: str, detail: str
) -> None:
    problem = database.unanswered(error, "ask again")
    assert (problem.status, problem.reason, problem.detail) == (503, reason, detail)
    assert problem.headers == {"Retry-After": "5"}


def test_work_that_is_given_up_may_fail_later_and_nobody_hears_of_it() -> None:
    reported: list[object] = []

    async def ends_badly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the server did not stop")

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        with pytest.raises(TimeoutError):
            await database.within(0.01, ends_badly())
        await asyncio.sleep(0.01)
        gc.collect()

    asyncio.run(play())
    assert reported == []
