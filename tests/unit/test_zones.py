"""Time zones, whose rules come from one package."""

import subprocess
import sys
from bisect import bisect_right
from datetime import UTC, datetime, timedelta

import pytest

from shared import zones
from tests.support import ROOT


def test_a_zone_is_known_by_its_name() -> None:
    zone = zones.load("Asia/Kathmandu")
    assert str(zone) == "Asia/Kathmandu"
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(zone).isoformat() == "2026-01-01T05:45:00+05:45"
    assert datetime(2026, 1, 1, tzinfo=zones.load("UTC")) == datetime(2026, 1, 1, tzinfo=UTC)
    # What browsers call it still.
    assert str(zones.load("Asia/Calcutta")) == "Asia/Calcutta"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "Europe", "Europe/Basel", "europe/zurich", "../zones", "/etc/passwd", "GMT+5", "__init__.py"],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no IANA time zone; one is Europe/Zurich"):
        zones.load(name)


@pytest.mark.parametrize(
    "name", ["Europe/Zurich", "Africa/Cairo", "Africa/Casablanca", "America/Recife", "Asia/Gaza", "Asia/Kolkata", "UTC"]
)
def test_the_changes_of_a_zone_are_its_offset_at_every_instant(name: str) -> None:
    zone, changes = zones.load(name), zones.changes(name)
    assert [change.since for change in changes] == sorted({change.since for change in changes})
    end = datetime(datetime.now(UTC).year + 1, 12, 31, tzinfo=UTC)
    instants = {datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=7 * number) for number in range(30_000)}
    instants |= {change.since - timedelta(seconds=early) for change in changes[1:] for early in (0, 1)}
    for instant in (each for each in instants if each < end):
        counts = changes[bisect_right(changes, instant, key=lambda change: change.since) - 1]
        assert counts.offset == instant.astimezone(zone).utcoffset(), instant


def test_the_rules_do_not_depend_on_the_machine() -> None:
    """Not on where PYTHONTZPATH or the system have others, or none."""
    script = (
        "from shared import zones; from datetime import UTC, datetime;"
        "print(datetime(2026, 7, 1, tzinfo=UTC).astimezone(zones.load('Europe/Zurich')).isoformat())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "functions"), "PYTHONTZPATH": "/nowhere"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout.strip() == "2026-07-01T02:00:00+02:00"
