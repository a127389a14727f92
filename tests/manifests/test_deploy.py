"""`make deploy` with a program in the place of kubectl, which builds the manifests and answers as a cluster would."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.manifests.support import BUILT, Object, of_kind
from tests.support import ROOT, wait_until

TOKENS = "tokens write read"
# What a cluster that has all of it answers; what is not named here succeeds and says nothing.
COMPLETE = {
    r"get pods -l name=postgres-operator": "pod/postgres-operator-0",
    r"get configmap config-network": "kourier.ingress.networking.knative.dev",
    r"get storageclass": 'storageclass.kubernetes.io/is-default-class: "true"',
    r"get configmap config-features": "enabled",
    r"get secret tokens ": TOKENS,
    r"get secret tokens-of-the-house ": "tokens-of-the-house write read",
    r"get secret temperature-db-tls ": "temperature-db-tls ca.crt tls.crt tls.key",
}
EXCEPT_TIMERS = r"component(!=timer| notin \(.*\btimer\)|=migrations)"
FORBIDDEN = "Error from server (Forbidden): it is forbidden"
BUSY = "Error from server (Timeout): the server was unable to return a response in the time allotted"
MISSING = "Error from server (NotFound): it is not found"
PROGRAM = """#!/bin/bash
[ "$1" != kustomize ] || exec '{kustomize}' build "$2" "$3" '{build}'
command="${{*:3}}"
printf '%s\\n' "$command" >>'{log}'
while IFS=$'\\t' read -r pattern status answer; do
    if [[ $command =~ $pattern ]]; then
        [ -z "$answer" ] || printf '%b' "$answer"
        exit "$status"
    fi
done <'{answers}'
"""


@dataclass
class Deployment:
    """A copy of the project, and a cluster that answers the patterns of commands; one of None is an error."""

    folder: Path
    answers: dict[str, str | None] = field(default_factory=lambda: dict(COMPLETE))

    def run(self, overlay: str, script: str = "") -> "subprocess.CompletedProcess[str]":
        """Deploy it."""
        with self.begun(overlay, script) as process:
            said, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, said, errors)

    def begun(self, overlay: str, script: str = "") -> "subprocess.Popen[str]":
        """Begin to deploy it, on a terminal of its own."""
        # Differences are an error to kubectl.
        lines = [
            (
                key,
                str(int(value in (None, FORBIDDEN, BUSY) or key == "diff")),
                repr(MISSING if value is None else value)[1:-1],
            )
            for key, value in self.answers.items()
        ]
        (self.folder / "answers").write_text("".join("\t".join(line) + "\n" for line in lines))
        path = f"{self.folder}/programs:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OVERLAY": overlay, "CONTEXT": "somewhere"}
        command = ["bash", script or str(self.folder / "kind/deploy.sh")]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            text=True,
        )

    def commands(self) -> list[str]:
        """What the cluster was asked for."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def changes(self) -> list[str]:
        """What the cluster was asked to change."""
        return [line for line in self.commands() if re.search(r"(^| )(apply(?! view)|create|delete|patch|exec) ", line)]

    def objects(self) -> list[Object]:
        """What was to be applied."""
        return list(yaml.safe_load_all((self.folder / "build/objects.yaml").read_text()))


@pytest.fixture(scope="module")
def kustomize() -> str:
    """The program that `kubectl kustomize` has in itself."""
    go, folder = Path(sys.executable).with_name("go"), ROOT / "tests/manifests"
    run = subprocess.run([go, "tool", "-n", "kustomize"], capture_output=True, check=True, cwd=folder, text=True)
    return run.stdout.strip()


@pytest.fixture
def deployment(tmp_path: Path, kustomize: str) -> Deployment:
    for name in ("kind", "knative"):
        # Somebody's own overlay is none of the project's.
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("local"))
    (tmp_path / "build").mkdir()
    images = [{"name": name, "newName": f"registry/{name}", "newTag": "0123"} for name in BUILT]
    (tmp_path / "build/images.yaml").write_text(yaml.safe_dump({"images": images}))
    program = tmp_path / "programs" / "kubectl"
    program.parent.mkdir()
    program.write_text(
        PROGRAM.format(
            kustomize=kustomize,
            build=str((tmp_path / "build").resolve()),
            log=str(tmp_path / "log"),
            answers=str(tmp_path / "answers"),
        )
    )
    program.chmod(0o755)
    return Deployment(tmp_path)


