"""A standby that cannot follow any more is named, with the command that has it copied anew."""

import re
import shlex
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices, make

pytestmark = [pytest.mark.usefixtures("two_instances"), pytest.mark.timeout(900)]

BEGIN_ANEW = """
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active;
DO $$
BEGIN
    -- More files of 16 MB than it keeps for others of its write-ahead log (wal_keep_size).
    FOR file IN 1..20 LOOP
        PERFORM pg_logical_emit_message(false, 'e2e', ''), pg_switch_wal();
    END LOOP;
END $$;
"""


def begin_the_log_anew(primary: str) -> None:
    """No log of before is there any more, as if the other instance had been away for half an hour.

    For as long Patroni keeps it (`member_slots_ttl`), with a slot that it makes again every ten seconds.
    """
    # Behind the timeline in a name is the place in the log; the histories of timelines stay for ever.
    oldest = "SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    before = cluster.in_database(primary, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 9)")

    def begun() -> bool:
        cluster.in_database(primary, BEGIN_ANEW)
        cluster.in_database(primary, "CHECKPOINT")
        return cluster.in_database(primary, oldest) > before

    cluster.until(begun, 60)


def test_a_standby_whose_log_is_gone_is_named_with_what_brings_it_back(say: Callable[[object], None]) -> None:
    # Where there is one less, the volume of the instance with the highest number stays behind.
    number = len(cluster.instances())
    primary, standby = cluster.primary(), f"{cluster.DATABASE}-{number - 1}"
    if standby == primary:
        cluster.kubectl("exec", primary, "--", "patronictl", "switchover", cluster.DATABASE, "--force")
        primary = str(cluster.until(lambda: cluster.primary() not in ("", standby) and cluster.primary(), 120))
        cluster.until(cluster.healthy, 300)
    cluster.patch("postgresql", cluster.DATABASE, {"spec": {"numberOfInstances": number - 1}})
    # While it ends it is still told everything.
    cluster.kubectl("wait", f"pod/{standby}", "--for", "delete", "--timeout", "300s")
    begin_the_log_anew(primary)
    cluster.patch("postgresql", cluster.DATABASE, {"spec": {"numberOfInstances": number}})

    def named() -> str:
        return next((line for line in make("status").splitlines() if line.startswith(f"{standby} cannot follow")), "")

    fault = str(cluster.until(named, 180))
    with Devices() as devices:
        devices.go_on(60)
        (command,) = re.findall(r"kubectl .+--force", fault)
        begun = time.monotonic()
        subprocess.run([*cluster.KUBECTL, *shlex.split(command)[1:]], check=True, capture_output=True)
        cluster.until(cluster.healthy_soon, 300)
        took = time.monotonic() - begun
        devices.go_on(60)
    say(f"{standby} was copied anew in {took:.0f} s, {devices}")
    devices.assert_kept()
    assert not named()
