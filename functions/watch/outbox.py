"""Hands the events of alarms to a sink: each at least once, in the order of its alarm, with the same id each time.

A batch of events is claimed for a while, so that no other instance sends them meanwhile, and no connection is held
while a sink takes its time. An instance that ends or hangs leaves its claim to run out.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from cloudevents.http import CloudEvent

from shared import delivery
from shared.alarms import Kind, Severity, Transition
from shared.backoff import Backoff
from shared.confirmation import confirming
from shared.database import Database, connected, fetch, within
from shared.delivery import Failure
from shared.events import room_event
from shared.readings import written
from shared.sink import Sink
from watch.statements import GIVEN_UP_AFTER, UNSENT

log = logging.getLogger("watch")

EVENT_TYPE = "dev.temperature.alarm.v1"
MOST_EVENTS_CLAIMED = 200
"""At a time."""
SENDING_SECONDS = 20
"""A check sends for so long, and leaves the rest to the next one."""
CLAIM_SECONDS = 120
"""For so long no other instance sends the events that one has claimed."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30, 300
"""Until an event is tried again."""
LONGEST_REFUSED_PAUSE_SECONDS = 3600
"""The same for one that the sink refuses itself."""
MOST_ATTEMPTS = 10
"""At an event that the sink refuses. Then it is given up: after three hours where it is refused from the beginning."""
MOST_FAILURES_COUNTED = 4
"""Of those that say nothing about the event, as while the sink is away. The pause is the longest by then."""

SEVERITY_NUMBERS: Mapping[Severity, int] = {"info": 9, "warning": 13, "critical": 17}
"""The numbers of OpenTelemetry, as the extension of CloudEvents for severity has them."""
SEVERITY_TEXTS: Mapping[Severity, str] = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}


@dataclass(frozen=True, slots=True)
class Message:
    """What a sink is told of an alarm: that it was raised, or that it was cleared."""

    alarm: UUID
    state: Transition
    raised: datetime
    cleared: datetime | None
    noticed: datetime
    building_id: str
    room_id: str
    kind: Kind
    threshold: float
    temperature: float
    severity: Severity
    attempts: int
    dataschema: str | None
    traceparent: str | None

    def event(self, extensions: Mapping[str, str]) -> CloudEvent:
        """Its event: the same each time, whatever became of the alarm since."""
        data = {
            "building_id": self.building_id,
            "room_id": self.room_id,
            "kind": self.kind,
            "state": self.state,
            "severity": self.severity,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "raised": written(self.raised),
            "cleared": self.cleared and written(self.cleared),
            "noticed": written(self.noticed),
        }
        attributes = {
            **extensions,
            "severitytext": SEVERITY_TEXTS[self.severity],
            "severitynumber": str(SEVERITY_NUMBERS[self.severity]),
            **({"dataschema": self.dataschema} if self.dataschema else {}),
            **({"traceparent": self.traceparent} if self.traceparent else {}),
        }
        instant = written(self.cleared or self.raised)
        return room_event(EVENT_TYPE, data, f"{self.alarm}/{self.state}", instant, attributes)


_Outcomes = dict[Message, Failure | None]
"""What became of events: why a sink did not take them, or None."""


class Sent(NamedTuple):
    """How many events the sink took, how many are left, and why the sink did not take them."""

    sent: int
    unsent: int
    reason: str


async def send(database: Database, sink: Sink, dataschema: str) -> Sent:
    """Send what is due; `dataschema` is that of events which have none yet.

    Raises TimeoutError or psycopg.Error if the database does not answer.
    """
    ends = time.monotonic() + SENDING_SECONDS
    sent, reason = 0, ""
    messages: Sequence[Message] = []
    outcomes: _Outcomes = {}
    failures: Sequence[Failure] = []
    while True:
        # A connection that is idle while a sink takes its time may be ended by the database, or by what is before it.
        async with connected(database, database.options) as connection:
            outbox = _Outbox(connection, database, sink)
            if messages:
                failures = await outbox.note(messages, outcomes)
                sent += len(outcomes) - len(failures)
            else:
                # Once: it looks through all that is left.
                await outbox.expire()
            reason = reason or next((failure.reason for failure in failures), "")
            is_away = any(not failure.refuses_the_event for failure in failures)
            seconds = ends - time.monotonic()
            messages = [] if is_away or seconds <= 0 else await outbox.claim(dataschema)
            if not messages:
                return Sent(sent, await outbox.unsent(), reason)
        outcomes = await _deliver(messages, sink, seconds)


async def _deliver(messages: Sequence[Message], sink: Sink, seconds: float) -> _Outcomes:
    """What became of each that was tried. No two of them are of one alarm."""
    outcomes: _Outcomes = {}
    await delivery.emit(
        messages,
        lambda message: message.event(sink.extensions),
        sink,
        seconds=seconds,
        refusals_count=False,
        done=outcomes.__setitem__,
    )
    return outcomes


