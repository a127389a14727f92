"""What faults are done to."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.pair import Pair


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two servers that follow each other, and the functions."""
    # Not in a folder of pytest, which the next run of pytest closes to the user of PostgreSQL.
    with tempfile.TemporaryDirectory(prefix="temperature-pair-") as folder, Pair.running(Path(folder)) as running:
        yield running
