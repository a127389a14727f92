"""Alarms of noisy rooms over a long time: each excursion that lasts is told once, as soon as it shows."""

import os
import random
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.support import LONG, Urls
from tests.year import Year, live

PARTS, ROOMS, DAYS = (4, 250, 365) if LONG else (1, 40, 10)
"""Of so many rooms each, which know nothing of each other."""
SEED = int(os.environ.get("SEED") or random.randrange(10**6))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(7200 if LONG else 300)
def test_each_excursion_that_lasts_is_told_once_as_soon_as_it_shows(
    plain: Urls, serve: Callable[..., TestClient], part: int, record_property: Callable[[str, object], None]
) -> None:
    seed = SEED + part
    found = live(plain, serve, Year.of(ROOMS, DAYS, seed))
    for name in ("missed", "invented", "twice", "changed_twice"):
        assert getattr(found, name)[:5] == [], f"SEED={seed}"
    assert found.excursions > 3 * ROOMS * DAYS // 100 and found.silences > ROOMS * DAYS // 100
    assert found.crossings > 2 * found.excursions
    record_property(f"a year of {ROOMS} rooms, seed" if LONG else f"{DAYS} days of {ROOMS} rooms, seed", seed)
    for name in ("readings", "crossings", "excursions", "silences", "events"):
        record_property(name, f"{getattr(found, name):,}")
