"""A setting that makes no sense stops the start, with its name and what it may be."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from migrations import settings as of_migrations
from shared import settings
from shared.settings import SettingError
from tests.support import NOWHERE, ROOT

NUMBERS = [
    ("ingest", "POOL_SIZE", 1, 100),
    ("average", "DEADLINE_SECONDS", 1, 300),
    ("watch", "DEADLINE_SECONDS", 1, 300),
    ("ingest", "QUEUE_LIMIT", 10_000, 10_000_000),
    ("ingest", "COPIES", 1, 100),
    ("average", "ALIGNMENT_INTERVAL", 1, 1440),
    ("average", "REMOVED_FOR_DAYS", 0, 9999),
    ("watch", "ALARM_RETENTION_DAYS", 0, 36_500),
    ("watch", "SINK_PATIENCE", 1, 600),
    ("migrations", "BUCKET_MINUTES", 1, 60),
    ("migrations", "RETENTION_DAYS", 0, 36_500),
    ("migrations", "COLUMNSTORE_AFTER_DAYS", 0, 36_500),
]


@pytest.mark.parametrize(("who", "name", "least", "most"), NUMBERS)
def test_a_number_has_bounds_and_a_place_in_the_documentation(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, who: str, name: str, least: int, most: int
) -> None:
    monkeypatch.setenv(name, "some")
    with pytest.raises(SettingError) as refused:
        of_migrations.load() if who == "migrations" else serve(who, DATABASE_URL=NOWHERE)
    assert str(refused.value) == f"{name} must be a whole number from {least} to {most}, not 'some'"
    assert f"| `{name}` |" in (ROOT / "docs" / "settings.md").read_text()


def test_the_default_of_a_number_is_what_the_documentation_says(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[tuple[str, str], int] = {}
    number = settings.number

    def noted(name: str, default: int, *, least: int, most: int) -> int:
        found[name, who] = default
        return number(name, default, least=least, most=most)

    monkeypatch.setattr(settings, "number", noted)
    for who in ("ingest", "average", "simulate", "watch", "migrations"):
        of_migrations.load() if who == "migrations" else serve(who, DATABASE_URL=NOWHERE)
    documented: dict[tuple[str, str], int] = {}
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if row := re.fullmatch(r"\| `(\w+)` \| (.*) \| .* \| ([\d, ]+) \|", line):
            places = re.findall(r"ingest|average|simulate|watch|migrations", row[2])
            defaults = [int(default) for default in row[3].split(", ")]
            documented |= {(row[1], who): defaults[place % len(defaults)] for place, who in enumerate(places)}
    # A check of `watch` uses one connection at a time, and asks for no more.
    assert found.pop(("POOL_SIZE", "watch")) == 1
    assert found.items() == documented.items()
    assert len(found) >= len(NUMBERS)


@pytest.mark.parametrize("who", ["ingest", "average", "simulate", "watch"])
def test_each_function_logs_as_the_settings_say(serve: Callable[..., TestClient], who: str) -> None:
    with pytest.raises(SettingError, match="LOG_FORMAT must be text or json"):
        serve(who, DATABASE_URL=NOWHERE, LOG_FORMAT="xml")


def test_the_bounds_of_a_number_are_numbers_that_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, taken in ((0, False), (1, True), (3, True), (4, False), (-1, False)):
        monkeypatch.setenv("NUMBER", str(value))
        if taken:
            assert settings.number("NUMBER", 2, least=1, most=3) == value
        else:
            with pytest.raises(SettingError, match="from 1 to 3"):
                settings.number("NUMBER", 2, least=1, most=3)
    for text in ("1_0", "\u0661", "1.0", "1" * 5_000):
        monkeypatch.setenv("NUMBER", text)
        with pytest.raises(SettingError, match="from 1 to 30"):
            settings.number("NUMBER", 2, least=1, most=30)
    monkeypatch.delenv("NUMBER")
    assert settings.number("NUMBER", 2, least=1, most=3) == 2


def test_a_path_may_begin_with_the_home_that_a_shell_did_not_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value, path in (("~/a b", "/home/somebody/a b"), ("/a/~/b", "/a/~/b"), ("-a", "-a")):
        monkeypatch.setenv("PLACE", value)
        assert str(settings.path("PLACE")) == path
    monkeypatch.setenv("PLACE", "~nobody-there/a")
    with pytest.raises(SettingError, match="PLACE is '~nobody-there/a', and nobody knows where that home is"):
        settings.path("PLACE")
    monkeypatch.setenv("PLACE", " ")
    assert settings.path("PLACE") is None
