"""The primary is lost, or its standby, while devices send: another takes over, and what was acknowledged is there."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices, make

Loss = Callable[[str], AbstractContextManager[None]]
Say = Callable[[object], None]

pytestmark = [pytest.mark.usefixtures("two_instances"), pytest.mark.timeout(900)]


def another_than(before: str) -> str:
    """The instance that leads, once it is another."""
    return str(cluster.until(lambda: cluster.primary() not in ("", before) and cluster.primary(), 180))


@contextmanager
def deleted(pod: str) -> Iterator[None]:
    cluster.kubectl("delete", "pod", pod, "--wait=false")
    yield


@contextmanager
def killed(pod: str) -> Iterator[None]:
    """All its processes end at once and nobody hears of it, as when its node loses power.

    One that came again within seconds would lead on, and soon alone: then nobody may take over from it.
    """
    with cluster.cut(pod):
        # It ends with what it ends.
        subprocess.run([*cluster.KUBECTL, "exec", pod, "--", "sh", "-c", "kill -9 -1"], capture_output=True)
        yield


@contextmanager
def frozen(pod: str) -> Iterator[None]:
    """All its processes stand still, then go on where they were."""
    cluster.kubectl("exec", pod, "--", "sh", "-c", "kill -STOP -1")
    try:
        yield
    finally:
        cluster.kubectl("exec", pod, "--", "sh", "-c", "kill -CONT -1")


@contextmanager
def cut_off(pod: str) -> Iterator[None]:
    """From everybody, Kubernetes too."""
    with cluster.cut(pod):
        yield


@pytest.mark.parametrize("lose", [deleted, killed, frozen, cut_off])
def test_another_instance_takes_over_from_a_primary_that_is(lose: Loss, say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        before, begun = cluster.primary(), time.monotonic()
        with lose(before):
            after = another_than(before)
            devices.go_on(180)
            took = time.monotonic() - begun
        cluster.until(cluster.healthy, 300)
        whole = time.monotonic() - begun
        devices.go_on(60)
    say(f"{before}, then {after}: readings after {took:.0f} s, a standby after {whole:.0f} s, {devices}")
    devices.assert_kept()


def synchronous_standby() -> str:
    """The instance that confirms what the primary commits."""

    def found() -> str:
        return next((name for name, member in cluster.members().items() if member["Role"] == "Sync Standby"), "")

    return str(cluster.until(found, 180))


def given_up(standby: str) -> None:
    """Wait until no commit waits for the standby any more."""
    cluster.until(lambda: (found := cluster.members()) and found.get(standby, {}).get("Role") != "Sync Standby", 240)


def test_a_link_to_the_standby_that_is_cut_loses_nothing(say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        standby, begun = synchronous_standby(), time.monotonic()
        with cluster.cut(cluster.primary(), standby):
            given_up(standby)
            devices.go_on(180)
            took = time.monotonic() - begun
            assert f"{standby} does not follow the primary" in make("status")
        begun = time.monotonic()
        cluster.until(cluster.healthy, 300)
        whole = time.monotonic() - begun
        devices.go_on(60)
    say(f"readings after {took:.0f} s; the link is back, a standby after {whole:.0f} s; {devices}")
    devices.assert_kept()


def test_a_primary_that_is_lost_while_its_link_is_cut_has_acknowledged_nothing_alone(say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        before, standby, begun = cluster.primary(), synchronous_standby(), time.monotonic()
        with cluster.cut(before, standby):
            time.sleep(5)
            waiting = len(devices.acknowledged)
            time.sleep(5)
            assert len(devices.acknowledged) == waiting
            with cut_off(before):
                assert another_than(before) == standby
                devices.go_on(180)
                took = time.monotonic() - begun
        cluster.until(cluster.healthy, 300)
        devices.go_on(60)
    say(f"{before}, then {standby}: readings after {took:.0f} s, {devices}")
    devices.assert_kept()


def test_a_standby_that_was_given_up_does_not_take_over(say: Say) -> None:
    with Devices() as devices:
        devices.go_on(60)
        standby = synchronous_standby()
        with cluster.cut(cluster.primary(), standby):
            given_up(standby)
            devices.go_on(180)
            with deleted(cluster.primary()):
                begun, leaders = time.monotonic(), set()
                while time.monotonic() - begun < 40 or not cluster.healthy():
                    leaders.add(cluster.primary())
                    assert standby not in leaders
                    assert time.monotonic() - begun < 300
                    time.sleep(1)
        devices.go_on(60)
    say(f"{standby} was given up, {leaders - {''}} led on, {devices}")
    devices.assert_kept()
