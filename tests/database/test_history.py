"""On plain PostgreSQL, every answer is what a model in Python says, whatever happens in whatever order."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from local.postgres import READER, WRITER
from tests import history
from tests.support import Urls


@pytest.mark.parametrize("zone", history.ZONES)
def test_every_answer_is_exact_whatever_happened_before(
    plain: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("PGTZ", zone)
    ingests = [serve("ingest", DATABASE_URL=plain(WRITER)) for _ in range(2)]
    average = serve("average", DATABASE_URL=plain(READER))
    history.play(history.World(plain, average, ingests, hypertable=False, at_once=True), examples=5)
