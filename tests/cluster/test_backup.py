"""The database is destroyed and comes back from its backup, as a user would do it: `make backup`, `make recover`."""

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices, make
from tests.support import ROOT

Say = Callable[[object], None]

RECEIVED_SECONDS = 2
"""After which the backup has what was acknowledged."""

pytestmark = [pytest.mark.usefixtures("kept"), pytest.mark.timeout(1800)]


def received() -> bool:
    """There is a whole backup, and the log comes."""
    return bool(cluster.get("deployment", "backup")["status"].get("readyReplicas"))


def lose_disk(instance: str) -> None:
    lose = "rm -rf /home/postgres/pgdata/pgroot/data; kill -9 -1"
    # It ends with what it ends.
    subprocess.run([*cluster.KUBECTL, "exec", instance, "--", "sh", "-c", lose], capture_output=True)


@pytest.fixture(scope="module")
def kept(expendable: None) -> Iterator[None]:
    """The database has a backup while this lasts."""
    if not (ROOT / "build" / "images.yaml").exists():
        pytest.skip("needs build/images.yaml, which make images leaves")
    there = "persistentvolumeclaim/backup" in cluster.kubectl("get", "pvc", "--output", "name")
    try:
        make("backup")
        cluster.until(received, 120)
        yield
    finally:
        if not there:
            cluster.kubectl(
                "delete",
                "deployment,job,configmap,pvc",
                "--selector",
                "app.kubernetes.io/component in (backup, restore)",
            )


def test_a_database_whose_disks_are_lost_comes_back_to_the_last_acknowledged_reading(say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        # The log goes on at another instance, or at the same one again.
        cluster.kubectl("delete", "pod", cluster.primary())
        time.sleep(5)
        devices.go_on(180)
    time.sleep(RECEIVED_SECONDS)
    for instance in cluster.instances():
        lose_disk(instance)
    begun = time.monotonic()
    said = make("recover", "REPLACE=true")
    took = time.monotonic() - begun
    cluster.until(cluster.healthy, 300)
    cluster.until(received, 180)
    say(f"{said.splitlines()[-1]}, in {took:.0f} s; {devices}")
    devices.assert_kept()
    with Devices() as later:
        later.go_on(60)


def test_a_database_comes_back_as_it_was_before_an_instant(say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
    time.sleep(1)
    until = datetime.now(UTC).isoformat()
    time.sleep(1)
    cluster.in_database(cluster.primary(), f"DELETE FROM temperatures WHERE room_id = '{devices.room_id}'")
    time.sleep(RECEIVED_SECONDS)
    said = make("recover", "REPLACE=true", f"UNTIL={until}")
    cluster.until(cluster.healthy, 300)
    cluster.until(received, 180)
    say(said.splitlines()[-1])
    devices.assert_kept()


def test_the_database_is_not_replaced_unless_that_is_said() -> None:
    with pytest.raises(AssertionError, match="make recover REPLACE=true"):
        make("recover")
    assert cluster.primary()


@pytest.mark.parametrize(
    ("until", "reason"), [("2020-01-01T00:00:00Z", "no whole backup that began before"), ("yesterday", "an instant")]
)
def test_nothing_is_removed_for_a_backup_that_there_is_not(until: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        make("recover", "REPLACE=true", f"UNTIL={until}")
    assert cluster.healthy()
