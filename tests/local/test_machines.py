"""`make run` by whomever, wherever and whatever the environment says: all of that at once, at random."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from tests.local.environment import other_server, variables
from tests.local.machine import DAEMON, NOBODY, ROOTED, place, running
from tests.stack import READING
from tests.support import LONG

pytestmark = ROOTED
FOLDERS = ["data", "my data", "Büro 日本 'it''s' $HOME", f"{'deep/' * 30}data", "a;b & c/%20/data"]
UMASKS = [0o022, 0o027, 0o077]
DAEMONS_OWN = {"user": DAEMON, "group": DAEMON, "extra_groups": ()}


def machine(random: Random, parent: Path, port: int) -> dict[str, str]:
    """What the environment says."""
    said = variables(port)
    chosen = {name: said[name] for name in random.sample(sorted(said), random.choice([0, 3, len(said)]))}
    temporary = parent / random.choice(["tmp", "t m p", "t" * 120])
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    if random.random() < 0.5:
        chosen["TMPDIR"] = str(temporary)
    return {**chosen, "HOME": random.choice(["/nonexistent", "", "/root"])}


def who(random: Random, owner: int | None) -> tuple[dict[str, Any], dict[str, str]]:
    """By whom it is started, and what that adds to the environment; by nobody who may not get at the owner's data."""
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {"SUDO_USER": ""}),
        ({}, {"SUDO_USER": "daemon"}),
        ({}, {"DOAS_USER": "daemon", "SUDO_USER": "root"}),
    ]
    if owner in {None, DAEMON}:
        ways.append((DAEMONS_OWN, {"SUDO_USER": ""}))
    started, environment = random.choice(ways)
    return {**started, "umask": random.choice(UMASKS)}, environment


@pytest.mark.parametrize("round_", range(40 if LONG else 2))
def test_it_works_and_goes_on_however_it_is_started_next(round_: int) -> None:
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    random = Random(seed)
    with ExitStack() as stack:
        parent = stack.enter_context(place())
        port, came = stack.enter_context(other_server())
        os.chown(parent, DAEMON, DAEMON)
        data = parent / random.choice(FOLDERS)
        owner: int | None = None
        for start in range(2):
            started, environment = who(random, owner)
            environment = {**machine(random, parent, port), **environment}
            print(f"seed {seed}: {data}, {started}, {environment}")
            with running(data, who=started, **environment) as product:
                product.wait_for("Functions")
                answer = product.post(READING)
                assert (answer.status_code, answer.json()["duplicates"]) == (201, start)
                assert product.average()["count"] == 1
            found = (data / "postgres").stat().st_uid
            assert found in {owner or found, DAEMON, NOBODY}
            assert owner in {None, found}
            owner = found
            # Root made files that another user is to write.
            if owner == DAEMON:
                for path in (data, data / "app.log", data / "postgres.log", data / "lock"):
                    shutil.chown(path, DAEMON, DAEMON)
        assert came == []
