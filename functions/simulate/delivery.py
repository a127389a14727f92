"""Readings on their way to a sink: each a CloudEvent, tried until the sink takes it or is given up."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, Protocol, Self
from urllib.parse import quote

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from shared.readings import Reading, written

EVENT_TYPE = "dev.temperature.reading.v1"

WORKERS = 8
TIMEOUTS = (3.05, 15)
"""Seconds to connect to the sink, and to wait for its answer."""
PATIENCE = 30
"""Seconds that a sink may take nothing before it is given up."""
MOST_FAILURES = 20
"""So many readings failing in a row mean that the sink is not there, or takes no readings."""


class Readings(Protocol):
    """Readings whose number is known beforehand, such as a list."""

    def __len__(self) -> int:
        """How many readings there are."""

    def __iter__(self) -> Iterator[Reading]:
        """Go through the readings."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of readings.

    The sink took `emitted` of them and `failed` of them it did not take; `untried` of those that failed were not even
    sent, because the sink had been given up. `retried` counts attempts beyond the first at a reading, and `reason` is
    why the last failure was one.
    """

    emitted: int
    retried: int
    failed: int
    untried: int = 0
    reason: str = ""

    def __str__(self) -> str:
        """The outcome in words."""
        words = f"{self.emitted} emitted, {self.retried} retried, {self.failed} failed"
        if self.reason:
            words += f", the last with {self.reason}"
        if self.untried:
            words += f"; the sink was given up and {self.untried} of those that failed were not tried"
        return words


def emit(
    readings: Readings,
    sink: str,
    *,
    extensions: Mapping[str, str] | None = None,
    token: str = "",
    patience: float = PATIENCE,
    progress: Callable[[int], object] | None = None,
    stop: Event | None = None,
) -> Outcome:
    """Deliver every reading to the sink, an http or https URL, and return once all of them are taken or have failed.

    Every event has the extensions, and is sent with the bearer token, if there is one. A sink that takes nothing for
    `patience` seconds, or fails too many readings in a row, is given up; and so is every sink once another thread sets
    `stop`. `progress` is called with the number of readings done since its last call, by a thread at a time.
    """
    stop = stop or Event()
    delivery = _Delivery(readings, sink, extensions or {}, token, patience, progress, stop)
    workers = max(1, min(WORKERS, len(readings)))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for worker in as_completed([pool.submit(delivery.work) for _ in range(workers)]):
                worker.result()
        finally:
            # Whatever ends the wait, Ctrl-C too, ends the workers.
            stop.set()
    return Outcome(
        emitted=delivery.emitted,
        retried=delivery.retried,
        failed=len(readings) - delivery.emitted,
        untried=len(readings) - delivery.emitted - delivery.failed,
        reason=delivery.reason,
    )


def event(reading: Reading, extensions: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a reading's CloudEvent in binary mode.

    Source and id together are the reading, so that a redelivery is known for one.
    """
    building, room = quote(reading["building_id"], safe=""), quote(reading["room_id"], safe="")
    timestamp = written(reading["timestamp"])
    attributes = {
        **{name: _header(value) for name, value in extensions.items()},
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": _header(f"/buildings/{building}/rooms/{room}"),
        "id": f"{timestamp}/{reading['temperature']}",
        "time": timestamp,
        "datacontenttype": "application/json",
    }
    return to_binary(CloudEvent(attributes, {**reading, "timestamp": timestamp}))


def _header(value: str) -> str:
    """The value of an attribute as a header holds it (CloudEvents HTTP binding, 3.1.3.2); the SDK leaves that to us."""
    return quote(value, safe="!#$&'()*+,/:;<=>?@[\\]^`{|}")


class _Delivery:
    """One call of `emit`: what its workers share."""

    def __init__(
        self,
        readings: Readings,
        sink: str,
        extensions: Mapping[str, str],
        token: str,
        patience: float,
        progress: Callable[[int], object] | None,
        stop: Event,
    ) -> None:
        self.emitted = self.retried = self.failed = 0
        self.reason = ""
        self._readings = iter(readings)
        self._sink = sink
        self._extensions = extensions
        self._token = token
        self._patience = patience
        self._progress = progress
        self._stop = stop
        self._lock = Lock()
        self._failed_in_a_row = 0
        self._took_last = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be tried."""
        return (
            self._stop.is_set()
            or self._failed_in_a_row >= MOST_FAILURES
            or time.monotonic() - self._took_last > self._patience
        )

    def work(self) -> None:
        """Deliver readings until there are no more."""
        with requests.Session() as session:
            adapter = HTTPAdapter(max_retries=_Attempts(self))
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            # Once, not for every reading: looking at the environment and the URL takes longer than all the rest.
            environment = session.merge_environment_settings(self._sink, {}, False, None, None)
            template = session.prepare_request(requests.Request("POST", self._sink))
            if self._token:
                template.headers["Authorization"] = f"Bearer {self._token}"
            connections = adapter.get_connection_with_tls_context(
                template, environment["verify"], environment["proxies"], environment["cert"]
            )
            # The session leaves its connections to the garbage collector, which an idle function may not run for long.
            with closing(connections):
                while (reading := self._next()) is not None:
                    request = template.copy()
                    headers, body = event(reading, self._extensions)
                    request.headers.update(headers)
                    request.prepare_body(body, None)
                    self._count(_failure(session, request, environment))

    def retry(self) -> None:
        """Count an attempt beyond the first at a reading."""
        with self._lock:
            self.retried += 1

    def _next(self) -> Reading | None:
        with self._lock:
            return None if self.over else next(self._readings, None)

    def _count(self, failure: str) -> None:
        with self._lock:
            if failure:
                self.reason = failure
                self.failed += 1
                self._failed_in_a_row += 1
            else:
                self.emitted += 1
                self._failed_in_a_row = 0
                self._took_last = time.monotonic()
            if self._progress:
                self._progress(1)


class _Attempts(Retry):
    """The attempts at one reading: urllib3's, counted, and none left once the sink is given up."""

    def __init__(self, delivery: _Delivery, **state: Any) -> None:
        self._delivery = delivery
        settings: dict[str, Any] = {
            "total": 5,
            "allowed_methods": None,
            "status_forcelist": {429, 502, 503, 504},
            "raise_on_status": False,
            "backoff_factor": 0.2,
            "backoff_jitter": 0.1,
            "retry_after_max": 10,
        }
        super().__init__(**settings | state)

    def new(self, **state: Any) -> Self:
        """The attempts left after one; urllib3 calls this in `increment`."""
        return super().new(delivery=self._delivery, **state)

    def increment(self, *attempt: Any, **named: Any) -> Self:
        """The attempts left after the one that failed. Raises MaxRetryError when there are none."""
        if self._delivery.over:
            self.total = 0
        left = super().increment(*attempt, **named)
        self._delivery.retry()
        return left


def _failure(session: requests.Session, request: requests.PreparedRequest, environment: Mapping[str, Any]) -> str:
    """Send the request and say why it failed, as near to the cause as is known; nothing if it did not."""
    try:
        # A redirect would be followed with a GET, whose answer says nothing about the reading.
        response = session.send(request, timeout=TIMEOUTS, allow_redirects=False, **environment)
    except (requests.RequestException, HTTPError) as error:
        wrapped = error.args[0] if error.args else error
        return type(getattr(wrapped, "reason", error)).__name__
    return "" if 200 <= response.status_code < 300 else f"status {response.status_code}"
