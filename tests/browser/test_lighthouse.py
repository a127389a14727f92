"""Lighthouse, which measures a page as a phone of the middle class with a slow network loads it."""

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from bench.stack import function
from local.postgres import READER
from tests.browser.conftest import KEPT, Product
from tests.browser.support import DAY, reading, view
from tests.support import ROOT, leave_out, program

LIGHTHOUSE = ROOT / "tests" / "tools" / "node_modules" / ".bin" / "lighthouse"
CATEGORIES = ("performance", "accessibility", "best-practices")
LEAST = 95
"""Of 100."""


@pytest.mark.long
def test_the_dashboard_is_fast_and_open_to_all(product: Product, chromium_path: str) -> None:
    program("node")
    if not LIGHTHOUSE.exists():
        leave_out("lighthouse")
    start = datetime.fromisoformat(DAY["start"])
    product.send(
        *(reading("B1", "101", 20 + minute % 60 / 10, start + timedelta(minutes=minute)) for minute in range(1440))
    )
    product.send(reading("B1", "102", 20))
    with function("average", product.urls(READER)) as served:
        scores: dict[str, float] = {}
        # The others share the processors with whatever else runs: the best of some counts.
        for _ in range(5):
            measured = measure(
                f"http://127.0.0.1:{served.port}{view(('B1', '101'), ('B1', '102'), **DAY)}", chromium_path
            )
            scores = {name: max(score, scores.get(name, 0)) for name, score in measured.items()}
            if min(scores.values()) >= LEAST:
                return
    pytest.fail(f"{scores}; build/browser/lighthouse.json says why")


def measure(address: str, chromium: str) -> dict[str, float]:
    """The score of each category, of 100; what they are made of is in build/browser."""
    KEPT.mkdir(parents=True, exist_ok=True)
    report = KEPT / "lighthouse.json"
    flags = "--headless=new --no-sandbox" if os.geteuid() == 0 else "--headless=new"
    subprocess.run(
        [
            *(shutil.which("node") or "node", LIGHTHOUSE, address, "--quiet", f"--chrome-flags={flags}"),
            *(f"--only-categories={','.join(CATEGORIES)}", "--output=json", f"--output-path={report}"),
        ],
        check=True,
        env={**os.environ, "CHROME_PATH": chromium},
        timeout=120,
    )
    found = json.loads(report.read_text())["categories"]
    return {name: 100 * found[name]["score"] for name in CATEGORIES}
