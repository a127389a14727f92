"""The shell scripts do not do what shells are known for."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.kubectl import status
from tests.support import ROOT

SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck comes with no package for this platform")
def test_shellcheck_has_nothing_to_warn_of() -> None:
    assert SHELLCHECK
    scripts = sorted([*ROOT.glob("kind/*.sh"), *ROOT.glob("knative/*/*.sh")])
    assert scripts
    run = subprocess.run(
        [SHELLCHECK, "--shell", "bash", "--severity", "warning", "--external-sources", ".ci/run", *scripts],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_a_file_of_the_log_that_cannot_be_copied_is_not_taken_for_the_end_of_the_log(tmp_path: Path) -> None:
    [command] = re.findall('"restore_command=(.+)"', (ROOT / "knative/restore/restore.sh").read_text())
    (tmp_path / "wal").mkdir()
    for name in ("1", "2.partial"):
        (tmp_path / "wal" / name).write_text(name)

    def restored(name: str, to: str) -> int:
        filled = command.replace("\\$", "$").replace("$backup", str(tmp_path))
        filled = filled.replace("%f", name).replace("%p", str(tmp_path / to))
        return subprocess.run(["sh", "-c", filled], check=False, stderr=subprocess.DEVNULL).returncode

    assert [restored(name, "to") for name in ("1", "2", "3")] == [0, 0, 1]
    assert (tmp_path / "to").read_text() == "2.partial"
    # From 126 on PostgreSQL ends.
    assert restored("1", "missing/to") == 255


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (None, f"{datetime.now(UTC):%Y}"),
        ("20200101T000000Z", f"{datetime.now(UTC):%Y}"),
        ("20990101T000000Z", "20990101T000001Z"),
        ("20991231T235959Z", "21000101T000000Z"),
    ],
)
def test_a_new_backup_of_a_cluster_is_the_last_one_wherever_the_clock_was(
    tmp_path: Path, last: str | None, name: str
) -> None:
    if last:
        (tmp_path / last).mkdir()
    assert _of_backup("next_name", tmp_path).startswith(name)


def test_a_backup_of_a_cluster_is_old_after_its_time_and_where_it_was_made_in_the_future(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ages = {"older": -timedelta(minutes=61), "newer": -timedelta(minutes=59), "ahead": timedelta(days=1)}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        instant = (now + age).timestamp()
        os.utime(tmp_path / name, (instant, instant))
    old = {name for name in ages if _of_backup(f"current=/backup/{name}; ! is_older 60 || echo old", tmp_path)}
    assert old == {"older", "ahead"}


def test_a_backup_of_a_cluster_goes_on_where_a_server_refuses_once_and_begins_anew_where_it_goes_on_refusing(
    tmp_path: Path,
) -> None:
    asked = "psql() { return 2; }; watched= refusals=0 most_refusals=3; trap 'echo begins anew' EXIT\n"
    asked += "for each in 1 2 3 4; do is_of_this_database there || echo goes on; done"
    assert _of_backup(asked, tmp_path, returned=1).splitlines() == ["goes on", "goes on", "begins anew"]


@pytest.mark.parametrize(("closed", "there"), [(False, "3 2 3 2"), (True, "3 3 3 2")])
def test_the_first_copy_after_a_restore_to_an_instant_takes_the_place_of_no_other(
    tmp_path: Path, closed: bool, there: str
) -> None:
    """Of each two numbers the first one is while a copy is made: the volume has room for three."""
    for name in ("20261126T080000Z", "20261127T080000Z"):
        (tmp_path / name / "base").mkdir(parents=True)
        if closed:
            (tmp_path / name / "closed").touch()
    programs = 'receive() { touch "$1/wal/file"; }; pg_basebackup() { ls /backup | wc -l >&3; mkdir "$4"; }\n'
    programs += "exec 3>&1; watched= receiver= kept=2 current=/backup/20261127T080000Z\n"
    copy = "begin >/dev/null; ls /backup | wc -l\n"
    assert _of_backup(programs + copy + copy, tmp_path).split() == there.split()


def _of_backup(command: str, folder: Path, returned: int = 0) -> str:
    """What a command prints that uses functions of the backup of a cluster, which is kept in the folder."""
    script = (ROOT / "knative/backup/backup.sh").read_text()
    names = "begin|is_of_this_database|is_older|next_name|remove_older|whole"
    functions = "".join(re.findall(rf"^(?:{names})\(\) \{{\n.*?^\}}\n", script, re.DOTALL | re.MULTILINE))
    whole = f"{functions}{command}".replace("/backup", str(folder))
    run = subprocess.run(["bash", "-euc", whole], check=False, capture_output=True, text=True)
    assert run.returncode == returned, run.stderr
    return run.stdout.strip()


def end_of_the_cluster(folder: Path, kubectl: str = "") -> None:
    """What `make down` does in a folder that has the scripts, with a docker and a kind that do nothing."""
    shutil.copytree(ROOT / "kind", folder / "kind")
    for name, does in (("docker", ""), ("kind", ""), ("kubectl", kubectl)):
        program = folder / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}/programs:{os.environ['PATH']}"}
    subprocess.run(["bash", folder / "kind/down.sh"], env=environment, check=True, capture_output=True)


def test_the_end_of_the_cluster_removes_of_what_was_built_only_its_own(tmp_path: Path) -> None:
    for name in ("images.yaml", "objects.yaml", "context", "bench/singles.json"):
        (tmp_path / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / name).write_text("")
    end_of_the_cluster(tmp_path)
    assert [file.name for file in (tmp_path / "build").iterdir()] == ["bench"]
    assert (tmp_path / "build/bench/singles.json").exists()


@pytest.mark.parametrize(("current", "chosen"), [("", "elsewhere\n"), ("another", "")])
def test_the_end_of_the_cluster_brings_back_the_context_of_before_unless_there_is_one(
    tmp_path: Path, current: str, chosen: str
) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/context").write_text("elsewhere\n")
    (tmp_path / "chosen").write_text("")
    end_of_the_cluster(
        tmp_path,
        f"""case "$*" in
            "config current-context") [ -n "{current}" ] ;;
            "config use-context "*) echo "$3" >"{tmp_path}/chosen" ;;
        esac""",
    )
    assert (tmp_path / "chosen").read_text() == chosen


def beginning_of_the_cluster(folder: Path, nodes: str, kind: str = "exit 1") -> tuple[str, str]:
    """What `make up` tells a kind that then does so: the configuration of the cluster; and what it says itself."""
    kind = (
        f'echo "$1" >>{folder}/asked; case "$1" in version) echo v0.33.0 ;; create) cat >{folder}/told; {kind} ;; esac'
    )
    shutil.copytree(ROOT / "kind", folder / "kind")
    # A cluster may be running.
    with (folder / "kind/steps.sh").open("a") as steps:
        steps.write("need_port() { true; }\n")
    for name, does in (
        ("docker", 'case "$*" in *MemTotal*) echo 8000000000 ;; *NCPU*) echo 4 ;; esac'),
        ("kind", kind),
        ("kubectl", ""),
    ):
        program = folder / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}/programs:{os.environ['PATH']}", "NODES": nodes}
    run = subprocess.run(["bash", folder / "kind/up.sh"], env=environment, capture_output=True, text=True)
    told = folder / "told"
    return told.read_text() if told.exists() else "", run.stderr


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_cluster_has_as_many_nodes_as_it_is_told(tmp_path: Path, nodes: int) -> None:
    told, _ = beginning_of_the_cluster(tmp_path, str(nodes))
    roles = [node["role"] for node in yaml.safe_load(told)["nodes"]]
    assert roles == ["control-plane", *["worker"] * (nodes - 1)]


@pytest.mark.parametrize("nodes", ["0", "three", "12"])
def test_a_number_of_nodes_that_makes_no_sense_is_refused(tmp_path: Path, nodes: str) -> None:
    told, said = beginning_of_the_cluster(tmp_path, nodes)
    assert (told, said) == ("", f"NODES is {nodes}; it must be a number from 1 to 9\n")


@pytest.mark.parametrize(("how", "removed"), [("exit 1", False), ("kill -INT $PPID", True)], ids=["fails", "is ended"])
def test_nodes_that_were_being_made_are_removed_where_that_is_ended(tmp_path: Path, how: str, removed: bool) -> None:
    """Where kind itself fails, it removes what is its own. Another may have made a cluster of that name meanwhile."""
    beginning_of_the_cluster(tmp_path, "1", how)
    assert ("delete" in (tmp_path / "asked").read_text().split()) == removed


def test_patroni_is_told_what_the_manifest_says_only_when_it_has_a_configuration(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    # After a restore Patroni writes its configuration down when it was asked a second time.
    program.write_text(f"""#!/bin/sh
