"""The measurements run, and the documentation shows what they left."""

import json
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import FIGURES
from tests.support import LONG, ROOT, python

DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = sorted((ROOT / "docs" / "performance").glob("*.json"))
PLOTS_OF_LONG_FIGURES = {"growth": {"rooms", "stored"}, "devices": {"devices"}}
"""Of those that take long even where they are only tried."""


def test_figures_can_be_measured(tmp_path: Path) -> None:
    tried = [figure for figure in FIGURES if LONG or figure not in PLOTS_OF_LONG_FIGURES]
    # The server at TIMESCALE_URL is in use by other tests.
    run = python("-m", "bench", "--quick", *tried, RESULTS=str(tmp_path), TIMESCALE_URL="")
    assert run.returncode == 0, run.stderr
    left_out = set() if LONG else {plot for plots in PLOTS_OF_LONG_FIGURES.values() for plot in plots}
    assert {path.stem for path in tmp_path.glob("*.json")} == {path.stem for path in RESULTS} - left_out
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
