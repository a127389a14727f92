"""Three instances with strict synchronous replication: one may be lost without losing writes or copies, two may not.

Needs what the production overlay sets.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices, call

Say = Callable[[object], None]

SILENT_SECONDS = 60
"""Longer than Patroni and PostgreSQL take to notice what is gone."""

pytestmark = [pytest.mark.usefixtures("strict"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def strict(expendable: None) -> None:
    spec = cluster.get("postgresql", cluster.DATABASE)["spec"]
    if spec["numberOfInstances"] < 3 or not spec.get("patroni", {}).get("synchronous_mode_strict"):
        pytest.skip("needs three instances and synchronous_mode_strict, as the production overlay sets them")
    cluster.until(cluster.healthy, 300)
    # What the operator was told is not yet what Patroni does.
    assert "synchronous_mode_strict: true" in cluster.kubectl(
        "exec", cluster.primary(), "--", "patronictl", "show-config"
    )
    assert "synchronous_mode_strict" not in cluster.make("status")


def roles() -> tuple[str, str, str]:
    """The primary, the standby that confirms its commits, and the other one."""

    def confirming() -> str:
        return next((name for name, member in cluster.members().items() if member["Role"] == "Sync Standby"), "")

    standby, primary = cluster.until(confirming, 60), cluster.primary()
    (other,) = set(cluster.instances()) - {primary, standby}
    return primary, standby, other


def copies() -> float:
    """How many copies a reading has before its 201, as `ingest` measures it."""
    lines = call("ingest", "GET", "/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("temperature_copies "))


@pytest.mark.parametrize("lost", ["primary", "standby", "other"])
def test_one_of_three_may_be_lost_without_losing_writes_or_copies(lost: str, say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        instances = dict(zip(("primary", "standby", "other"), roles(), strict=True))
        begun = time.monotonic()
        with cluster.cut(gone := instances[lost]):
            if lost == "primary":
                cluster.until(lambda: cluster.primary() != gone, 180)
            time.sleep(SILENT_SECONDS)
            devices.go_on(60)
            assert copies() == 2
            left = set(instances.values()) - {gone, cluster.primary()}
            known = len(devices.acknowledged)
            room = f"SELECT count(*) FROM temperatures WHERE room_id = '{devices.room_id}'"
            for instance in left:
                cluster.until(lambda instance=instance: int(cluster.in_database(instance, room)) >= known, 30)
            lasted = time.monotonic() - begun
        cluster.until(cluster.healthy, 300)
        devices.go_on(60)
    say(f"without {gone} for {lasted:.0f} s: {devices}")
    devices.assert_kept()


@pytest.mark.parametrize("lost", [("standby", "other"), ("primary", "other"), ("primary", "standby")], ids=" and ".join)
def test_with_two_of_three_lost_writes_stop_rather_than_lie(lost: tuple[str, str], say: Say) -> None:
    with Devices() as devices, ExitStack() as cuts:
        devices.go_on(60)
        instances = dict(zip(("primary", "standby", "other"), roles(), strict=True))
        for role in lost:
            cuts.enter_context(cluster.cut(instances[role]))
        time.sleep(1)
        known = len(devices.acknowledged)
        time.sleep(SILENT_SECONDS)
        assert len(devices.acknowledged) == known
        cuts.close()
        took = devices.go_on(180)
        cluster.until(cluster.healthy, 300)
    say(f"without {' and '.join(lost)} none for {SILENT_SECONDS} s, again {took:.0f} s after, {devices}")
    devices.assert_kept()