@pytest.mark.parametrize("overlay", ["kind", "eventing", "production", "example"])
def test_it_goes_through_where_the_cluster_has_all_of_it(deployment: Deployment, overlay: str) -> None:
    run = deployment.run(overlay)
    assert (run.returncode, run.stderr) == (0, "")
    assert [line.split()[:2] for line in run.stdout.splitlines()] == [
        [step, "done"] for step in ("Database", "Migrations", "Functions")
    ]
    assert deployment.changes()


@pytest.mark.parametrize("overlay", ["kind", "eventing", "production"])
def test_a_timer_begins_when_what_it_calls_is_ready(deployment: Deployment, overlay: str) -> None:
    assert deployment.run(overlay).returncode == 0
    commands = deployment.commands()
    ready = next(number for number, command in enumerate(commands) if " wait ksvc " in command)
    applied = [(number, command) for number, command in enumerate(commands) if command.startswith("apply ")]
    first = next(number for number, command in applied if not re.search(EXCEPT_TIMERS, command))
    assert ready < first
    assert all(
        timer["metadata"]["labels"]["app.kubernetes.io/component"] == "timer"
        for timer in of_kind(deployment.objects(), "CronJob").values()
    )


SERVING = r"get --raw /apis/serving.knative.dev/v1$"
LACKING: dict[str, tuple[str, dict[str, str | None], str]] = {
    "Serving": ("kind", {SERVING: None}, "Knative Serving (serving.knative.dev/v1): make up"),
    "Eventing": (
        "eventing",
        {r"/apis/eventing.knative.dev/v1$": None},
        "Knative Eventing (eventing.knative.dev/v1): make eventing",
    ),
    "the operator's definition": (
        "kind",
        {r"/apis/acid.zalan.do/v1$": None},
        "The Postgres operator (acid.zalan.do/v1), in the namespace default",
    ),
    "the operator": (
        "kind",
        {r"get pods -l name=postgres-operator": ""},
        "A Postgres operator that runs in the namespace default",
    ),
    "the operator's Endpoints": (
        "kind",
        {r"get configmap postgres-operator": "true"},
        "That the Postgres operator keeps in Endpoints who leads",
    ),
    "Kourier": ("production", {r"get namespace kourier-system": None}, "Kourier, the ingress of Knative"),
    "Kourier's use": (
        "production",
        {r"get configmap config-network": "istio"},
        "That Knative uses Kourier: kubectl --context somewhere",
    ),
    "a class of volumes": ("kind", {r"get storageclass": "no default"}, "A default StorageClass"),
    "Retry-After": (
        "eventing",
        {r"get configmap config-features": "disabled"},
        "That Knative Eventing honours Retry-After",
    ),
    "tokens": ("production", {r"get secret tokens ": ""}, "The Secret tokens, with tokens that clients send"),
    "a token": ("production", {r"get secret tokens ": "tokens write admin"}, "The key read of the Secret tokens"),
    "other tokens": (
        "example",
        {r"get secret tokens-of-the-house ": ""},
        "The Secret tokens-of-the-house, with tokens",
    ),
    "a certificate": (
        "example",
        {r"get secret temperature-db-tls ": ""},
        "The Secret temperature-db-tls: docs/kubernetes.md",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_the_cluster_lacks_is_said_before_anything_is_changed(deployment: Deployment, case: str) -> None:
    overlay, answers, sentence = LACKING[case]
    deployment.answers = {**answers, **{key: value for key, value in COMPLETE.items() if key not in answers}}
    run = deployment.run(overlay)
    assert (run.returncode, run.stdout, deployment.changes()) == (1, "", [])
    first, said = run.stderr.splitlines()
    assert first == "Nothing was changed. The cluster of somewhere lacks:"
    assert said.startswith(sentence)


def test_all_that_is_missing_is_said_at_once(deployment: Deployment) -> None:
    deployment.answers = {r"get --raw /readyz": "ok", r"get ": None}
    run = deployment.run("production")
    assert deployment.changes() == []
    lines = run.stderr.splitlines()
    assert len(lines) == 8, run.stderr
    assert "kubectl --context somewhere create namespace temperature" in lines[-2]


@pytest.mark.parametrize("overlay", ["eventing", "production"])
@pytest.mark.parametrize("said", [FORBIDDEN, BUSY])
def test_what_nobody_says_to_this_user_is_taken_for_the_best(deployment: Deployment, said: str, overlay: str) -> None:
    deployment.answers = {
        r"get (namespace|storageclass|secret|pods -l name|configmap config|--raw /apis)": said,
        **deployment.answers,
    }
    run = deployment.run(overlay)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("there", "made"),
    [
        ("", r"-n temperature create secret generic tokens --from-literal=read=\w{64} --from-literal=write=\w{64}"),
        ("tokens admin read", r'-n temperature patch secret tokens -p {"stringData": {"write": "\w{64}"}}'),
    ],
)
def test_the_command_that_makes_what_is_missing_makes_it(deployment: Deployment, there: str, made: str) -> None:
    deployment.answers["get secret tokens "] = there
    said = deployment.run("production").stderr.splitlines()[1]
    _, _, command = said.partition(": kubectl")
    before = len(deployment.commands())
    path = f"{deployment.folder}/programs:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", f"kubectl{command}"], check=True, env={**os.environ, "PATH": path})
    (asked,) = deployment.commands()[before:]
    assert re.fullmatch(re.escape(made).replace(re.escape(r"\w{64}"), r"\w{64}"), asked)