class _Outbox:
    """The events in the database, for a moment."""

    def __init__(self, connection: psycopg.AsyncConnection, database: Database, sink: Sink) -> None:
        self._connection = connection
        self._confirm = confirming(connection)
        self._database = database
        self._sink = sink

    async def expire(self) -> None:
        """Give up what no sink took for too long."""
        await self._run(_EXPIRE, given_up_after=GIVEN_UP_AFTER)

    async def note(self, messages: Sequence[Message], outcomes: _Outcomes) -> Sequence[Failure]:
        """Write down what became of events that were claimed, and return what failed."""
        failures = {message: failure for message, failure in outcomes.items() if failure}
        if taken := [message for message in outcomes if message not in failures]:
            await self._run(_TAKEN, alarms=[each.alarm for each in taken], states=[each.state for each in taken])
        for message in messages:
            if message in failures:
                await self._fail(message, failures[message])
            elif message not in outcomes:
                # It was not tried, and is left to the next check.
                await self._write(message, attempts=0, seconds=0, given_up=False, reason=None)
        return [*failures.values()]

    async def unsent(self) -> int:
        """How many events are left."""
        [(_, unsent)] = await self._run(UNSENT)
        self._confirm()
        return int(unsent)

    async def claim(self, dataschema: str) -> list[Message]:
        """The next events that are due, which no other instance sends for a while."""
        rows = await self._run(_CLAIM, dataschema=dataschema, seconds=CLAIM_SECONDS, limit=MOST_EVENTS_CLAIMED)
        # Nobody is told of what a failover could undo.
        self._confirm()
        return [Message(*row) for row in rows]

    async def _run(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of a statement, with its parameters by name."""
        work = fetch(
            self._connection, self._database.bounds, statement.encode(), {"sink": self._sink.digest, **parameters}
        )
        return await within(self._database.deadline_seconds, work)

    async def _fail(self, message: Message, failure: Failure) -> None:
        """Have an event tried again later, or give it up."""
        refused = failure.refuses_the_event
        given_up = refused and message.attempts + 1 >= MOST_ATTEMPTS
        if given_up:
            log.error(
                "event %s/%s is given up: the sink answers it with %s", message.alarm, message.state, failure.reason
            )
        longest = LONGEST_REFUSED_PAUSE_SECONDS if refused else LONGEST_PAUSE_SECONDS
        pause = Backoff(FIRST_PAUSE_SECONDS, longest, failures=message.attempts).pause_seconds()
        counted = refused or message.attempts < MOST_FAILURES_COUNTED
        await self._write(message, attempts=int(counted), seconds=pause, given_up=given_up, reason=failure.reason)

    async def _write(self, message: Message, **outcome: Any) -> None:
        await self._run(_TRIED, alarm=message.alarm, state=message.state, **outcome)


_CLAIM = """
    WITH due AS (
        SELECT alarm, state FROM alarm_events AS event
        WHERE sink IN (%(sink)s, '') AND given_up IS NULL AND next_attempt <= now()
          -- A sink that was not told of the beginning of an alarm is not told of its end.
          AND (state = 'raised' OR NOT EXISTS (
              SELECT FROM alarm_events AS before WHERE before.alarm = event.alarm AND before.state = 'raised'
          ))
        -- Events that failed come after those that were not tried yet.
        ORDER BY attempts, next_attempt LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE alarm_events AS event
        SET next_attempt = now() + make_interval(secs => %(seconds)s), sink = %(sink)s,
            dataschema = coalesce(event.dataschema, %(dataschema)s)
        FROM due WHERE event.alarm = due.alarm AND event.state = due.state
        RETURNING event.*
    )
    SELECT
        alarm, state, claimed.raised, claimed.cleared, noticed, building_id, room_id, kind, threshold,
        coalesce(claimed.temperature, alarms.temperature), severity, attempts, dataschema, traceparent
    FROM claimed JOIN alarms ON id = alarm ORDER BY made, state DESC
"""
_TAKEN = """
    DELETE FROM alarm_events AS event USING unnest(%(alarms)s::uuid[], %(states)s::text[]) AS taken (alarm, state)
    WHERE event.alarm = taken.alarm AND event.state = taken.state
"""
_TRIED = """
    UPDATE alarm_events SET
        attempts = attempts + %(attempts)s, next_attempt = now() + make_interval(secs => %(seconds)s),
        reason = coalesce(%(reason)s, reason), given_up = CASE WHEN %(given_up)s THEN now() END
    WHERE alarm = %(alarm)s AND (state = %(state)s OR (%(given_up)s AND state = 'cleared'))
"""
_EXPIRE = """
    UPDATE alarm_events AS event SET given_up = now(), reason = coalesce(reason, 'no sink took it in time')
    WHERE sink IN (%(sink)s, '') AND given_up IS NULL AND (made < now() - %(given_up_after)s::interval OR EXISTS (
        SELECT FROM alarm_events AS before WHERE before.alarm = event.alarm AND before.given_up IS NOT NULL
    ))
"""
"""If the beginning of an alarm was given up, its end is given up too."""
