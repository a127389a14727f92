"""CloudEvents on their way to a sink, each tried until the sink takes it or is given up.

Only what is about to send imports this: the client for HTTP takes 0.1 s, and sends an event in a tenth of the time that
lighter ones take.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from shared.backoff import PASSING_STATUSES, Backoff, retry_after_seconds
from shared.sink import Sink, is_on_this_machine

CONNECTIONS = 8
"""At once, of all deliveries that take the same turns."""
CONNECT_SECONDS, ANSWER_SECONDS = 3, 15
MOST_ATTEMPTS = 6
"""At one event."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10
"""Between two attempts at an event."""
MOST_FAILURES_IN_A_ROW = 20
"""So many events that failed mean that the sink is not there, or takes no such events."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """Things that events are made of, such as a list: how many there are is known beforehand."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[T_co]:
        """Go through them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sink did not take an event."""

    reason: str
    """The status of its answer, or the name of the error where there was none."""
    status: int | None = None
    retry_after_seconds: float = 0

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may succeed."""
        return self.status is None or self.status in PASSING_STATUSES

    @property
    def refuses_the_event(self) -> bool:
        """Whether the sink is there and does not take this very event."""
        return not self.may_pass and self.status is not None and 400 <= self.status < 500


@dataclass(slots=True)
class Outcome:
    """What became of events."""

    emitted: int = 0
    """How many the sink took."""
    retried: int = 0
    """Attempts beyond the first at an event."""
    failed: int = 0
    """How many it did not take; those that are `untried` are among them."""
    untried: int = 0
    """How many were not even sent, because the sink had been given up."""
    reason: str = ""
    """Why the last one that failed did."""

    def __str__(self) -> str:
        """The outcome in words."""
        words = f"{self.emitted} emitted, {self.retried} retried, {self.failed} failed"
        if self.reason:
            words += f", the last with {self.reason}"
        if self.untried:
            words += f"; the sink was given up and {self.untried} of those that failed were not tried"
        return words


async def emit(
    items: Items[T],
    event: Callable[[T], CloudEvent],
    sink: Sink,
    *,
    seconds: float = inf,
    refusals_count: bool = True,
    done: Callable[[T, Failure | None], object] = lambda *_: None,
    turns: asyncio.Semaphore | None = None,
) -> Outcome:
    """Deliver the event of each item to the sink, and return once all of them are taken or have failed.

    After `seconds` no more are tried. A sink that takes nothing for as long as its patience lasts, or fails too many
    events in a row, is given up; unless `refusals_count`, events that it refuses say nothing about it. `done` is called
    with each item that was tried and why it failed, None if the sink took it. Deliveries take `turns` at the sink, so
    that many at once are no more to it than one.
    """
    headers = {"Authorization": f"Bearer {sink.token}"} if sink.token else {}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    cookies = aiohttp.DummyCookieJar()
    turns = turns or asyncio.Semaphore(CONNECTIONS)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout, cookie_jar=cookies, proxy=_proxy(sink.url)) as client,
        asyncio.TaskGroup() as workers,
    ):
        delivery = _Delivery(client, items, event, sink, done, seconds, refusals_count, turns)
        for _ in range(min(CONNECTIONS, len(items))):
            workers.create_task(delivery.work())
    outcome = delivery.outcome
    outcome.untried = len(items) - outcome.emitted - outcome.failed
    outcome.failed += outcome.untried
    return outcome


class _Delivery(Generic[T]):
    """One call of `emit`: what its workers share."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        items: Items[T],
        event: Callable[[T], CloudEvent],
        sink: Sink,
        done: Callable[[T, Failure | None], object],
        seconds: float,
        refusals_count: bool,
        turns: asyncio.Semaphore,
    ) -> None:
        self.outcome = Outcome()
        self._client = client
        self._items = iter(items)
        self._event = event
        self._sink = sink
        self._done = done
        self._refusals_count = refusals_count
        self._turns = turns
        self._ends = time.monotonic() + seconds
        self._failed_in_a_row = 0
        self._took_last = time.monotonic()

    @property
    def _over(self) -> bool:
        """Whether nothing more is to be tried."""
        now = time.monotonic()
        return (
            now > self._ends
            or self._failed_in_a_row >= MOST_FAILURES_IN_A_ROW
            or now - self._took_last > self._sink.patience_seconds
        )

    async def work(self) -> None:
        """Deliver events, one after the other, until there are no more."""
        while not self._over and (item := next(self._items, None)) is not None:
            failure = await self._deliver(self._event(item))
            self._count(failure)
            self._done(item, failure)

    async def _deliver(self, event: CloudEvent) -> Failure | None:
        """Try to send the event, several times if that may help, and return why it failed if it did."""
        headers, content = to_binary(event)
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        retries_left = MOST_ATTEMPTS - 1
        while failure := await self._attempt(headers, content):
            if not failure.may_pass or not retries_left or self._over:
                return failure
            await asyncio.sleep(max(backoff.pause_seconds(), min(failure.retry_after_seconds, LONGEST_PAUSE_SECONDS)))
            retries_left -= 1
            self.outcome.retried += 1
        return None

    async def _attempt(self, headers: Mapping[str, str], content: bytes) -> Failure | None:
        """Send an event once, and return why it failed if it did."""
        try:
            async with (
                self._turns,
                # No redirect is followed: the answer to the GET that it becomes says nothing about the event.
                self._client.post(self._sink.url, headers=headers, data=content, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return None
                after = retry_after_seconds(answer.headers.get("Retry-After", ""))
                return Failure(f"status {answer.status}", answer.status, after)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Failure(type(error).__name__)

    def _count(self, failure: Failure | None) -> None:
        if failure:
            self.outcome.reason = failure.reason
            self.outcome.failed += 1
            if self._refusals_count or not failure.refuses_the_event:
                self._failed_in_a_row += 1
                return
        else:
            self.outcome.emitted += 1
        self._failed_in_a_row = 0
        self._took_last = time.monotonic()


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL: HTTP_PROXY, NO_PROXY and their like.

    aiohttp can find it too. But then it also looks for a password in ~/.netrc, which would go with events unasked, and
    which beside a token is an error.
    """
    parts = urlsplit(url)
    if is_on_this_machine(url) or proxy_bypass(parts.hostname or ""):
        return None
    found = getproxies().get(parts.scheme)
    # Other programs take proxy:3128 for one of http.
    return f"http://{found}" if found and "://" not in found else found
