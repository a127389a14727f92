"""A steady load of readings, each of which is known, and of questions about them."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from tests.support import wait_until

BEGIN = datetime(2024, 12, 1, tzinfo=UTC)
DAYS = {"start": "2024-12-01T00:00:00Z", "end": "2025-12-01T00:00:00Z"}
PAUSE = 0.01
"""Seconds between an answer and the next request of a device."""
PATIENCE = 30
"""Seconds after which a client gives up waiting for an answer: more than any function takes."""


@dataclass(frozen=True, order=True)
class Reading:
    """A reading of the building that a load is about."""

    room_id: str
    timestamp: datetime
    temperature: float

    @staticmethod
    def of(room_id: str, number: int) -> "Reading":
        """The reading of a number, another one for each."""
        return Reading(room_id, BEGIN + timedelta(seconds=number), (number * 7 % 1000 - 500) / 10)

    def json(self, building_id: str) -> dict[str, Any]:
        """The reading as devices send it."""
        return {
            "building_id": building_id,
            "room_id": self.room_id,
            "temperature": self.temperature,
            "timestamp": self.timestamp.isoformat(),
        }


@dataclass
class Load:
    """What clients sent and what they were told."""

    building_id: str
    ingest: str
    average: str
    """The addresses of the functions."""
    acknowledged: list[Reading] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By status; `503 without Retry-After`, `refused` (not connected) and `broken` (connected and not answered)."""
    steady: bool = True
    """Whether what was counted once stays: a failover takes what nobody acknowledged."""
    slowest: float = 0.0
    """Seconds until the answer that came last."""
    acknowledged_last: float = 0.0
    """When, by the monotonic clock."""
    problems: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send and ask, until the end of the context and then until every reading that was begun is acknowledged."""
        devices = [
            threading.Thread(target=self._device, args=(f"{kind}-{number}", kind), daemon=True)
            for kind, devices in (("single", 4), ("array", 1), ("event", 1))
            for number in range(devices)
        ]
        for client in [*devices, threading.Thread(target=self._person, args=("single-0",), daemon=True)]:
            client.start()
        try:
            yield
        finally:
            self._stopping.set()
            for client in devices:
                client.join(PATIENCE)
                assert not client.is_alive(), f"a reading is never acknowledged: {self.answers}"

    def wait_for_acknowledgement(self) -> float:
        """Seconds until a reading is acknowledged that was sent after now."""
        started = time.monotonic()
        # One may be on its way: it is the second that was sent after now.
        for _ in range(2):
            before = len(self.acknowledged)
            wait_until(
                lambda before=before: len(self.acknowledged) > before,  # type: ignore[misc]
                seconds=PATIENCE,
                otherwise="no reading is acknowledged any more",
            )
        return time.monotonic() - started

    def _device(self, room_id: str, kind: str) -> None:
        size = 50 if kind == "array" else 1
        headers = {"Content-Type": "application/json"}
        number = 0
        with requests.Session() as session:
            while not self._stopping.is_set():
                readings = [Reading.of(room_id, number + each) for each in range(size)]
                number += size
                contents = [reading.json(self.building_id) for reading in readings]
                if kind == "event":
                    headers |= {"ce-specversion": "1.0", "ce-id": str(number), "ce-source": "/load", "ce-type": "t"}
                body = json.dumps(contents if kind == "array" else contents[0]).encode()
                # As long as it takes: a device forgets a reading when it is acknowledged.
                while (answer := self._ask(session, "POST", self.ingest, data=body, headers=headers)) is None:
                    pass
                with self._lock:
                    self.acknowledged += readings
                if answer["accepted"] != size:
                    self.problems.append(f"{size} readings were answered with {answer}")
                time.sleep(PAUSE)

    def _person(self, room_id: str) -> None:
        counted = 0
        url = f"{self.average}/v1/temperature/average"
        asked = {"building_id": self.building_id, "room_id": room_id, **DAYS}
        with requests.Session() as session:
            while not self._stopping.is_set():
                with self._lock:
                    known = sum(reading.room_id == room_id for reading in self.acknowledged)
                if answer := self._ask(session, "GET", url, params=asked):
                    known = max(known, counted)
                    if answer["count"] < known:
                        self.problems.append(f"{answer['count']} readings are counted, {known} are known")
                    counted = answer["count"] if self.steady else 0
                time.sleep(5 * PAUSE)

    def _ask(self, session: requests.Session, method: str, url: str, **arguments: Any) -> Any:
        """The answer of a function, None for a failure, after which it may be asked again."""
        started = time.monotonic()
        pause, found = 0.1, None
        try:
            answer = session.request(method, url, timeout=PATIENCE, **arguments)
        except requests.RequestException as error:
            outcome = "refused" if "refused" in str(error) else "broken"
        else:
            outcome = str(answer.status_code)
            if answer.ok:
                found = answer.json()
            elif answer.status_code == 503 and "Retry-After" in answer.headers:
                pause = min(float(answer.headers["Retry-After"]), 0.5)
            elif answer.status_code == 503:
                outcome = "503 without Retry-After"
        with self._lock:
            self.answers[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
        if found is None:
            time.sleep(pause)
        return found
