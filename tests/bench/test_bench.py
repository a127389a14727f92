"""The measurements run, and the documentation shows what they left."""

import json
from pathlib import Path

import pytest

from bench import report
from tests.support import ROOT, python

DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = sorted((ROOT / "docs" / "performance").glob("*.json"))


def test_every_figure_can_be_measured(tmp_path: Path) -> None:
    # The server at TIMESCALE_URL is in use by other tests.
    run = python("-m", "bench", "--quick", RESULTS=str(tmp_path), TIMESCALE_URL="")
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [path.name for path in RESULTS]
    for path in tmp_path.glob("*.json"):
        figure = json.loads(path.read_text())
        assert report.table(figure["rows"]) in run.stdout
        assert "<svg" in path.with_suffix(".svg").read_text()


def test_another_figure_is_refused_with_the_names_of_all() -> None:
    run = python("-m", "bench", "speed")
    assert run.returncode == 2
    assert (
        "no figure speed; there are singles, arrays, averages, transfer, start, growth, devices, alarms" in run.stderr
    )


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_documentation_shows_what_was_measured(path: Path) -> None:
    figure = json.loads(path.read_text())
    text = DOCUMENT.read_text()
    assert report.table(figure["rows"]) in text
    assert f"performance/{path.stem}.svg" in text
    assert path.with_suffix(".svg").exists()