case "$*" in
    *spec.patroni*) printf true ;;
    *"get endpoints"*) printf temperature-db-0 ;;
    *show-config*) cat "{tmp_path}/config"; printf 'postgresql:\n' >"{tmp_path}/config" ;;
    *edit-config*) cat "{tmp_path}/config" >>"{tmp_path}/edited" ;;
esac
""")
    program.chmod(0o755)
    (tmp_path / "config").write_text("{}\n")
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ". kind/steps.sh; CONTEXT=somewhere agree_with_patroni"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (tmp_path / "edited").read_text() == "postgresql:\n"


VOLUME = "The volume pgdata-temperature-db-0 has 5Gi of the class standard, and the manifest says"
KUBECTL_THERE = "kubectl --context kind-temperature -n temperature"
TOGETHER = r"n2\ttemperature-db-0\nn1\ttemperature-db-1\nn2\ttemperature-db-2\n"


def test_the_status_of_a_cluster_that_is_well_is_that(tmp_path: Path) -> None:
    assert status(tmp_path) == "Nothing is wrong that can be seen from here."


def test_instances_of_the_database_may_share_the_only_node(tmp_path: Path) -> None:
    places = r"n1\ttemperature-db-0\nn1\ttemperature-db-1\n"
    assert status(tmp_path, NODES=r"node/n1\n", PLACES=places) == "Nothing is wrong that can be seen from here."


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"FAULTS": "The job refresh is paused.\nB\n"}, ["The job refresh is paused.", "B"]),
        ({"FAULTS": "refused"}, ["The database does not say how it is: docs/"]),
        ({"FULL": "93%"}, ["The volume of temperature-db-0 is 93% full, 400M are left: docs/"]),
        (
            {"SUSPENDED": "summaries\nevery-minute-watch\n"},
            ["The timer summaries is", "The timer every-minute-watch is"],
        ),
        (
            {"SOURCES": r"PingSource one\tTrue\nPingSource two\tFalse\nBroker default\t\n"},
            ["PingSource two is not ready: kubectl", "Broker default is not ready: kubectl"],
        ),
        (
            {"FUNCTIONS": r"average\tFalse\tIt failed:\nfor a reason\n.\ningest\tTrue\t\nwatch\tUnknown\t\n"},
            ["The function average is not ready: It failed:", "The function watch is not ready: kubectl"],
        ),
        (
            {"PLACES": TOGETHER},
            [
                "The node n2 has 2 instances of the database, and they are lost with it: "
                "temperature-db-0, temperature-db-2. docs/"
            ],
        ),
        # Who may not list nodes hears it too.
        ({"PLACES": TOGETHER, "NODES": ""}, ["The node n2 has 2 instances"]),
        ({"POOLERS": r"temperature-db-pooler\t2\t1\n"}, ["The pooler temperature-db-pooler has 1 of 2 instances. Why"]),
        (
            {"POOLERS": r"temperature-db-pooler\t2\t2\ntemperature-db-pooler-repl\t2\t\n"},
            ["The pooler temperature-db-pooler-repl has 0 of 2 instances. Why"],
        ),
        ({"VOLUME": r"6Gi\t"}, [f"{VOLUME} 6Gi: docs/"]),
        ({"VOLUME": r"5Gi\tfast"}, [f"{VOLUME} 5Gi of the class fast: docs/"]),
        (
            {"PODS": r"a\t\tUnschedulable\tno room.\nb\t\t\t\tx\t\t\ty\tCrashLoopBackOff\tback-off 5m\n"},
            [
                f"a does not start (Unschedulable): no room. More: {KUBECTL_THERE} describe pod a",
                f"b does not start (CrashLoopBackOff): {KUBECTL_THERE} logs b -c y --previous",
            ],
        ),
        # The current context may be another.
        (
            {"HEALTH": "", "CONTEXT": "elsewhere"},
            ["Nothing asks the database how it is, for a Prometheus: kubectl --context elsewhere -n temperature"],
        ),
        ({"RULES": ""}, ["There is no ConfigMap alarms, and watch does not start: docs/"]),
        ({"CONFIG": r"pause: true\npostgresql:\n"}, ["Patroni is paused, and no standby takes over: kubectl"]),
        ({"STRICT": "true"}, ["Patroni does not have synchronous_mode_strict, as the manifest says"]),
        (
            {"UNREACHABLE": "Error from server: error dialing backend: dial tcp 10.0.0.1:10250: connect: refused"},
            [
                "The primary temperature-db-0 cannot be asked, and may take readings or not: no command reaches its "
                f"node. Why: {KUBECTL_THERE} describe node n1"
            ],
        ),
        (
            {"UNREACHABLE": "error: Internal error occurred: container not found"},
            ["The database has no primary that answers, and readings are refused (503): docs/"],
        ),
        (
            {"REACHES": "503"},
            ["ingest-1-x does not get to the database: docs/reliability.md#commits-fail. Its log says"],
        ),
        (
            {"PLATFORM": r"knative-serving\tactivator\t2\t1\ndefault\tpostgres-operator\t0\t\n"},
            [
                "Of activator in the namespace knative-serving, which the product needs, 1 of 2 instances are ready.",
                "Of postgres-operator in the namespace default, which the product needs, 0 of 1 instances are ready.",
            ],
        ),
        ({"INSTANCES": ""}, ["There is no database: make deploy"]),
        (
            {"INSTANCES": "0"},
            ["The database has no instances, as while make recover is at work. If that ended early: make"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_the_status_of_a_cluster_says_what_is_wrong(tmp_path: Path, answers: dict[str, str], said: list[str]) -> None:
    lines = status(tmp_path, **answers).splitlines()
    assert len(lines) == len(said)
    assert [line for line, beginning in zip(lines, said, strict=True) if not line.startswith(beginning)] == []


def recover(folder: Path, kubectl: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """What `make recover` says with such a kubectl, and which code it ends with."""
    shutil.copytree(ROOT / "kind", folder / "kind")
    shutil.copytree(ROOT / "knative/restore", folder / "knative/restore")
    (folder / "build").mkdir()
    (folder / "build/images.yaml").write_text("")
    (folder / "kubectl").write_text(f"#!/bin/sh\n{kubectl}")
    (folder / "kubectl").chmod(0o755)
    environment = {**os.environ, "CONTEXT": "elsewhere", "PATH": f"{folder}:{os.environ['PATH']}", **settings}
    script = f"{folder}/kind/recover.sh"
    return subprocess.run(["bash", script], capture_output=True, check=False, env=environment, text=True)


def test_what_is_to_be_said_again_to_replace_a_database_is_all_of_it(tmp_path: Path) -> None:
    run = recover(tmp_path, "", UNTIL="2026-11-26T08:30:00Z")
    again = "make recover REPLACE=true CONTEXT=elsewhere UNTIL=2026-11-26T08:30:00Z\n"
    assert (run.returncode, run.stderr.endswith(again)) == (1, True)


def test_a_database_that_is_replaced_a_second_time_gets_as_many_instances_as_were_deployed(tmp_path: Path) -> None:
    # The first attempt ended before it started any.
    run = recover(
        tmp_path,
        f"""case "$*" in
    *"patch postgresql"*) echo "$*" >>"{tmp_path}/patched" ;;
    *"delete job"*) echo "$*" >>"{tmp_path}/removed" ;;
    *spec.numberOfInstances*) printf 0 ;;
    *view-last-applied*) printf 'spec:\\n  numberOfInstances: 3\\n' ;;
    *pg_is_in_recovery*) echo f ;;
