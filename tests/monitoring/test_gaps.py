"""Alarms about requests, in a game at random: instances come and go, scrapes fail, clients err, and functions fail.

A Prometheus sees a part of it. What goes off must have happened, and what lasts must go off.
"""

import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.files import ALERTS
from tests.support import LONG, program

SEED = int(os.environ.get("SEED") or random.randrange(10**9))
GAMES = 60 if LONG else 6
STEPS = 240
"""Scrapes and evaluations, every half a minute."""
MOST_SCRAPES_FAIL = 1
"""In a row: of two minutes there must be two that succeed, or growth is not seen."""
STATUSES = {"201": "", "422": "", "503": "deadline"}


def _spells(chance: random.Random) -> list[bool]:
    """For each step, whether something goes on that lasts for minutes up to an hour, or does not happen at all."""
    steps: list[bool] = []
    while len(steps) < STEPS:
        steps += [False] * chance.randrange(5, 120) + [True] * chance.choice([1, 3, 20, 120])
    return steps[:STEPS]


@dataclass
class Instance:
    """An instance of `ingest`, and what a Prometheus sees of its counters."""

    name: str
    first: int
    end: int
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    seen: dict[str, list[str]] = field(default_factory=lambda: {status: [] for status in STATUSES})
    failed_scrapes: int = 0

    def is_scraped(self, step: int, chance: random.Random) -> bool:
        """Whether its scrape succeeds; the last ones do."""
        fails = step < self.end - 4 and self.failed_scrapes < MOST_SCRAPES_FAIL and chance.random() < 0.2
        self.failed_scrapes = self.failed_scrapes + 1 if fails else 0
        return not fails

    def series(self) -> Iterator[dict[str, str]]:
        """As promtool takes them. A series that was there, and that a scrape does not have any more, is stale."""
        for status, reason in STATUSES.items():
            labels = f'function="ingest", status="{status}", reason="{reason}", instance="{self.name}"'
            yield {"series": f"temperature_requests_total{{{labels}}}", "values": " ".join(self.seen[status])}


@dataclass
class Game:
    """What happened at each step: whether something was refused, and whether something failed."""

    instances: list[Instance]
    refused: list[bool]
    failed: list[bool]

    @classmethod
    def play(cls, chance: random.Random) -> "Game":
        """Instances one after the other, and beside each other, with requests of all kinds."""
        instances: list[Instance] = []
        for _ in range(2):
            first = chance.randrange(10)
            while first < STEPS:
                end = first + chance.choice([8, 20, 60, STEPS])
                instances.append(Instance(f"{len(instances)}", first, end))
                first = end + chance.choice([1, 10, 30])
        client_errs, function_fails = _spells(chance), _spells(chance)
        game = cls(instances, [False] * STEPS, [False] * STEPS)
        for step in range(STEPS):
            for instance in instances:
                game._step(instance, step, client_errs[step], function_fails[step], chance)
        return game

    def _step(self, instance: Instance, step: int, errs: bool, fails: bool, chance: random.Random) -> None:
        if alive := instance.first <= step < instance.end:
            grown = {"201": 100, "422": int(errs and step % 5 == 0), "503": 50 if fails else 0}
            for status, number in grown.items():
                instance.counted[status] += number
            self.refused[step] |= bool(grown["422"])
            self.failed[step] |= bool(grown["503"])
        scraped = alive and instance.is_scraped(step, chance)
        for status, values in instance.seen.items():
            is_there = scraped and instance.counted[status]
            values.append(str(instance.counted[status]) if is_there else "stale" if {*values} - {"_"} else "_")

    def expected(self) -> Iterator[tuple[str, int, bool]]:
        """Whether an alarm must or must not go off at a step, where that is certain."""
        for step in range(STEPS):
            if not any(self.refused[max(0, step - 40) : step + 1]):
                yield "TemperatureReadingsRefused", step, False
            elif step >= 70 and _lasts(self.refused[step - 69 : step + 1], pause=20):
                yield "TemperatureReadingsRefused", step, True
            if not any(self.failed[max(0, step - 7) : step + 1]):
                yield "TemperatureRequestsFail", step, False
            elif step >= 14 and all(self.failed[step - 13 : step + 1]):
                yield "TemperatureRequestsFail", step, True


def _lasts(happened: Sequence[bool], pause: int) -> bool:
    """Whether it happened again and again, with no longer pause."""
    return all(any(happened[start : start + pause]) for start in range(len(happened) - pause + 1))


def _question(alarm: str, step: int, goes_off: bool) -> dict[str, Any]:
    expression = f'group(ALERTS{{alertstate="firing", alertname="{alarm}"}})'
    return {
        "expr": expression,
        "eval_time": f"{30 * step}s",
        "exp_samples": [{"labels": "{}", "value": 1}] if goes_off else [],
    }


@pytest.mark.parametrize("number", range(GAMES))
def test_what_goes_off_happened_and_what_lasts_goes_off(number: int, tmp_path: Path) -> None:
    seed = SEED + number
    game = Game.play(random.Random(seed))
    questions = [_question(*expected) for expected in game.expected()]
    case = {
        "interval": "30s",
        "input_series": [series for instance in game.instances for series in instance.series()],
        "promql_expr_test": questions,
    }
    (tmp_path / "game.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "30s", "tests": [case]})
    )
    run = subprocess.run(
        [program("promtool"), "test", "rules", tmp_path / "game.yaml"], capture_output=True, check=False, text=True
    )
    assert run.returncode == 0, f"SEED={seed}\n{run.stdout}{run.stderr}"
    assert len(questions) > STEPS // 2