def test_what_was_changed_on_the_cluster_is_said_before_it_is_set_back(deployment: Deployment) -> None:
    lines = [
        "--- live",
        "+++ merged",
        "@@ -1 +1 @@",
        "-  generation: 4",
        "+  generation: 5",
        "-   value: debug",
        "+   value: info",
    ]
    deployment.answers |= {
        r"get ksvc,postgresql": "service.serving.knative.dev/average\nservice.serving.knative.dev/watch\n",
        r"view-last-applied service.serving.knative.dev/average": "average",
        r"diff": "\n".join(lines),
    }
    run = deployment.run("kind")
    assert run.returncode == 0
    said, _, steps = run.stdout.partition("Database")
    assert "docs/kubernetes.md#an-overlay-of-your-own" in said
    assert said.splitlines()[-3:] == ["service.serving.knative.dev/watch", "-   value: debug", "+   value: info"]
    assert "generation" not in said and "Functions" in steps


def test_what_a_shell_and_a_kubectl_are_told_elsewhere_changes_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of the same name, and programs and options of one's own.
    (deployment.folder / "src/kind").mkdir(parents=True)
    monkeypatch.setenv("CDPATH", f".:{deployment.folder}/src")
    monkeypatch.setenv("KUBECTL_EXTERNAL_DIFF", "colordiff")
    program = deployment.folder / "programs/kubectl"
    program.write_text(
        f'{program.read_text()}printf "%s" "${{KUBECTL_EXTERNAL_DIFF}} ${{KUBERC}}" >"{deployment.folder}/told"\n'
    )
    run = deployment.run("kind", script="kind/deploy.sh")
    assert (run.returncode, run.stderr) == (0, "")
    assert (deployment.folder / "told").read_text() == " off"


def test_an_overlay_of_ones_own_may_be_anywhere(deployment: Deployment) -> None:
    own = deployment.folder / "elsewhere"
    shutil.copytree(deployment.folder / "knative/overlays/example", own)
    file = own / "kustomization.yaml"
    file.write_text(
        file.read_text()
        .replace("../production", "../knative/overlays/production")
        .replace("../../tls", "../knative/tls")
    )
    assert deployment.run(str(own)).returncode == 0
    objects = deployment.objects()
    shutil.copytree(deployment.folder / "knative/overlays/example", deployment.folder / "knative/overlays/local")
    assert deployment.run("local").returncode == 0
    assert objects == deployment.objects()
    assert of_kind(objects, "postgresql")["temperature-db"]["spec"]["numberOfInstances"] == 3


