"""CloudEvents on their way to a sink, each tried until the sink takes it or is given up.

Only what is about to send imports this: the client for HTTP and the SDK cost a cold start.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event, Lock
from typing import Any, Generic, Protocol, Self, TypeVar
from urllib.parse import quote

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from shared.problems import Problem

# A delivery is logged in one line; urllib3 would add one for every attempt that fails.
logging.getLogger("urllib3").setLevel(logging.ERROR)

WORKERS = 8
TIMEOUTS = (3.05, 15)
"""Seconds to connect to the sink, and to wait for its answer."""
MOST_FAILURES = 20
"""So many events failing in a row mean that the sink is not there, or takes no such events."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """What events are made of, in a number that is known beforehand, such as a list."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[T_co]:
        """Go through them."""


@dataclass(frozen=True, slots=True)
class Sink:
    """Where events go."""

    url: str
    """Of http or https."""
    token: str
    """Sent with each event, if there is one."""
    patience: float
    """Seconds that it may take nothing before it is given up."""

    def __post_init__(self) -> None:
        """Raise Problem 503 if the URL is not one."""
        try:
            usable = (
                self.url.lower().startswith(("http://", "https://")) and requests.Request("POST", self.url).prepare()
            )
        except requests.RequestException:
            usable = False
        if not usable:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The sink is not an http or https URL")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of events.

    The sink took `emitted` of them and `failed` of them it did not take; `untried` of those that failed were not even
    sent, because the sink had been given up. `retried` counts attempts beyond the first at an event, and `reason` is
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
    items: Items[T],
    event: Callable[[T], CloudEvent],
    sink: Sink,
    *,
    workers: int = WORKERS,
    done: Callable[[T, str], object] | None = None,
    stop: Event | None = None,
) -> Outcome:
    """Deliver the event of each item to the sink, and return once all of them are taken or have failed.

    One worker keeps them in order. A sink that takes nothing for its `patience`, or fails too many events in a row, is
    given up; and so is every sink once another thread sets `stop`. `done` is called with each item that was tried and
    why it failed, which is nothing if the sink took it, by a thread at a time.
    """
    stop = stop or Event()
    delivery = _Delivery(items, event, sink, done, stop)
    workers = max(1, min(workers, len(items)))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for worker in as_completed([pool.submit(delivery.work) for _ in range(workers)]):
                worker.result()
        except BaseException:
            # Whatever ends the wait, Ctrl-C too, ends the workers.
            stop.set()
            raise
    return Outcome(
        emitted=delivery.emitted,
        retried=delivery.retried,
        failed=len(items) - delivery.emitted,
        untried=len(items) - delivery.emitted - delivery.failed,
        reason=delivery.reason,
    )


def room_event(
    kind: str, data: Mapping[str, object], identity: str, instant: str, extensions: Mapping[str, str]
) -> CloudEvent:
    """An event about the room that the data names, with the extensions.

    Source and id together are the event, so that a redelivery is known for one.
    """
    building, room = (quote(str(data[name]), safe="") for name in ("building_id", "room_id"))
    attributes = {
        **{name: _header(value) for name, value in extensions.items()},
        "specversion": "1.0",
        "type": kind,
        "source": _header(f"/buildings/{building}/rooms/{room}"),
        "id": identity,
        "time": instant,
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes, data)


def _header(value: str) -> str:
    """The value of an attribute as a header holds it (CloudEvents HTTP binding, 3.1.3.2); the SDK leaves that to us."""
    return quote(value, safe="!#$&'()*+,/:;<=>?@[\\]^`{|}")


class _Delivery(Generic[T]):
    """One call of `emit`: what its workers share."""

    def __init__(
        self,
        items: Items[T],
        event: Callable[[T], CloudEvent],
        sink: Sink,
        done: Callable[[T, str], object] | None,
        stop: Event,
    ) -> None:
        self.emitted = self.retried = self.failed = 0
        self.reason = ""
        self._items = iter(items)
        self._event = event
        self._sink = sink
        self._done = done
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
            or time.monotonic() - self._took_last > self._sink.patience
        )

    def work(self) -> None:
        """Deliver events until there are no more."""
        with requests.Session() as session:
            adapter = HTTPAdapter(max_retries=_Attempts(self))
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            # Once, not for every event: looking at the environment and the URL takes longer than all the rest.
            environment = session.merge_environment_settings(self._sink.url, {}, False, None, None)
            template = session.prepare_request(requests.Request("POST", self._sink.url))
            if self._sink.token:
                template.headers["Authorization"] = f"Bearer {self._sink.token}"
            connections = adapter.get_connection_with_tls_context(
                template, environment["verify"], environment["proxies"], environment["cert"]
            )
            # The session leaves its connections to the garbage collector, which an idle function may not run for long.
            with closing(connections):
                while (item := self._next()) is not None:
                    request = template.copy()
                    headers, body = to_binary(self._event(item))
                    request.headers.update(headers)
                    request.prepare_body(body, None)
                    self._count(item, _failure(session, request, environment))

    def retry(self) -> None:
        """Count an attempt beyond the first at an event."""
        with self._lock:
            self.retried += 1

    def _next(self) -> T | None:
        with self._lock:
            return None if self.over else next(self._items, None)

    def _count(self, item: T, failure: str) -> None:
        with self._lock:
            if failure:
                self.reason = failure
                self.failed += 1
                self._failed_in_a_row += 1
            else:
                self.emitted += 1
                self._failed_in_a_row = 0
                self._took_last = time.monotonic()
            if self._done:
                self._done(item, failure)


class _Attempts(Retry):
    """The attempts at one event: urllib3's, counted, and none left once the sink is given up."""

    def __init__(self, delivery: _Delivery[Any], **state: Any) -> None:
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
        # A redirect would be followed with a GET, whose answer says nothing about the event.
        response = session.send(request, timeout=TIMEOUTS, allow_redirects=False, **environment)
    except (requests.RequestException, HTTPError) as error:
        wrapped = error.args[0] if error.args else error
        return type(getattr(wrapped, "reason", error)).__name__
    return "" if 200 <= response.status_code < 300 else f"status {response.status_code}"