esac
""",
        REPLACE="true",
    )
    assert run.returncode == 0, run.stderr
    asked = re.findall(r'"numberOfInstances": (\d)', (tmp_path / "patched").read_text())
    assert asked == ["0", "1", "3"]
    # The pod of a Job that is over keeps the volume of a database that is removed.
    assert (tmp_path / "removed").read_text().splitlines()[-1].endswith("delete job restore")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("*spec.numberOfInstances*) printf 1 ;;", "Nothing was removed: somebody started the database meanwhile"),
        ("*annotations.recovery*) printf another ;;", "Another make recover has begun since, and goes on"),
    ],
)
def test_nothing_is_removed_of_a_database_that_somebody_else_starts_or_replaces(
    tmp_path: Path, answers: str, said: str
) -> None:
    removes = f'*delete*pvc*) touch "{tmp_path}/removed" ;;'
    run = recover(
        tmp_path, f'case "$*" in {removes} {answers} *spec.numberOfInstances*) printf 0 ;; esac\n', REPLACE="true"
    )
    assert (run.returncode, said in run.stderr) == (1, True)
    assert not (tmp_path / "removed").exists()


def test_a_setting_on_the_command_line_of_make_is_what_it_says() -> None:
    name = "$1 a$word$(x)#'\""
    # The packages are here.
    run = subprocess.run(
        ["make", "--silent", "--old-file", ".venv/run", "import", f"FILE={name}"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert f"{name} cannot be read" in run.stderr


NOTED = """#!/bin/sh
echo "$*, Python is told '$PYTHONHOME$PYTHONPATH'" >>asked
"""


def test_packages_are_installed_here_whatever_another_project_asks_for_and_however_a_start_ended(
    tmp_path: Path,
) -> None:
    (tmp_path / "local").mkdir()
    for name in ("Makefile", "local/requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(NOTED)
    interpreter.chmod(0o755)
    elsewhere = {"PYTHONHOME": "/elsewhere", "PYTHONPATH": "/elsewhere", "PIP_USER": "1"}
    subprocess.run(["make", "--silent", ".venv/run"], check=True, cwd=tmp_path, env={**os.environ, **elsewhere})
    pip, packages = (tmp_path / "asked").read_text().splitlines()
    # Of a start that was cut short the interpreter may be there, and no pip.
    assert pip == "-m ensurepip --default-pip, Python is told ''"
    assert packages.startswith("-m pip install --quiet --no-user ") and packages.endswith(", Python is told ''")


SYSTEM = """#!/bin/sh
case "$*" in
*libc_ver*) exec {python} -c "import platform, sys
sys.platform, sys.maxsize = '{system}', 2**{bits} - 1
platform.machine, platform.libc_ver = lambda: '{machine}', lambda: {libc}
$2" ;;
"-m venv"*) exec mkdir .venv ;;
*) exec {python} "$@" ;;
esac
"""


@pytest.mark.parametrize(
    ("system", "machine", "bits", "libc", "fits"),
    [
        ("linux", "x86_64", 63, ("glibc", "2.28"), True),
        ("linux", "aarch64", 63, ("glibc", "2.41"), True),
        ("darwin", "arm64", 63, ("", ""), True),
        ("darwin", "x86_64", 63, ("", ""), True),
        ("linux", "aarch64", 31, ("glibc", "2.36"), False),
        ("linux", "armv7l", 31, ("glibc", "2.36"), False),
        ("linux", "riscv64", 63, ("glibc", "2.41"), False),
        ("linux", "aarch64", 63, ("", ""), False),
        ("linux", "x86_64", 63, ("musl", "1.2.5"), False),
        ("linux", "x86_64", 63, ("glibc", "2.17"), False),
    ],
)
def test_a_system_for_which_there_are_no_packages_is_named_before_any_is_looked_for(
    tmp_path: Path, system: str, machine: str, bits: int, libc: tuple[str, str], fits: bool
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    interpreter = tmp_path / "python"
    interpreter.write_text(SYSTEM.format(python=sys.executable, system=system, machine=machine, bits=bits, libc=libc))
    interpreter.chmod(0o755)
    run = subprocess.run(
        ["make", "--silent", ".venv/bin/python", f"PYTHON={interpreter}"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
    )
    assert (run.returncode == 0, (tmp_path / ".venv").exists()) == (fits, fits), run.stderr
    assert fits or f"none for the system that {interpreter} is of" in run.stderr.splitlines()[0]
