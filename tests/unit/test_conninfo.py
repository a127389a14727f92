"""No form of DATABASE_URL puts its password on a screen, into a log or into an answer."""

import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.exc import DBAPIError
from starlette.testclient import TestClient

import migrations.__main__ as migrations
from shared import conninfo, database, logs
from shared.masking import masked
from shared.settings import SettingError
from tests.support import examples, python

SECRET = "s3cret"
USABLE = [
    "postgresql://me:s3cret@127.0.0.1:1/none",
    "postgres://me:s3cret%40%2F@127.0.0.1:1,[::1]:1/none?sslmode=disable",
    "postgresql://me:s3cret?x@127.0.0.1:1/none",
    "postgresql://127.0.0.1:1/none?user=me&password=s3cret@/x",
    "postgresql:///none?host=/nonexistent&password=s3cret",
    "host=127.0.0.1 port=1 dbname=none user=me password=s3cret",
    "host=127.0.0.1 port=1 dbname=none password='s3cret @ it\\'s'",
    "host=127.0.0.1 port=1 sslpassword=s3cret",
]
UNUSABLE = [
    "postgresql+psycopg://me:s3cret@127.0.0.1/none",
    "postgresql+asyncpg://me:s3cret@127.0.0.1/none",
    "postgres+psycopg2://me:s3cret@127.0.0.1/none",
    "mysql://me:s3cret@127.0.0.1/none",
    "jdbc:postgresql://127.0.0.1/none?user=me&password=s3cret",
    "timescaledb://me:s3cret@127.0.0.1/none",
    "me:s3cret@127.0.0.1/none",
    # What is not encoded ends a part of the URL.
    "postgresql://me:s3cret@s3cret@127.0.0.1/none",
    "postgresql://me:s3cret/s3cret@127.0.0.1/none",
    "postgresql://me:12/s3cret@127.0.0.1/none",
    "postgresql://me:s3cret%s3cret@127.0.0.1/none",
    "postgresql://me:s3cret",
    "postgresql://me:s3cret/none",
    "postgresql://127.0.0.1:1/none?password:s3cret",
    "postgresql://127.0.0.1:1/none?passwd=s3cret",
    "host=127.0.0.1 password=s3cret s3cret",
    "host=127.0.0.1 password='s3cret",
    "host=127.0.0.1 port=s3cret",
    "host=127.0.0.1 password = s3cret pwd=s3cret",
]


@pytest.mark.parametrize("url", USABLE)
def test_a_usable_form_is_taken_as_it_is_and_no_failure_of_it_shows_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert database.load(connections=1).url == url
    with pytest.raises((DBAPIError, psycopg.Error)) as failed:
        migrations.main()
    assert SECRET not in masked(f"{failed.value!r} {failed.value}")
    assert SECRET not in masked(f"connecting to {url} failed")
    caplog.set_level(logging.DEBUG)
    answer = serve("average", DATABASE_URL=url, LOG_LEVEL="debug").get("/ready")
    assert (answer.status_code, SECRET in answer.text) == (503, False)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", UNUSABLE)
def test_a_form_that_cannot_be_used_is_refused_with_a_sentence_that_does_not_repeat_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    for load in (conninfo.load, lambda: database.load(connections=1), migrations.main):
        with pytest.raises(SettingError) as refused:
            load()
        assert SECRET not in str(refused.value)
        assert "postgresql://" in str(refused.value)
        assert refused.value.__cause__ is None


# A password of several words, all of them secret, with whatever ends a part of a connection string between them.
_between = st.text(st.sampled_from("@/:?&=#%'\"\\ +,;()[]{}~$!*<>|`^-_.ü日\t"), min_size=1, max_size=3)
passwords = st.lists(_between, min_size=1, max_size=4).map(
    lambda signs: SECRET + "".join(f"{sign}{SECRET}" for sign in signs)
)
SCHEMES = ["postgresql", "postgres", "postgresql+psycopg", "postgres+psycopg2"]


def _escaped(password: str) -> str:
    return re.sub(r"([\\'\s])", r"\\\1", password)


