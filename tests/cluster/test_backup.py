"""The database is destroyed and comes back from its backup, as a user would do it: `make backup`, `make recover`."""

import base64
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

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


def in_backup(command: str) -> str:
    """What a command says in the pod that keeps the backup."""
    return cluster.kubectl("exec", "deployment/backup", "--", "bash", "-c", command)


def restarts() -> int:
    """How often the container that keeps the backup began anew."""
    (pod,) = cluster.get("pods", "--selector", "app.kubernetes.io/component=backup")["items"]
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def log_comes() -> None:
    """Wait until the backup has what the primary writes from now on."""
    written = cluster.in_database(cluster.primary(), "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    cluster.in_database(cluster.primary(), "SELECT pg_logical_emit_message(false, 'e2e', ''), pg_switch_wal()")
    # Under this name it is once it is whole.
    cluster.until(lambda: written in in_backup("ls /backup/*Z/wal").split(), 120)


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


def test_who_went_back_too_far_can_go_forward_again() -> None:
    time.sleep(1)
    too_early = datetime.now(UTC).isoformat()
    with Devices() as devices:
        devices.go_on(60)
    time.sleep(1)
    later = datetime.now(UTC).isoformat()
    time.sleep(RECEIVED_SECONDS)
    for until, kept in ((too_early, False), (later, True)):
        make("recover", "REPLACE=true", f"UNTIL={until}")
        cluster.until(cluster.healthy, 300)
        cluster.until(received, 180)
        found = f"SELECT count(*) > 0 FROM temperatures WHERE room_id = '{devices.room_id}'"
        assert cluster.in_database(cluster.primary(), found) == ("t" if kept else "f")
    devices.assert_kept()


def test_the_database_is_not_replaced_unless_that_is_said() -> None:
    with pytest.raises(AssertionError, match="make recover REPLACE=true"):
        make("recover")
    assert cluster.primary()


@pytest.mark.parametrize(
    ("until", "reason"), [("2020-01-01T00:00:00Z", "no backup that was whole before"), ("yesterday", "an instant")]
)
def test_nothing_is_removed_for_a_backup_that_there_is_not(until: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        make("recover", "REPLACE=true", f"UNTIL={until}")
    assert cluster.healthy()


def test_an_instant_while_the_copy_was_being_made_is_refused_before_anything_is_removed() -> None:
    # By itself a copy may begin and end within a second.
    in_backup("touch -d '2 minutes' /backup/*Z/base/backup_manifest")
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    with pytest.raises(AssertionError, match="no backup that was whole before"):
        make("recover", "REPLACE=true", f"UNTIL={soon}")
    assert cluster.healthy()


def test_the_log_is_received_from_another_instance_when_the_primary_vanished_without_a_word(
    two_instances: None, say: Say
) -> None:
    cluster.until(received, 60)
    with cluster.cut(gone := cluster.primary()):
        cluster.until(lambda: cluster.primary() not in ("", gone), 180)
        begun = time.monotonic()
        timeline = cluster.in_database(
            cluster.primary(), "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
        )
        cluster.until(lambda: f"/wal/{timeline}" in in_backup("ls -d /backup/*Z/wal/*"), 120)
        say(f"the log of timeline {timeline} comes {time.monotonic() - begun:.0f} s after {cluster.primary()} leads")
    cluster.until(cluster.healthy, 300)


SIGNAL = """
signal() {
    for process in /proc/[0-9]*; do
        read -r name 2>/dev/null <"$process/comm" && [ "$name" = pg_basebackup ] && kill "-$1" "${process#/proc/}"
    done
}
"""
STOP_COPY = f"""{SIGNAL}
for _ in $(seq 30); do
    touch -d '25 hours ago' /backup/*Z
    for _ in $(seq 500); do
        place=$(compgen -G '/backup/*Z/base.new/backup_label') && break
        sleep 0.01
    done
    signal STOP
    # It may have been whole before it stood still.
    [ -z "$place" ] || [ ! -e "$place" ] || {{ echo "$place"; exit; }}
done
exit 1
"""


@pytest.mark.parametrize("way", ["ends", "vanishes"])
def test_a_copy_that_was_being_made_while_the_primary(way: str, two_instances: None, say: Say) -> None:
    """It is made anew, of the next primary, and until then the one before goes on."""
    cluster.until(received, 60)
    # Made within a second: its label comes first, and what follows is more than a connection holds.
    half = in_backup(STOP_COPY).strip().removesuffix("/base.new/backup_label")
    before = in_backup("ls -d /backup/*Z/base").split()
    gone = cluster.primary()
    with ExitStack() as cuts:
        if way == "ends":
            cluster.kubectl("delete", "pod", gone, "--wait=false")
        else:
            cuts.enter_context(cluster.cut(gone))
        cluster.until(lambda: cluster.primary() not in ("", gone), 180)
        begun = time.monotonic()
        in_backup(f"{SIGNAL}signal CONT || true")

        def whole() -> bool:
            return bool(set(in_backup("ls -d /backup/*Z/base").split()) - set(before))

        cluster.until(whole, 120)
        took = time.monotonic() - begun
        cluster.until(received, 60)
        log_comes()
    assert half not in in_backup("ls -d /backup/*Z")
    say(f"another copy was whole {took:.0f} s after {cluster.primary()} leads")
    cluster.until(cluster.healthy, 300)


def test_the_log_goes_on_when_the_password_that_it_is_received_with_is_another(say: Say) -> None:
    """What runs has the password of its beginning."""
    secret = f"standby.{cluster.DATABASE}.credentials.postgresql.acid.zalan.do"
    before, kept_in = cluster.get("secret", secret)["data"]["password"], in_backup("ls /backup")

    def change(password: str) -> None:
        cluster.patch("secret", secret, {"data": {"password": base64.b64encode(password.encode()).decode()}})
        cluster.in_database(cluster.primary(), f"ALTER ROLE standby PASSWORD '{password}'")

    times = restarts()
    try:
        change("another")
        # As when the primary begins anew. Standbys keep the connections that they have.
        cluster.in_database(
            cluster.primary(),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'",
        )
        begun = time.monotonic()
        cluster.until(lambda: restarts() > times, 120)
        cluster.until(received, 120)
        log_comes()
        say(f"the log comes with the other password after {time.monotonic() - begun:.0f} s")
        assert in_backup("ls /backup") == kept_in
    finally:
        change(base64.b64decode(before).decode())
        # What runs has the other password now, and would begin anew after the next failover.
        cluster.kubectl("delete", "pod", "--selector", "app.kubernetes.io/component=backup")
        cluster.until(received, 120)
