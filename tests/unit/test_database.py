"""How a function connects."""

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