WRITTEN: dict[str, Callable[[str], str]] = {
    "URL": lambda password: f"postgresql://me:{quote(password, safe='')}@127.0.0.1:1/none",
    "URL with what need not be encoded": lambda password: (
        f"postgres://me:{quote(password, safe='!$&()*+,;=:~')}@127.0.0.1:1,[::1]:1/none?sslmode=disable"
    ),
    "parameter of a URL": lambda password: f"postgresql://127.0.0.1:1/none?user=me&password={quote(password, safe='')}",
    "of a certificate": lambda password: f"postgresql://127.0.0.1:1/none?sslpassword={quote(password, safe='@:/')}",
    "keywords, quoted": lambda password: make_conninfo(host="127.0.0.1", port=1, password=password, dbname="none"),
    "keywords, always quoted": lambda password: "host=127.0.0.1 port=1 password = '{}' dbname='no ne'".format(
        re.sub(r"([\\'])", r"\\\1", password)
    ),
    "keywords, escaped": lambda password: f"host=127.0.0.1 port=1 password={_escaped(password)} dbname=none",
    "keywords, of a certificate": lambda password: f"host=127.0.0.1 port=1 sslpassword={_escaped(password)}",
}
"""What libpq understands."""
MISWRITTEN: dict[str, Callable[[str], str]] = {
    **{f"{scheme}, not encoded": partial("{}://me:{}@127.0.0.1:1/none".format, scheme) for scheme in SCHEMES},
    "driver of SQLAlchemy": lambda password: f"postgresql+psycopg://me:{quote(password, safe='')}@127.0.0.1:1/none",
    "JDBC": lambda password: f"jdbc:postgresql://127.0.0.1:1/none?user=me&password={password}",
    "parameter, not encoded": lambda password: f"postgresql://127.0.0.1:1/none?password={password}",
    "name of a parameter, encoded": lambda password: f"postgresql://127.0.0.1:1/none?%70assword={quote(password)}",
    "keywords, not escaped": lambda password: f"host=127.0.0.1 port=1 password={password}",
    "keywords, not closed": lambda password: f"host=127.0.0.1 port=1 password='{password}",
}
"""What people write nevertheless."""


def _told(url: str) -> str:
    """All that is said of a URL when it is taken, or refused, or found in a line of the log or in an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        try:
            loaded = conninfo.load()
        except SettingError as refused:
            return str(refused)
    lines = [f"connecting to {loaded} failed", repr(ValueError(loaded)), repr({"url": loaded}), f"{loaded}\n", loaded]
    return "\n".join(masked(line) for line in lines)


@pytest.mark.parametrize("form", WRITTEN)
@examples(60)
@given(password=passwords)
def test_no_password_is_told_whatever_it_consists_of(form: str, password: str) -> None:
    url = WRITTEN[form](password)
    parts = conninfo_to_dict(url)
    assert password in {parts.get("password"), parts.get("sslpassword")}
    told = _told(url)
    assert SECRET not in told
    # It was taken.
    assert "connecting to" in told


@pytest.mark.parametrize("form", MISWRITTEN)
@examples(60)
@given(password=passwords)
def test_no_password_is_told_however_wrong_it_is_written(form: str, password: str) -> None:
    assert SECRET not in _told(MISWRITTEN[form](password))


@pytest.mark.parametrize("part", ["://:", "://a:", "://:@", "@", "pwd=", "pwd='", "pwd = ", "pwd=\\", "\\", "'", " "])
def test_a_line_is_masked_in_no_time_whatever_a_client_puts_into_it(part: str) -> None:
    for line in (part * (60_000 // len(part)) + "=", "pwd" + part * (60_000 // len(part)), f"{part * 15_000}@="):
        started = time.process_time()
        masked(line)
        assert time.process_time() - started < 0.5


@pytest.mark.parametrize("arguments", [[], ["summarize"]])
def test_a_password_of_the_environment_is_not_told(arguments: list[str]) -> None:
    run = python("-m", "migrations", *arguments, DATABASE_URL="", PGHOST="127.0.0.1", PGPORT="1", PGPASSWORD=SECRET)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "connection to server" in run.stderr
    assert SECRET not in run.stderr


@pytest.mark.parametrize("module", ["local", "migrations"])
def test_a_program_prints_the_sentence_and_nothing_else(module: str, tmp_path: Path) -> None:
    run = python("-m", module, DATABASE_URL=UNUSABLE[0], DATA_DIR=str(tmp_path), PORT="18999")
    assert run.stderr.count("\n") == 1
    assert "Leave it out: postgresql:// instead of postgresql+DRIVER://" in run.stderr
    assert SECRET not in run.stdout + run.stderr + "".join(path.read_text() for path in tmp_path.rglob("*.log"))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_of_the_log_is_masked_in_either_format(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stderr", lines)
    monkeypatch.setitem(os.environ, "LOG_FORMAT", form)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    logs.configure()
    log = logging.getLogger("test")
    for url in USABLE:
        try:
            raise ValueError(url)
        except ValueError as error:
            log.exception("cannot reach %s", url, extra={"fields": {"cause": repr(error), "status": 503}})
    log.warning("%s at http://127.0.0.1:1/x and me@example.com, a=b", {"x": "y"})
    written = lines.getvalue()
    assert SECRET not in written
    assert "http://127.0.0.1:1/x and me@example.com, a=b" in written
    if form == "json":
        assert [json.loads(line)["level"] for line in written.splitlines()][-1] == "warning"
