"""The table of faults and outcomes at the end of a run."""

import pytest

COLUMNS = ("fault", "acknowledged", "lost", "twice", "answers", "slowest", "recovered", "memory")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        dict(report.user_properties)
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call" and dict(report.user_properties).keys() >= set(COLUMNS)
    ]
    if rows:
        terminalreporter.write_sep("=", "faults and outcomes")
        for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), dict.fromkeys(COLUMNS, "---"), *rows]:
            terminalreporter.write_line("| " + " | ".join(str(row[name]) for name in COLUMNS) + " |")
