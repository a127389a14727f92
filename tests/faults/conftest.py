"""What faults are done to, and the tables of faults and overload at the end of a run."""

import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.faults.pair import Pair


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two servers that follow each other, and the functions."""
    # Not in a folder of pytest, which the next run of pytest closes to the user of PostgreSQL.
    with tempfile.TemporaryDirectory(prefix="temperature-pair-") as folder, Pair.running(Path(folder)) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        # An attempt that is repeated records the same columns again.
        [(str(name), str(cell)) for name, cell in dict(report.user_properties).items()]
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.user_properties
    ]
    # The first column is named for what its table is about.
    for table, of in groupby(sorted(rows, key=lambda row: row[0][0]), lambda row: row[0][0]):
        found = list(of)
        terminalreporter.write_sep("=", table)
        names = [name for name, _ in found[0]]
        for cells in [names, ["---"] * len(names), *([cell for _, cell in row] for row in found)]:
            terminalreporter.write_line("| " + " | ".join(cells) + " |")
