"""The tables of faults and overload at the end of a run."""

from itertools import groupby

import pytest


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
