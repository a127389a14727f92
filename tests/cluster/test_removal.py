"""Wrong readings are removed by whoever has the token, as docs/kubernetes.md says it."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cluster import cluster
from tests.cluster.cluster import asked, average, call, new_room, reading

READINGS = "/v1/temperature/readings"


def tokens() -> dict[str, str]:
    """What the Secret `tokens` has."""
    found = cluster.kubectl("get", "secret", "tokens", "--ignore-not-found", "--output", "name")
    return dict(cluster.get("secret", "tokens").get("data", {})) if found else {}


@pytest.fixture(scope="module")
def admin(expendable: None) -> Iterator[dict[str, str]]:
    """The header of somebody who may remove readings; in the end nobody may, if nobody might before."""
    before = tokens()
    if "admin" in before:
        yield {"Authorization": f"Bearer {base64.b64decode(before['admin']).decode()}"}
        return
    make, take = cluster.documented("Removing readings")
    try:
        # Without the request, which comes last.
        token = cluster.run_commands(make.partition("curl")[0] + 'printf "%s" "$ADMIN_TOKEN"').splitlines()[-1]
        # Whoever sends and asks still may.
        assert tokens() == {**before, "admin": base64.b64encode(token.encode()).decode()}
        yield {"Authorization": f"Bearer {token}"}
    finally:
        cluster.run_commands(take)
        assert tokens() == before


def remove(headers: dict[str, str], room_id: str, **more: str) -> requests.Response:
    """Not by `call`, which has a token of its own."""
    return requests.delete(
        cluster.GATEWAY + READINGS,
        params={**asked(room_id), **more},
        headers={"Host": cluster.host("average"), **headers},
        timeout=60,
    )


def send(room_id: str, temperature: float, minutes: int) -> None:
    answer = call("ingest", "POST", "/v1/temperature", json=reading(room_id, temperature, minutes=minutes))
    assert answer.status_code == 201, answer.text


def test_wrong_readings_are_removed_and_do_not_come_back(admin: dict[str, str]) -> None:
    room_id = new_room()
    for minutes, temperature in enumerate((20.0, 21.0, 45.0, 46.0)):
        send(room_id, temperature, minutes)
    looked = remove(admin, room_id, above="40", dry_run="true")
    assert (looked.status_code, looked.json()["readings"]) == (200, 2), looked.text
    assert average(room_id)["count"] == 4

    removed = remove(admin, room_id, above="40", reason="e2e")
    assert (removed.status_code, removed.json()["removed"]) == (200, 2), removed.text
    send(room_id, 45.0, 2)
    found = average(room_id)
    assert (found["count"], found["average_temperature"], found["max"]) == (2, 20.5, 21.0)

    listed = requests.get(
        f"{cluster.GATEWAY}/v1/temperature/removals",
        headers={"Host": cluster.host("average"), **admin},
        timeout=60,
    ).json()
    newest: dict[str, Any] = listed["removals"][0]
    assert (newest["room_id"], newest["removed"], newest["reason"]) == (room_id, 2, "e2e")
    assert newest["finished"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer guessed"}], ids=["none", "another"])
def test_nobody_removes_readings_without_the_token(admin: dict[str, str], headers: dict[str, str]) -> None:
    room_id = new_room()
    send(room_id, 20.0, 0)
    assert remove(headers, room_id).status_code in (401, 403)
    assert average(room_id)["count"] == 1
