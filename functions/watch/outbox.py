"""Hands the events of alarms to a sink: each at least once, in order, with the same id each time."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import LiteralString
from uuid import UUID

import psycopg
from cloudevents.http import CloudEvent

from shared import delivery
from shared.confirmation import confirming
from shared.database import Database
from shared.readings import written
from watch.alarms import UNSENT, unsent

EVENT_TYPE = "dev.temperature.alarm.v1"
BATCH = 100
"""Events after which it is written down that they were sent."""
SECONDS = 20
"""So long a check goes on sending: what is left is for the next one."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a sink is told of an alarm: that it was raised, or that it was cleared."""

    alarm: UUID
    state: str
    instant: datetime
    building_id: str
    room_id: str
    kind: str
    threshold: float
    temperature: float
    raised: datetime

    def event(self, extensions: Mapping[str, str]) -> CloudEvent:
        """Its event: the same each time, whatever became of the alarm since."""
        data = {
            "building_id": self.building_id,
            "room_id": self.room_id,
            "kind": self.kind,
            "state": self.state,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "raised": written(self.raised),
            "cleared": written(self.instant) if self.state == "cleared" else None,
        }
        return delivery.room_event(EVENT_TYPE, data, f"{self.alarm}/{self.state}", written(self.instant), extensions)


@dataclass(slots=True)
class _Batch:
    """Messages in order, without those of an end whose beginning the sink did not take."""

    messages: Sequence[Message]
    taken: list[Message] = field(default_factory=list)
    refused: set[UUID] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return (message for message in self.messages if message.alarm not in self.refused)

    def done(self, message: Message, taken: bool) -> None:
        if taken:
            self.taken.append(message)
        else:
            self.refused.add(message.alarm)


async def send(database: Database, sink: delivery.Sink, extensions: Mapping[str, str]) -> tuple[int, int, str]:
    """Send what was not sent yet; return how much the sink took, how much is left, and why, if the sink is why.

    While another instance sends, this one does not.
    """
    stop = Event()
    timer = asyncio.get_running_loop().call_later(SECONDS, stop.set)
    sent, left, reason = 0, 0, ""
    try:
        async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
            confirm = confirming(connection)
            while not (stop.is_set() or reason):
                outcome = await _send_batch(connection, database.bounds, sink, extensions, stop)
                confirm()
                if not outcome.emitted + outcome.failed:
                    break
                sent += outcome.emitted
                reason = (outcome.reason or "too little time") if outcome.failed else ""
            left = await unsent(connection)
    finally:
        # A thread hears nothing of the end of the server, which cancels what it still does.
        stop.set()
        timer.cancel()
    return sent, left, reason


async def _send_batch(
    connection: psycopg.AsyncConnection,
    bounds: LiteralString | None,
    sink: delivery.Sink,
    extensions: Mapping[str, str],
    stop: Event,
) -> delivery.Outcome:
    async with connection.transaction():
        if bounds:
            await connection.execute(bounds)
        # Whoever has it keeps it until what was sent is written down, or until it dies, and the next one sends again.
        [(mine,)] = await (await connection.execute(_LOCK)).fetchall()
        rows = await (await connection.execute(_DUE, (BATCH,), binary=True)).fetchall() if mine else []
        batch = _Batch([Message(*row) for row in rows])
        outcome = await asyncio.to_thread(
            delivery.emit,
            batch,
            lambda message: message.event(extensions),
            sink,
            # In order.
            workers=1,
            done=batch.done,
            stop=stop,
        )
        for state, statement in _SENT.items():
            alarms = [message.alarm for message in batch.taken if message.state == state]
            await connection.execute(statement, (alarms,))
        return outcome


_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('temperature alarms'))"
_DUE = f"SELECT * FROM ({UNSENT}) AS unsent ORDER BY instant, raised, state DESC LIMIT %s"  # noqa: S608 - a constant
_SENT = {
    "raised": "UPDATE alarms SET raised_sent = clock_timestamp() WHERE id = ANY(%s)",
    "cleared": "UPDATE alarms SET cleared_sent = clock_timestamp() WHERE id = ANY(%s)",
}
