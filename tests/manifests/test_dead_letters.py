"""The sink of dead letters, run as its image runs it with what the manifests say."""

import subprocess
import sys
from pathlib import Path

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from tests.manifests.support import environment, functions, of_kind, overlay
from tests.support import ROOT, free_port, listens, wait_until


def test_a_dead_letter_is_logged_with_the_reason(tmp_path: Path) -> None:
    objects = overlay("eventing")
    (source,) = next(
        value["data"].values()
        for name, value in of_kind(objects, "ConfigMap").items()
        if name.startswith("dead-letters")
    )
    settings = environment(functions(objects)["dead-letters"]["spec"]["template"])
    file = tmp_path / Path(settings["FUNCTION_SOURCE"]).name
    file.write_text(source)
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "shared.server"],
            env={**settings, "FUNCTION_SOURCE": str(file), "PORT": str(port), "PYTHONPATH": str(ROOT / "functions")},
            stderr=output,
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        event = CloudEvent({"type": "dev.x", "source": "/x", "id": "lost", "knativeerrorcode": "422"}, {"a": 1})
        headers, body = to_binary(event)
        wait_until(lambda: server.poll() is not None or listens(port), seconds=30)
        answer = requests.post(address, data=body, headers=headers, timeout=10)
        assert (answer.status_code, answer.content) == (204, b"")
        assert requests.post(address, data=b"no event", timeout=10).status_code == 400
    finally:
        server.terminate()
        server.wait(10)
    said = log.read_text()
    assert "'id': 'lost'" in said and "'knativeerrorcode': '422'" in said
    assert "Traceback" not in said
