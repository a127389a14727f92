"""The rules that docs/alarms.md has for trades do what it says they are for."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, WATCHER
from tests.support import ROOT, Urls

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)

Reading = tuple[float, float]
"""After how many hours, and the temperature."""


def steps(begin: float, end: float, minutes: int, temperature: float) -> list[Reading]:
    """A temperature that stays, every few minutes."""
    return [(begin + number * minutes / 60, temperature) for number in range(int((end - begin) * 60 / minutes))]


ALARMING: dict[str, tuple[list[Reading], list[tuple[str, str]]]] = {
    # A door that is open for a quarter of an hour is none; a compressor that fails is.
    "cold store": (
        [*steps(0, 1, 5, -21), *steps(1, 1.25, 5, -16), *steps(1.25, 2, 5, -21), *steps(2, 3, 5, -17), (3, -20)],
        [("high", "critical")],
    ),
    # A cold classroom counts on a Monday at ten, not in the night.
    "school": ([(2, 14), (9, 20), (10, 17), (10.5, 20), (22, 14), (33, 20)], [("low", "warning")]),
    # Warm is worth knowing, and only much too warm wakes somebody.
    "server room": ([(0, 22), (1, 28), (1.1, 26), (1.2, 28), (1.3, 24)], [("high", "critical")]),
    # Frost at night, sun at noon.
    "greenhouse": (
        [(0, 8), (3, 3), (5, 8), (12, 36), *steps(12.1, 12.5, 5, 36), (13, 25)],
        [("high", "warning"), ("low", "critical")],
    ),
}


def trades() -> dict[str, list[dict[str, Any]]]:
    """The rows of the table there."""
    text = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(\[.+\])` \| .+ \|$", text, re.MULTILINE)
    return {trade: json.loads(rules) for trade, rules in rows}


def test_there_are_rules_for_these_trades() -> None:
    assert [*trades()] == [*ALARMING]


@pytest.mark.parametrize("trade", ALARMING)
def test_its_rules_tell_what_matters_and_nothing_else(
    plain: Urls, serve: Callable[..., TestClient], trade: str
) -> None:
    readings, expected = ALARMING[trade]
    function = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES=json.dumps(trades()[trade]))
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for hour, temperature in sorted(readings):
            connection.execute(
                "INSERT INTO temperatures VALUES ('B1', '101', %s, %s)",
                (MONDAY + hour * timedelta(hours=1), temperature),
            )
            if hour % 1 == 0:
                assert function.post("/").status_code == 200
        assert function.post("/").status_code == 200
        found = connection.execute("SELECT kind, severity FROM alarms WHERE kind <> 'silent' ORDER BY kind").fetchall()
    assert found == expected
