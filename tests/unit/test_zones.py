"""Time zones, whose rules come from one package."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from shared import zones
from tests.support import ROOT


def test_a_zone_is_known_by_its_name() -> None:
    zone = zones.load("Asia/Kathmandu")
    assert str(zone) == "Asia/Kathmandu"
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(zone).isoformat() == "2026-01-01T05:45:00+05:45"
    assert datetime(2026, 1, 1, tzinfo=zones.load("UTC")).isoformat() == "2026-01-01T00:00:00+00:00"
    # What browsers call it still.
    assert str(zones.load("Asia/Calcutta")) == "Asia/Calcutta"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "Europe", "Europe/Basel", "europe/zurich", "../zones", "/etc/passwd", "GMT+5", "__init__.py"],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no IANA time zone; one is Europe/Zurich"):
        zones.load(name)


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
