"""`make run` says what nobody would notice: once, when it has lasted, and that it is over."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from local import observer
from local.postgres import MONITOR, OWNER
from tests.support import Urls, wait_until


@contextmanager
def observed(urls: Urls, *folders: Path) -> Iterator[list[str]]:
    """What is said of the database."""
    said: list[str] = []
    stopping = threading.Event()
    thread = threading.Thread(
        target=observer.observe, args=(lambda: observer.faults(urls(MONITOR), *folders), said.append, stopping)
    )
    thread.start()
    try:
        yield said
    finally:
        stopping.set()
        thread.join()


def test_a_fault_is_said_once_and_that_it_is_over(plain: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "LOOK_SECONDS", 0.05)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, observed(plain) as said:
        owner.execute("SELECT setval('summarized', extract(epoch FROM now() - interval '1 hour')::bigint)")
        wait_until(lambda: bool(said))
        # Its words are other ones by then.
        owner.execute("SELECT setval('summarized', extract(epoch FROM now() - interval '3 hours')::bigint)")
        owner.execute("SELECT pg_sleep(0.5)")
        owner.execute("CALL summarize()")
        wait_until(lambda: len(said) == 2)
    assert said[0].startswith("Health        Nothing has summed up readings for 60 minutes")
    assert said[1].startswith("              That is over: Nothing has summed up readings for 60 minutes")


def test_what_is_late_for_a_moment_is_not_said(plain: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    late: observer.Faults = {("a", ""): "A"}
    # The database is away meanwhile, and the folder gone.
    away: list[Exception] = [FileNotFoundError(), psycopg.OperationalError()]
    looks: list[observer.Faults | Exception] = [late, {}, late, *away, {("b", ""): "B"}, {}]
    monkeypatch.setattr(observer, "LOOK_SECONDS", 0.001)
    said: list[str] = []
    stopping = threading.Event()

    def look() -> observer.Faults:
        if len(looks) == 1:
            stopping.set()
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    observer.observe(look, said.append, stopping)
    assert said == []


def copied(backups: Path, at: datetime) -> None:
    manifest = backups / at.strftime("%Y%m%dT%H%M%SZ") / "base" / "backup_manifest"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    os.utime(manifest, (at.timestamp(), at.timestamp()))


def test_a_disk_that_fills_and_a_backup_that_does_not_go_on_are_found(
    plain: Urls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (4, 3):
        copied(tmp_path, datetime.now(UTC) - timedelta(days=days))
    monkeypatch.setattr(observer, "FREE_SHARE", 1)
    monkeypatch.setattr(observer, "FREE_BYTES", 2**60)
    found = observer.faults(plain(MONITOR), tmp_path, tmp_path)
    assert found["disk", ""].startswith(f"The disk of {tmp_path} is nearly full: ")
    assert found["backup", ""].startswith(f"The backup in {tmp_path} is 3 days old")
    # What is much of a small disk is enough, and so is a small part of a large one.
    for limit in ("FREE_SHARE", "FREE_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(observer, limit, 0)
            assert ("disk", "") not in observer.faults(plain(MONITOR), tmp_path)
    copied(tmp_path, now := datetime.now(UTC))
    started = now - timedelta(days=9)
    assert ("backup", "") not in observer.faults(plain(MONITOR), tmp_path, tmp_path, since=started)


@pytest.mark.parametrize("name", ["missing", "a-file"])
def test_a_backup_that_never_was_is_found_an_hour_after_the_start(plain: Urls, tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()

    def found(**before: int) -> str | None:
        since = datetime.now(UTC) - timedelta(**before)
        return observer.faults(plain(MONITOR), tmp_path, tmp_path / name, since=since).get(("backup", ""))

    assert found(minutes=59) is None
    fault = found(minutes=90)
    assert fault is not None
    assert fault.startswith(f"There is no whole copy in {tmp_path / name}, 90 minutes after the start.")