def test_an_overlay_that_is_not_there_is_named(deployment: Deployment) -> None:
    run = deployment.run("locale")
    assert run.returncode == 1
    assert run.stderr.startswith("There is no overlay locale: neither knative/overlays/locale nor locale has")
    assert deployment.commands() == []


@pytest.mark.parametrize(
    ("volume", "job", "refused"),
    [
        ("", None, True),
        ("persistentvolumeclaim/pgdata-temperature-db-0", "", True),
        ("persistentvolumeclaim/x", None, False),
    ],
    ids=["after the data was removed", "while its backup is restored", "before anything was removed"],
)
def test_nothing_is_deployed_between_the_end_of_a_database_and_the_restore_of_its_backup(
    deployment: Deployment, volume: str, job: str | None, refused: bool
) -> None:
    deployment.answers |= {
        r"get postgresql temperature-db .*numberOfInstances": "0",
        r"get pvc pgdata-temperature-db-0": volume,
        r"get job restore": job,
        r"wait job/restore --for condition=Complete": None,
    }
    run = deployment.run("production")
    assert (run.returncode, deployment.changes() == []) == (int(refused), refused)
    assert run.stderr.endswith("make recover REPLACE=true CONTEXT=somewhere\n") or not refused


def test_a_pooler_that_goes_away_with_its_overlay_stops_nothing(deployment: Deployment) -> None:
    program = deployment.folder / "programs/kubectl"
    there = deployment.folder / "pooler"
    there.touch()
    gone = f'[[ $command != *"rollout status deployment -l cluster-name="* ]] || ! rm "{there}" 2>/dev/null || exit 1'
    program.write_text(program.read_text().replace("while ", f"{gone}\nwhile "))
    run = deployment.run("kind")
    assert (run.returncode, run.stderr, there.exists()) == (0, "", False)


def test_what_another_overlay_had_is_removed_but_for_data_and_what_made_it(deployment: Deployment) -> None:
    assert deployment.run("eventing").returncode == 0
    removed = set(re.findall(r"--prune-allowlist \S+/(\w+)", "\n".join(deployment.commands())))
    kinds = {each["kind"] for each in deployment.objects()}
    assert kinds - removed == {"Namespace", "PersistentVolumeClaim", "postgresql", "Job"}


def of_a_database_that_runs(image: str) -> dict[str, str | None]:
    """What a cluster says of its database."""
    return {
        r"get endpoints temperature-db": "temperature-db-0",
        r"get postgresql temperature-db .*dockerImage": image,
        r"get pod temperature-db-0 .*phase": "Running",
    }


def waiting(pod: str, reason: str, message: str) -> str:
    """What a cluster says of a pod whose container does not start."""
    return f"{pod}\t\t\t\tcontainer\t{reason}\t{message}\n"


def without_patience(deployment: Deployment) -> None:
    """What does not start is given up at once."""
    steps = deployment.folder / "kind/steps.sh"
    steps.write_text(re.sub(r"(?m)^((START|NODE|OPERATOR)_SECONDS)=.*", r"\1=0", steps.read_text()))


def test_an_image_of_the_database_that_cannot_be_pulled_ends_no_instance(deployment: Deployment) -> None:
    without_patience(deployment)
    deployment.answers |= of_a_database_that_runs("registry/database:old") | {
        r"get pods -l app.kubernetes.io/name=database-image": waiting("database-image", "ErrImagePull", "not found."),
    }
    run = deployment.run("kind")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-2:] == [
        "database-image does not start (ErrImagePull): not found. "
        "More: kubectl --context somewhere -n temperature describe pod database-image",
        "Nothing was changed, and the database goes on with the image that it has",
    ]
    assert deployment.changes() == [
        "-n temperature delete pod database-image --ignore-not-found",
        "apply -f -",
        "-n temperature delete pod database-image --ignore-not-found --wait=false",
    ]


