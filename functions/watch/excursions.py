"""Which excursions become alarms: each once, however often and in whatever order its readings are looked at.

Where an excursion begins and ends is found in the database, by `watch.thresholds`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

ENDLESS = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class AlarmSpan:
    """A room that is, or was, too warm or too cold: from `raised` until `cleared`."""

    raised: datetime
    cleared: datetime | None = None
    id: UUID | None = None
    """None if it is not in the database yet."""
    temperature: float = 0.0
    """Degrees Celsius: of the reading with which it begins."""
    extended: bool = False
    """Whether a reading that came late showed that it began earlier."""
    ended: bool = False
    """Whether it was open and is not any more."""


@dataclass(frozen=True, slots=True)
class Run:
    """Readings of a room up to the next calm one."""

    calm_at: datetime | None
    """The calm reading that it begins with, if it does."""
    began: datetime | None
    """The first one beyond the limit, if there is any."""
    ended: datetime | None
    """The next calm reading, if there is one yet."""
    temperature: float
    lasts: bool
    """Whether it lasts as long as it has to."""


def reconcile(alarms: list[AlarmSpan], runs: Iterable[Run], since: datetime) -> None:
    """Bring the alarms of a room in line with its runs of readings since an instant, which are in order.

    An excursion that shares an instant with an alarm is that alarm; another one is a new alarm, added in the end.
    """
    ahead = deque(sorted(alarms, key=lambda each: each.raised))
    opened = [alarm for alarm in ahead if not alarm.cleared]
    for run in runs:
        if run.calm_at:
            _end(
                next((alarm for alarm in opened if not alarm.cleared and alarm.raised <= run.calm_at), None),
                run.calm_at,
            )
        if not (run.began and run.lasts) or (run.ended and run.ended < since):
            continue
        # Neither this run nor one behind it shares an instant with these.
        while ahead and (ahead[0].cleared or ENDLESS) <= run.began:
            ahead.popleft()
        if not ahead or ahead[0].raised >= (run.ended or ENDLESS):
            alarms.append(AlarmSpan(run.began, run.ended, temperature=run.temperature))
            continue
        alarm = ahead[0]
        if run.began < alarm.raised:
            alarm.raised, alarm.temperature, alarm.extended = run.began, run.temperature, True
        if run.ended and not alarm.cleared:
            _end(alarm, run.ended)


def _end(alarm: AlarmSpan | None, instant: datetime) -> None:
    if alarm:
        alarm.cleared, alarm.ended = max(instant, alarm.raised), True
