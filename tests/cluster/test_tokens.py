"""The tokens of those who send are exchanged while they send, as docs/kubernetes.md says it."""

import base64
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.cluster import cluster
from tests.cluster.cluster import Devices, call, new_room, reading


def listed() -> str:
    """What the Secret has for those who send."""
    secret = cluster.kubectl("get", "secret", "tokens", "--ignore-not-found", "--output", "jsonpath={.data.write}")
    return base64.b64decode(secret).decode()


@pytest.fixture
def before(expendable: None) -> Iterator[str]:
    """The token there was, which is the one there is in the end."""
    token = listed()
    if not token or "," in token:
        pytest.skip("needs one token of those who send, as the production overlay does")
    yield token
    cluster.patch("secret", "tokens", {"stringData": {"write": token}})
    cluster.kubectl("delete", "pod", "--selector", "serving.knative.dev/service in (ingest, watch)")


def test_tokens_are_exchanged_while_devices_send(before: str, say: Callable[[object], None]) -> None:
    add, end = cluster.documented("Other tokens")
    with Devices() as old:
        old.go_on(60)
        token = cluster.run_commands(add + 'printf "%s" "$WRITE_TOKEN"').splitlines()[-1]
        assert listed() == f"{token},{before}"
        with Devices() as new:
            assert new.headers["Authorization"] == f"Bearer {token}"
            new.go_on(60)
            old.go_on(60)
            time.sleep(5)
    for devices in (old, new):
        say(devices)
        devices.assert_kept()
    with Devices() as new:
        new.go_on(60)
        cluster.run_commands(f"WRITE_TOKEN={token}\n{end}")
        assert listed() == token
        new.go_on(60)
        time.sleep(5)
    say(new)
    new.assert_kept()
    answer = call("ingest", "POST", "/v1/temperature", json=reading(new_room()))
    assert answer.status_code == 201
    headers = {"Host": cluster.host("ingest"), "Authorization": f"Bearer {before}"}
    refused = requests.post(f"{cluster.GATEWAY}/v1/temperature", json=reading(new_room()), headers=headers, timeout=60)
    assert refused.status_code == 401
