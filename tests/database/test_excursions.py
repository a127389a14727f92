"""Alarms in a game at random: readings in any order, checks that are killed or run at once, a sink that refuses."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.excursions import HOUR, MINUTE, RULES, SMALL_SLICES, play
from tests.support import Urls, examples


@pytest.mark.parametrize("rule", RULES, ids=json.dumps)
def test_each_excursion_is_told_once_whatever_happens(
    plain: Urls, serve: Callable[..., TestClient], rule: Mapping[str, Any]
) -> None:
    play(plain, serve, rule, MINUTE, examples(8))


@pytest.mark.parametrize("rule", RULES[1:3], ids=json.dumps)
def test_each_excursion_is_told_once_also_in_small_slices(
    plain: Urls, serve: Callable[..., TestClient], rule: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL_SLICES.items():
        monkeypatch.setattr(name, value)
    play(plain, serve, rule, HOUR, examples(8))