@pytest.mark.parametrize(
    ("image", "tried"), [("registry/database:old", True), ("registry/database:0123", False), ("", False)]
)
def test_an_image_of_the_database_is_tried_where_it_takes_the_place_of_another(
    deployment: Deployment, image: str, tried: bool
) -> None:
    deployment.answers |= {r"get pod database-image": "sha256:0123"}
    if image:
        deployment.answers |= of_a_database_that_runs(image)
    run = deployment.run("kind")
    assert (run.returncode, run.stderr) == (0, "")
    removed = "-n temperature delete pod database-image --ignore-not-found --wait=false"
    assert (removed in deployment.commands()) == tried


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            {
                r"get ksvc .*latestCreatedRevisionName": "average-00001 ingest-00002",
                r"get pods -l .*in \(average-00001,ingest-00002\)": waiting(
                    "ingest-2-x", "ImagePullBackOff", "Back-off"
                ),
                r"wait ksvc": None,
            },
            "ingest-2-x does not start (ImagePullBackOff): Back-off. "
            "More: kubectl --context somewhere -n temperature describe pod ingest-2-x",
        ),
        (
            {
                r"get pods -l .*spilo": "temperature-db-0\t\tUnschedulable\t1 Insufficient memory.\n",
                r"wait pod -l .*spilo": None,
            },
            "temperature-db-0 does not start (Unschedulable): 1 Insufficient memory. "
            "More: kubectl --context somewhere -n temperature describe pod temperature-db-0",
        ),
        (
            {
                r"get pods -l job-name=migrations -o jsonpath": waiting("migrations-x", "CrashLoopBackOff", "back-off"),
                r"wait job/migrations": None,
            },
            "migrations-x does not start (CrashLoopBackOff): "
            "kubectl --context somewhere -n temperature logs migrations-x -c container --previous",
        ),
        (
            {r"get postgresql .*jsonpath=.*ClusterStatus": "UpdateFailed", r"wait postgresql": None},
            "The Postgres operator could not do what the manifest says (UpdateFailed): "
            "kubectl --context somewhere -n default logs deployment/postgres-operator --tail 20",
        ),
        (
            {r"get ksvc .*conditions": "watch\tFalse\tIt is said why\ningest\tUnknown\t\n", r"wait ksvc": None},
            "The function watch is not ready: It is said why",
        ),
    ],
    ids=["a function", "the database", "the migrations", "what the operator failed", "what Knative says"],
)
def test_what_does_not_start_is_said_long_before_the_time_is_over(
    deployment: Deployment, answers: dict[str, str | None], said: str
) -> None:
    without_patience(deployment)
    deployment.answers |= answers
    run = deployment.run("kind")
    assert (run.returncode, run.stderr.splitlines()[-1]) == (1, said)


def test_ctrl_c_ends_what_waits_for_something(deployment: Deployment) -> None:
    """To `kubectl wait` it is a failure like any other."""
    program, waiting = deployment.folder / "programs/kubectl", deployment.folder / "waiting"
    waits = f"[[ $command != *'wait ksvc'* ]] || {{ trap 'exit 1' INT; echo >>'{waiting}'; sleep 60; }}"
    program.write_text(program.read_text().replace("while ", f"{waits}\nwhile "))
    with deployment.begun("kind") as process:
        wait_until(waiting.exists)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(5) != 0
    assert waiting.read_text() == "\n"


def test_ctrl_c_leaves_no_pod_of_an_image_that_was_being_tried(deployment: Deployment) -> None:
    deployment.answers |= of_a_database_that_runs("registry/database:old")
    with deployment.begun("kind") as process:
        wait_until(lambda: any("get pod database-image" in command for command in deployment.commands()))
        os.killpg(process.pid, signal.SIGINT)
        process.wait(5)
    assert deployment.changes()[-1] == "-n temperature delete pod database-image --ignore-not-found --wait=false"


