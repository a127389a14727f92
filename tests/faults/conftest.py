"""What faults are done to."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.pair import Pair


@pytest.fixture(scope="session")
def _pair() -> Iterator[Pair]:
    # Not in a folder of pytest, which the next run of pytest closes to the user of PostgreSQL.
    with tempfile.TemporaryDirectory(prefix="temperature-pair-") as folder, Pair.running(Path(folder)) as running:
        yield running


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Two servers that follow each other, and the functions."""
    yield _pair
    # Whatever a test that failed has left.
    _pair.replication.resume()
