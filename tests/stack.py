"""`make run` as a process with an address and a folder, and a reading to send to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.support import ROOT, free_port

READING: dict[str, Any] = {
    "building_id": "B9",
    "room_id": "901",
    "temperature": 22.5,
    "timestamp": "2024-12-01T12:34:56.000Z",
}
ASKED = {"building_id": "B9", "room_id": "901", "start": "2024-12-01T12:00:00Z", "end": "2024-12-01T13:00:00Z"}


class Stack:
    """A running `python -m local`."""

    def __init__(self, folder: Path, port: int | None = None, who: Any = None, **environment: str) -> None:
        """Start it by whom the arguments of subprocess in `who` say."""
        self.address = f"http://localhost:{port or free_port()}"
        self.folder = folder
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [environment.pop("INTERPRETER", sys.executable), "-m", "local"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": "functions:.",
                "PORT": self.address.rpartition(":")[2],
                "DATA_DIR": str(folder),
                # What it says is to be seen at once, whatever the environment says.
                "PYTHONUNBUFFERED": "",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **(who or {}),
        )

    def wait_for(self, beginning: str) -> str:
        """Read lines until one begins so."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(beginning):
                return line
        raise AssertionError("\n".join(self.lines))

    def stop(self, number: signal.Signals = signal.SIGINT) -> str:
        """End it with a signal and return what it still had to say."""
        self.process.send_signal(number)
        try:
            return self.process.communicate(timeout=10)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def post(self, reading: dict[str, Any]) -> requests.Response:
        """Have a reading stored."""
        return requests.post(f"{self.address}/v1/temperature", json=reading, timeout=20)

    def average(self) -> Any:
        return requests.get(f"{self.address}/v1/temperature/average", params=ASKED, timeout=20).json()