@pytest.mark.parametrize("sink", ["", "http://sink.example.com/"])
@pytest.mark.parametrize("rules", ["", '[{"building_id": "B1", "above": 28}]'])
def test_rules_of_alarms_and_the_sink_that_watch_had_are_kept(deployment: Deployment, rules: str, sink: str) -> None:
    deployment.answers |= {
        r"get configmap alarms": None,
        r"get ksvc watch .*ALARM_RULES": rules,
        r"get ksvc watch .*ALARM_SINK_URL": sink,
    }
    assert deployment.run("kind").returncode == 0
    (made,) = [line for line in deployment.changes() if "create configmap alarms" in line]
    kept = f" --from-literal=rules.json={rules or '[]'}" + (f" --from-literal=sink={sink}" if sink else "")
    assert made.endswith(f"create configmap alarms{kept}")


AWAY = 'Error: failed calling webhook "webhook.serving.knative.dev": connection refused'


@pytest.mark.parametrize("times", [2, 1000])
def test_a_webhook_that_does_not_answer_is_waited_for(deployment: Deployment, times: int) -> None:
    script, patience = deployment.folder / "kind/steps.sh", 5 if times == 2 else 1
    script.write_text(script.read_text().replace("WEBHOOK_SECONDS=60", f"WEBHOOK_SECONDS={patience}"))
    program, count = deployment.folder / "programs/kubectl", deployment.folder / "count"
    refuses = (
        f'[[ $command != *"component!=timer"* ]] || {{ echo >>"{count}"; [ $(wc -l <"{count}") -gt {times} ]; }} || '
        f"{{ echo '{AWAY}' >&2; exit 1; }}"
    )
    program.write_text(program.read_text().replace("while ", f"{refuses}\nwhile "))
    run = deployment.run("kind")
    assert (run.returncode, count.read_text().count("\n")) == ((0, 3) if times == 2 else (1, 2))
    assert run.stderr.splitlines()[:1] == ([] if times == 2 else [AWAY.removeprefix("Error: ")])


def test_an_instance_that_cannot_start_is_made_anew_by_what_mends_it(deployment: Deployment) -> None:
    """The operator waits for it, and then does nothing about one that does not answer."""
    deployment.answers |= {
        r"get pods -l .*spilo": "temperature-db-0\t\tUnschedulable\t1 Insufficient memory.\n",
        r"get statefulset temperature-db .*updateRevision": "temperature-db-2",
    }
    assert deployment.run("kind").returncode == 0
    changes = deployment.changes()
    operator = changes.index("-n default delete pod -l name=postgres-operator --grace-period 5")
    instances = "cluster-name=temperature-db,application=spilo,controller-revision-hash!=temperature-db-2"
    assert operator < changes.index(
        f"-n temperature delete pod -l {instances} --field-selector status.phase=Pending --wait=false"
    )


@pytest.mark.parametrize("missing", ["writer", "owner", ""])
def test_a_secret_of_the_operator_that_was_removed_is_made_anew_at_once(deployment: Deployment, missing: str) -> None:
    deployment.answers |= {
        r"get postgresql .*ClusterStatus": "Running",
        rf"get secret temperature-{missing or 'nobody'}-user": None,
    }
    assert deployment.run("kind").returncode == 0
    restarted = "-n default delete pod -l name=postgres-operator --grace-period 5"
    assert (restarted in deployment.commands()) == bool(missing)


@pytest.mark.parametrize("status", ["Running", "SyncFailed"])
def test_a_volume_that_the_operator_left_as_it_was_is_named(deployment: Deployment, status: str) -> None:
    """When it looks again, it takes that for a failure. Nothing waits for what never comes."""
    without_patience(deployment)
    deployment.answers |= {
        r"get postgresql .*ClusterStatus": status,
        r"wait postgresql/.*=Running": "" if status == "Running" else None,
        r"get statefulset temperature-db .*volumeClaimTemplates": "6Gi\t",
        r"get pvc -l": "pgdata-temperature-db-0\t5Gi\tstandard\n",
    }
    run = deployment.run("kind")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == (
        "The volume pgdata-temperature-db-0 has 5Gi of the class standard, and the manifest says 6Gi: "
        "docs/kubernetes.md#another-volume"
    )
