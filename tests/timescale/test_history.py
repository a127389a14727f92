"""On TimescaleDB, every answer is what a model in Python says, whatever happens in whatever order."""

import os
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from local.postgres import WRITER
from tests import history
from tests.support import Urls


@pytest.mark.parametrize("zone", history.ZONES)
def test_every_answer_is_exact_whatever_happened_before(
    community: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("PGTZ", zone)
    ingests = [serve("ingest", DATABASE_URL=community(WRITER)) for _ in range(2)]
    average = history.served(serve, community)
    at_once = "TIMESCALE_URL" in os.environ
    history.play(history.World(community, average, ingests, hypertable=True, at_once=at_once), examples=4)
