"""What a program that was taken over could do, and who has which secret."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.manifests.support import IMAGES, KNATIVE, OVERLAYS, build, containers, of_kind, overlay, templates

CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
ROLES = {
    "average": "reader",
    "health": "monitor",
    "ingest": "writer",
    "migrations": "owner",
    "summaries": "owner",
    "watch": "watcher",
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_is_confined_and_has_a_measured_share(name: str) -> None:
    pods = templates(overlay(name))
    assert pods.keys() >= {"average", "ingest", "migrations"}
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not pod["spec"].keys() & {"hostIPC", "hostNetwork", "hostPID", "serviceAccountName"}
        # That of the image may write to a volume where there is one.
        assert pod["spec"].get("securityContext", {}) in ({}, {"fsGroup": 65532})
        for container in containers(pod):
            assert container["securityContext"] == CONFINED
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() >= {"memory"}


@pytest.mark.parametrize(("name", "secrets"), [("backup", {"standby"}), ("restore", {"postgres", "standby"})])
def test_what_keeps_and_restores_backups_is_confined_too_and_none_of_it_is_the_functions(
    name: str, secrets: set[str]
) -> None:
    objects = build(KNATIVE / name)
    (pod,) = templates(objects).values()
    (container,) = containers(pod)
    # Spilo's user postgres, whose data it is, by its number.
    assert container["securityContext"] == {**CONFINED, "runAsUser": 101, "runAsGroup": 103}
    assert (pod["spec"]["automountServiceAccountToken"], container["image"]) == (False, IMAGES["database"])
    assert set(_secrets(pod)) == {f"{user}.temperature-db.credentials.postgresql.acid.zalan.do" for user in secrets}
    # What make deploy removes, because the overlay does not have it, is chosen by this label.
    assert not any("app.kubernetes.io/part-of" in part["metadata"]["labels"] for part in objects)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_is_one_that_was_built(name: str) -> None:
    objects = overlay(name)
    used = {container["image"] for pod in templates(objects).values() for container in containers(pod)}
    used |= {database["spec"]["dockerImage"] for database in of_kind(objects, "postgresql").values()}
    assert used == set(IMAGES.values()) - ({IMAGES["simulate"]} if name == "production" else set())


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_program_has_the_secret_of_its_own_role_and_nobody_that_of_the_superuser(name: str) -> None:
    used = [(value["metadata"]["name"], set(_secrets(value))) for value in overlay(name)]
    expected = {
        program: {f"temperature-{role}-user.temperature-db.credentials.postgresql.acid.zalan.do"}
        for program, role in ROLES.items()
    }
    expected["average"] |= {"temperature-admin-user.temperature-db.credentials.postgresql.acid.zalan.do", "tokens"}
    if name == "production":
        for program in ("ingest", "average", "watch", "every-minute-watch"):
            expected.setdefault(program, set()).add("tokens")
    assert {user: secrets for user, secrets in used if secrets} == expected


def test_in_production_nobody_writes_or_reads_without_a_token() -> None:
    pods = templates(overlay("production"))
    for program, key in {"ingest": "write", "watch": "write", "every-minute-watch": "write", "average": "read"}.items():
        (variable,) = [
            variable
            for container in containers(pods[program])
            for variable in container["env"]
            if variable["name"] == f"{key.upper()}_TOKENS"
        ]
        assert variable["valueFrom"] == {"secretKeyRef": {"name": "tokens", "key": key}}


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_is_written_down(name: str) -> None:
    objects = overlay(name)
    assert of_kind(objects, "Secret") == {}
    for pod in templates(objects).values():
        for variable in (variable for container in containers(pod) for variable in container.get("env", [])):
            if re.search("PASSWORD|SECRET|TOKEN", variable["name"]):
                assert variable["valueFrom"].keys() == {"secretKeyRef"}
    # Kubernetes puts another variable in the place of $(...).
    for text in _texts(objects):
        assert not re.search(r"://[^/\s]*:[^/\s]*@|password\s*[=:](?!'\$\(\w+\)'$)", text, re.IGNORECASE)


@pytest.mark.parametrize("name", OVERLAYS)
def test_readings_are_removed_as_a_user_of_its_own_and_by_nobody_without_a_token(name: str) -> None:
    (container,) = containers(templates(overlay(name))["average"])
    variables = {variable["name"]: variable for variable in container["env"]}
    user, password, url, tokens = (
        variables[f"ADMIN_{part}"] for part in ("USER", "PASSWORD", "DATABASE_URL", "TOKENS")
    )
    secret = "temperature-admin-user.temperature-db.credentials.postgresql.acid.zalan.do"
    # Neither a secret that is not there yet nor a missing token keeps the function from answering questions.
    for variable, where, key in (
        (user, secret, "username"),
        (password, secret, "password"),
        (tokens, "tokens", "admin"),
    ):
        assert variable["valueFrom"] == {"secretKeyRef": {"name": where, "key": key, "optional": True}}
    # Only variables that came before are put into another.
    assert max(container["env"].index(user), container["env"].index(password)) < container["env"].index(url)
    # With host, database and encryption as the function has them, behind a pooler too.
    assert conninfo_to_dict(url["value"]) == {"user": "$(ADMIN_USER)", "password": "$(ADMIN_PASSWORD)"}


def _secrets(value: Any, named: bool = False) -> Iterator[str]:
    """The names that stand at or under a key that speaks of a secret."""
    if isinstance(value, dict):
        for key, part in value.items():
            secret = "secret" in key.lower()
            if isinstance(part, str):
                if secret or (named and key == "name"):
                    yield part
            else:
                yield from _secrets(part, named or secret)
    elif isinstance(value, list):
        for part in value:
            yield from _secrets(part, named)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value
