"""Hands the events of alarms to a sink: each at least once, in the order of its alarm, with the same id each time.

A batch of events is claimed for a while, so that no other instance sends them meanwhile, and nothing is locked while a
sink takes its time. An instance that ends or hangs leaves its claim to run out.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from cloudevents.http import CloudEvent

from shared import delivery
from shared.confirmation import confirming
from shared.database import Database, fetch, within
from shared.readings import written
from shared.sink import digest
from watch.statements import UNSENT

log = logging.getLogger("watch")

EVENT_TYPE = "dev.temperature.alarm.v1"
BATCH = 200
"""Events that are claimed at a time."""
SECONDS = 20
"""So long a check goes on sending: what is left is for the next one."""
CLAIM_SECONDS = 120
"""So long nobody else sends what an instance has claimed."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30, 300
"""After which an event is tried again; the pause doubles."""
LONGEST_REFUSED_PAUSE_SECONDS = 3600
"""The same for one that the sink refuses itself."""
MOST_REFUSALS = 10
"""Attempts after which an event that the sink refuses is given up: after some five hours."""
KEPT = "7 days"
"""An event that no sink has taken by then interests nobody any more."""

SEVERITY_NUMBERS = {"info": 9, "warning": 13, "critical": 17}
"""The numbers of OpenTelemetry, as the extension of CloudEvents for severity has them."""
SEVERITY_TEXTS = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}
_NOT_ITS_FAULT = {408, 425, 429}

Run = Callable[..., Awaitable[list[Any]]]
"""Runs a statement, with its parameters by name, and returns its rows."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a sink is told of an alarm: that it was raised, or that it was cleared."""

    alarm: UUID
    state: str
    raised: datetime
    cleared: datetime | None
    noticed: datetime
    building_id: str
    room_id: str
    kind: str
    threshold: float
    temperature: float
    severity: str
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
        return delivery.room_event(EVENT_TYPE, data, f"{self.alarm}/{self.state}", instant, attributes)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the events: how many the sink took, how many are left, and why, if the sink is why."""

    sent: int
    unsent: int
    reason: str


async def send(database: Database, sink: delivery.Sink, extensions: Mapping[str, str], dataschema: str) -> Sent:
    """Send what is due; `dataschema` is that of events which have none yet.

    Raises TimeoutError or psycopg.Error if the database does not answer.
    """
    stop = Event()
    ends = time.monotonic() + SECONDS
    timer = asyncio.get_running_loop().call_later(SECONDS, stop.set)
    sent, reason = 0, ""
    try:
        async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
            confirm = confirming(connection)

            async def run(statement: str, **parameters: Any) -> list[Any]:
                work = fetch(connection, database.bounds, statement.encode(), {"sink": digest(sink.url), **parameters})
                return await within(database.deadline, work)

            await run(_EXPIRE, kept=KEPT)
            claim = {"dataschema": dataschema, "seconds": CLAIM_SECONDS, "limit": BATCH}
            while time.monotonic() < ends and not reason:
                messages = [Message(*row) for row in await run(_CLAIM, **claim)]
                # Nobody is told of what a failover could undo.
                confirm()
                if not messages:
                    break
                outcomes = await _emit(messages, sink, extensions, stop)
                await _write_down(run, messages, outcomes)
                sent += sum(not failure for failure in outcomes.values())
                reason = next((failure for failure in outcomes.values() if failure), "")
            [(_, left)] = await run(UNSENT)
            confirm()
    finally:
        # A thread hears nothing of the end of the server, which cancels what it still does.
        stop.set()
        timer.cancel()
    return Sent(sent, int(left), reason)


async def _emit(
    messages: list[Message], sink: delivery.Sink, extensions: Mapping[str, str], stop: Event
) -> dict[Message, str]:
    """What became of each that was tried: why it failed, or nothing. No two of them are of one alarm."""
    outcomes: dict[Message, str] = {}
    await asyncio.to_thread(
        delivery.emit,
        messages,
        lambda message: message.event(extensions),
        sink,
        done=outcomes.__setitem__,
        stop=stop,
    )
    return outcomes


async def _write_down(run: Run, messages: list[Message], outcomes: Mapping[Message, str]) -> None:
    taken, tried = [], []
    for message in messages:
        failure = outcomes.get(message)
        if failure == "":
            taken.append(message)
        else:
            tried.append((message, failure))
    await run(_TAKEN, alarms=[message.alarm for message in taken], states=[message.state for message in taken])
    for message, failure in tried:
        refused = failure is not None and _refused(failure)
        given_up = refused and message.attempts + 1 >= MOST_REFUSALS
        if given_up:
            log.error("event %s/%s is given up: the sink answers it with %s", message.alarm, message.state, failure)
        longest = LONGEST_REFUSED_PAUSE_SECONDS if refused else LONGEST_PAUSE_SECONDS
        pause = 0 if failure is None else min(FIRST_PAUSE_SECONDS * 2**message.attempts, longest)
        await run(
            _TRIED,
            alarm=message.alarm,
            state=message.state,
            attempts=int(failure is not None),
            seconds=pause,
            given_up=given_up,
            reason=failure,
        )


def _refused(failure: str) -> bool:
    """Whether the sink is there and does not take this very event."""
    status = failure.removeprefix("status ")
    return status.isdigit() and 400 <= int(status) < 500 and int(status) not in _NOT_ITS_FAULT


_CLAIM = """
    WITH due AS (
        SELECT alarm, state FROM alarm_events AS event
        WHERE sink IN (%(sink)s, '') AND given_up IS NULL AND next_attempt <= now()
          -- Whoever was not told that an alarm was raised is not told that it was cleared.
          AND (state = 'raised' OR NOT EXISTS (
              SELECT FROM alarm_events AS before WHERE before.alarm = event.alarm AND before.state = 'raised'
          ))
        -- What was tried in vain comes after what was not tried yet.
        ORDER BY attempts, next_attempt LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE alarm_events AS event
        SET next_attempt = now() + make_interval(secs => %(seconds)s), sink = %(sink)s,
            dataschema = coalesce(event.dataschema, %(dataschema)s)
        FROM due WHERE event.alarm = due.alarm AND event.state = due.state
        RETURNING event.*
    )
    SELECT
        alarm, state, claimed.raised, claimed.cleared, noticed, building_id, room_id, kind, threshold, temperature,
        severity, attempts, dataschema, traceparent
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
    WHERE sink IN (%(sink)s, '') AND given_up IS NULL AND (made < now() - %(kept)s::interval OR EXISTS (
        SELECT FROM alarm_events AS before WHERE before.alarm = event.alarm AND before.given_up IS NOT NULL
    ))
"""
"""Of an alarm of which the beginning was given up, the end is too."""
