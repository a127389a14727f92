"""The game that the summaries are played at, for every edition: readings come in any order and any way, are summed up,
dropped, compressed and asked for at random, and each answer is what a model in Python says, to the last bit."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from starlette.testclient import TestClient

from average.intervals import DAY, HOUR, WEEK, floor
from local.postgres import ADMIN, OWNER, READER, WRITER
from shared.readings import written
from tests import calendars, courses
from tests.exactness import Reading, summary, temperatures
from tests.support import LONG, SUPERUSER, Urls, compress, migrate

ZONES = ["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"]
"""Of sessions: with days of 23 and 25 hours, and hours that begin within those of UTC."""
LOCAL_ZONES = ["Europe/Berlin", "Asia/Beirut", "Asia/Kathmandu", "America/St_Johns"]
"""Of questions; clocks change in some of them on the days below, in Beirut at midnight."""
THIS_HOUR = floor(datetime.now(UTC), HOUR)
STARTS = [
    datetime(2026, 3, 28, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
    THIS_HOUR - DAY,
]
_INSERT = "INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"

# Few, so that they meet: the edges of hours, days and weeks, and what is next to them, also later than now.
instants = st.builds(
    lambda start, hours, minutes, microseconds: (
        start + timedelta(hours=hours, minutes=minutes, microseconds=microseconds)
    ),
    st.sampled_from(STARTS),
    st.sampled_from([0, 1, 2, 5, 23, 24, 25, 26, 48, 168]),
    st.sampled_from([0, 0, 7, 30, 59]),
    st.sampled_from([-1, 0, 1, 59_999_999]),
)
rooms = st.tuples(st.sampled_from(["B1", "B1", "B2"]), st.sampled_from(["101", "101", "102", "103"]))
rows = st.lists(
    st.builds(lambda room, *reading: (*room, *reading), rooms, instants, temperatures), min_size=1, max_size=12
)
TOKEN = "an-admin-token-0123456789"
"""Of whoever removes readings."""
places = st.sampled_from([("B1", "101"), ("B1", None), ("B2", "101"), ("B2", None), ("B1", "102")])
limits = st.sampled_from([(None, None), (None, None), (20.0, None), (None, 10.0), (25.0, 5.0)])
WIDTHS = {
    "7m": timedelta(minutes=7),
    "15m": timedelta(minutes=15),
    "1h": HOUR,
    "90m": timedelta(minutes=90),
    "6h": 6 * HOUR,
    "1d": DAY,
    "2d": 2 * DAY,
    "7d": WEEK,
    "14d": 2 * WEEK,
}
MOST_BUCKETS = 10_000
BUSY_SECONDS = 10
"""For how long somebody else may be at the summaries."""


@dataclass(frozen=True)
class Removal:
    """What is removed: readings of a room or building, beyond limits if there are some."""

    building: str
    room: str | None
    start: datetime
    end: datetime
    above: float | None = None
    below: float | None = None

    def means(self, reading: Reading) -> bool:
        building, room, instant, temperature = reading
        return (
            building == self.building
            and self.room in {None, room}
            and self.start <= instant < self.end
            and (
                self.above is self.below is None
                or (self.above is not None and temperature > self.above)
                or (self.below is not None and temperature < self.below)
            )
        )


EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class World:
    """Where the game is played."""

    urls: Urls
    average: TestClient
    ingests: Sequence[TestClient]
    hypertable: bool
    at_once: bool
    """Whether it is a server of many sessions, not one in WebAssembly."""
    crash: Callable[[], None] | None = None


class History(RuleBasedStateMachine):
    """What happens to a database, and what a model makes of it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self._connect()
        self.owner.execute("TRUNCATE temperatures, removals")
        self.owner.execute("UPDATE upkeep SET retention = NULL")
        self.live: set[Reading] = set()
        # Of readings that were dropped: room, hour and temperature of each.
        self.dropped: list[Reading] = []
        self.latest: dict[tuple[str, str], tuple[datetime, float]] = {}
        self.retention: timedelta | None = None
        # What does not come back, each with the instant when it was asked for.
        self.kept_out: dict[Removal, datetime] = {}

    def teardown(self) -> None:
        try:
            self.summarize(None)
            self.all_is_asked_for()
        finally:
            self._close()

    def _connect(self) -> None:
        self.owner = psycopg.connect(self.world.urls(OWNER), autocommit=True)
        self.observer = psycopg.connect(self.world.urls(OWNER), autocommit=True)

    def _close(self) -> None:
        self.owner.close()
        self.observer.close()

    @initialize(width=st.sampled_from([timedelta(days=7), DAY, timedelta(minutes=90), HOUR]))
    def chunks_are_so_wide(self, width: timedelta) -> None:
        if self.world.hypertable:
            self.owner.execute("SELECT set_chunk_time_interval('temperatures', %s)", (width,))

    @rule(rows=rows, way=st.sampled_from(["one instance", "the other instance", "SQL", "COPY"]))
    def readings_come(self, rows: list[Reading], way: str) -> None:
        new = set(rows) - self.live
        if way == "COPY" and self.world.at_once:
            with (
                psycopg.connect(self.world.urls(WRITER)) as writer,
                writer.cursor() as cursor,
                cursor.copy("COPY temperatures FROM STDIN") as copy,
            ):
                for row in new:
                    copy.write_row(row)
        elif "instance" in way and max(row[2] for row in rows) < THIS_HOUR + HOUR:
            client = self.world.ingests[way == "one instance"]
            names = ("building_id", "room_id", "timestamp", "temperature")
            body = [dict(zip(names, (*row[:2], row[2].isoformat(), row[3]), strict=True)) for row in rows]
            answer = client.post("/", json=body)
            assert (answer.status_code, answer.json().get("duplicates")) == (201, len(rows) - len(new)), answer.text
        else:
            with psycopg.connect(self.world.urls(WRITER)) as writer, writer.cursor() as cursor:
                cursor.executemany(_INSERT, rows)
        new = {row for row in new if not self.is_kept_out(row)}
        self.live |= new
        for building, room, instant, temperature in {*rows} & self.live:
            known = self.latest.setdefault((building, room), (instant, temperature))
            self.latest[building, room] = max(known, (instant, temperature))

    def is_kept_out(self, reading: Reading) -> bool:
        return any(removal.means(reading) and reading[2] < asked for removal, asked in self.kept_out.items())

    @rule(place=places, ends=st.tuples(instants, instants).map(sorted), limits=limits, days=st.sampled_from([0, 9]))
    def readings_are_removed(
        self,
        place: tuple[str, str | None],
        ends: list[datetime],
        limits: tuple[float | None, float | None],
        days: int,
    ) -> None:
        start, end = ends[0], ends[1] + timedelta(microseconds=1)
        removal = Removal(*place, start, end, *limits)
        query = {name: str(value) for name, value in vars(removal).items() if value is not None}
        query |= {f"{name}_id": query.pop(name) for name in ("building", "room") if name in query}
        meant = {reading for reading in self.live if removal.means(reading)}
        shown = self._delete("readings", query | {"dry_run": "true"})
        answer = self._delete("readings", query | {"keep_out": f"{days}d" if days else "0"})
        if self._were_dropped(removal):
            assert (shown.status_code, answer.status_code) == (409, 409), answer.text
            return
        assert shown.json()["rooms"] == _shares(meant)
        assert answer.json()["removed"] == len(meant), answer.text
        self._are_removed(removal, meant, _asked(answer), days)

    @rule(place=places, days=st.sampled_from([0, 9]))
    def a_room_or_a_building_is_forgotten(self, place: tuple[str, str | None], days: int) -> None:
        removal = Removal(*place, *EVER)
        query = {"building_id": place[0], **({"room_id": place[1]} if place[1] else {})}
        meant = {reading for reading in self.live if removal.means(reading)}
        answer = self._delete("rooms", query | {"keep_out": f"{days}d" if days else "0"})
        assert answer.json()["removed"] == len(meant), answer.text
        self.dropped = [reading for reading in self.dropped if not removal.means(reading)]
        for room in [room for room in self.latest if room[0] == place[0] and place[1] in {None, room[1]}]:
            del self.latest[room]
        self._are_removed(removal, meant, _asked(answer), days)

    @precondition(lambda self: self.world.at_once)
    @rule(place=places, rows=rows, milliseconds=st.integers(0, 10))
    def readings_come_while_they_are_removed_and_summed_up(
        self, place: tuple[str, str | None], rows: list[Reading], milliseconds: int
    ) -> None:
        """Those that are meant are gone, whether they came before or after; and it is killed, and asked for again."""
        rows = [row for row in rows if row[2] < THIS_HOUR] or [("B2", "101", STARTS[0], 20.5)]
        removal = Removal(*place, STARTS[2], THIS_HOUR + 2 * DAY, above=20.0)
        if self._were_dropped(removal) or any(self._was_dropped(row) for row in rows):
            return
        query = {"building_id": place[0], "start": str(removal.start), "end": str(removal.end), "above": "20"}
        query |= {"room_id": place[1]} if place[1] else {}
        # Those of the future may come again.
        before = {reading for reading in self.live if removal.means(reading)}
        with (
            ThreadPoolExecutor(3) as pool,
            psycopg.connect(self.world.urls(OWNER), autocommit=True) as connection,
            psycopg.connect(self.world.urls(SUPERUSER), autocommit=True) as killer,
        ):
            summarized = pool.submit(_summarize, connection)
            asked = [pool.submit(self._delete, "readings", query | {"keep_out": "9d"}) for _ in range(2)]
            time.sleep(milliseconds / 1000)
            killer.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (ADMIN,))
            with psycopg.connect(self.world.urls(WRITER)) as writer, writer.cursor() as cursor:
                cursor.executemany(_INSERT, rows)
            summarized.result()
            assert {each.result().status_code for each in asked} <= {200, 202, 409, 503}
        answer = self._delete("readings", query | {"keep_out": "9d"})
        assert answer.status_code in {200, 409}, answer.text
        found = self._see(
            "SELECT asked, finished FROM removals WHERE (building_id, coalesce(room_id, 'all'), above, since)"
            f" = ('{place[0]}', '{place[1] or 'all'}', 20, '{removal.start}') ORDER BY asked DESC LIMIT 1"
        )
        # Readings of the interval may have been dropped before anybody asked, or after the first removal was done.
        assert found or answer.status_code == 409
        self.live |= {row for row in rows if not self.is_kept_out(row) and not (found and removal.means(row))}
        for row in {*rows} & self.live:
            self.latest[row[:2]] = max(self.latest.get(row[:2], row[2:]), row[2:])
        if found:
            assert found[0][1], "it is finished"
            self._are_removed(removal, before, found[0][0], 9)
        self._see_what_was_dropped()

    def _are_removed(self, removal: Removal, meant: set[Reading], asked: datetime, days: int) -> None:
        self.live -= meant
        for building, room, *latest in meant:
            if self.latest.get((building, room)) == tuple(latest):
                self._find_latest(building, room)
        self.kept_out.pop(removal, None)
        if days:
            self.kept_out[removal] = asked

    def _find_latest(self, building: str, room: str) -> None:
        """The latest reading that is left, or the highest of the last hour of which only the summary is."""
        known = [reading[2:] for reading in (*self.live, *self.dropped) if reading[:2] == (building, room)]
        if known:
            self.latest[building, room] = max(known)
        else:
            del self.latest[building, room]

    def _delete(self, name: str, query: dict[str, str]) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.world.average.delete(f"/v1/temperature/{name}", params=query, headers=headers)

    def _was_dropped(self, reading: Reading) -> bool:
        [(horizon,)] = self._see("SELECT nullif(dropped_before, '-infinity') FROM upkeep")
        return horizon is not None and reading[2] < horizon

    def _were_dropped(self, removal: Removal) -> bool:
        """Whether some readings of the interval are in summaries only, or will soon be."""
        [(horizon,)] = self._see("SELECT nullif(dropped_before, '-infinity') FROM upkeep")
        if horizon is None or removal.start >= horizon:
            return False
        place = Removal(removal.building, removal.room, *EVER)
        end = min(removal.end, horizon)
        hours = [reading[2] for reading in self.dropped if place.means(reading)]
        return any(removal.start - HOUR < hour < end for hour in hours) or any(
            place.means(reading) and removal.start <= reading[2] < end for reading in self.live
        )

    @rule(rows=rows)
    def readings_are_rolled_back(self, rows: list[Reading]) -> None:
        with psycopg.connect(self.world.urls(WRITER)) as writer, writer.cursor() as cursor:
            cursor.executemany(_INSERT, rows)
            writer.rollback()

    @rule(seconds=st.sampled_from([None, None, None, 0, 0.002]))
    def summarize(self, seconds: float | None) -> None:
        begun = self._now()
        ends = time.monotonic() + BUSY_SECONDS
        while True:
            self.owner.execute(
                "CALL summarize(0, %s::jsonb)", (f'{{"seconds": {50 if seconds is None else seconds}}}',)
            )
            # While a job of TimescaleDB's does it, it leaves the work to that.
            if seconds is not None or time.monotonic() > ends or not self._is_left_before(floor(begun, HOUR)):
                break
        self._see_what_was_dropped()
        if seconds is None:
            self._assert_all_is_summed_up(floor(begun, HOUR))

    def _is_left_before(self, hour: datetime) -> bool:
        statement = "SELECT EXISTS (SELECT FROM unsummarized WHERE since < %s)"
        [(is_left,)] = self.observer.execute(statement, (hour,)).fetchall()
        return bool(is_left)

    @rule(seconds=st.sampled_from([0, 0.002]), zone=st.sampled_from(LOCAL_ZONES))
    def hours_of_the_version_before_get_their_quarters(self, seconds: float, zone: str) -> None:
        self.summarize(None)
        with self.owner.transaction():
            self.owner.execute("UPDATE rooms SET courses_missing_before = 'infinity'")
            self.owner.execute("UPDATE room_hours SET counts = NULL, sums = NULL, mins = NULL, maxs = NULL")
        for _ in range(2):
            for building, room in (("B1", None), ("B2", "101")):
                self._ask(building, room, STARTS[2] - HOUR, THIS_HOUR + 2 * DAY, "1d", zone)
            self.summarize(seconds)

    @precondition(lambda self: self.world.at_once)
    @rule(milliseconds=st.integers(0, 20))
    def summarize_is_killed(self, milliseconds: int) -> None:
        with psycopg.connect(self.world.urls(OWNER), autocommit=True) as victim:
            pid = victim.info.backend_pid
            thread = threading.Thread(target=_summarize, args=(victim,))
            thread.start()
            time.sleep(milliseconds / 1000)
            with psycopg.connect(self.world.urls(SUPERUSER), autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            thread.join()
        self._see_what_was_dropped()

    @precondition(lambda self: self.world.at_once)
    @rule(rows=rows, runners=st.integers(2, 3))
    def readings_come_while_several_summarize(self, rows: list[Reading], runners: int) -> None:
        connections = [psycopg.connect(self.world.urls(OWNER), autocommit=True) for _ in range(runners)]
        threads = [threading.Thread(target=_summarize, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        self.readings_come(rows, "the other instance")
        for thread, connection in zip(threads, connections, strict=True):
            thread.join()
            connection.close()
        self._see_what_was_dropped()

    @rule(start=st.sampled_from(STARTS), offset=st.sampled_from([1, 24, 25, 30, 49]))
    def readings_are_kept_since(self, start: datetime, offset: int) -> None:
        # A little less than whole hours, whatever the minute is.
        self._retain(floor(self._now(), HOUR) - (start + timedelta(hours=offset)))

    @rule()
    def readings_are_kept_for_ever(self) -> None:
        self._retain(None)

    def _retain(self, age: timedelta | None) -> None:
        self.retention = age if age is None else max(age, HOUR)
        seconds = None if self.retention is None else self.retention.total_seconds()
        self.owner.execute("UPDATE upkeep SET retention = make_interval(secs => %s)", (seconds,))

    @precondition(lambda self: self.world.hypertable)
    @rule()
    def chunks_go_into_the_columnstore(self) -> None:
        compress(self.owner)

    @precondition(lambda self: LONG)
    @rule()
    def the_migrations_run_again(self) -> None:
        migrate(self.world.urls(OWNER))
        self.retention = None

    @precondition(lambda self: self.world.crash is not None)
    @rule()
    def the_server_crashes(self) -> None:
        assert self.world.crash
        self._close()
        self.world.crash()
        self._connect()
        found = set(self._see("SELECT building_id, room_id, timestamp, temperature FROM temperatures"))
        for building, room, instant, temperature in found - self.live:
            # What only moved into a summary is not waited for until it is on the disk.
            self.dropped.remove((building, room, floor(instant, HOUR), temperature))
        self.live |= found
        self._see_what_was_dropped()

    @rule(
        building=st.sampled_from(["B1", "B2", "B3"]),
        room=st.sampled_from([None, "101", "102"]),
        ends=st.tuples(instants, instants).map(sorted),
        bucket=st.sampled_from([None, *WIDTHS]),
    )
    def somebody_asks(self, building: str, room: str | None, ends: list[datetime], bucket: str | None) -> None:
        start, end = ends
        if bucket:
            start = max(start, end - (MOST_BUCKETS - 1) * WIDTHS[bucket])
        self._ask(building, room, start, end, bucket)

    @rule(
        building=st.sampled_from(["B1", "B2"]),
        room=st.sampled_from([None, "101", "102"]),
        ends=st.tuples(instants, instants).map(sorted),
        bucket=st.sampled_from([None, *WIDTHS]),
        hold=st.sampled_from(["1s", "30m", "59m", "1h", "5h", "1d", "2d"]),
        limits=st.tuples(st.none() | temperatures, st.none() | temperatures),
        by_time=st.booleans(),
    )
    def somebody_asks_for_the_course(
        self,
        building: str,
        room: str | None,
        ends: list[datetime],
        bucket: str | None,
        hold: str,
        limits: tuple[float | None, float | None],
        by_time: bool,
    ) -> None:
        start, end = (min(instant, self._now()) for instant in ends)
        [(horizon,)] = self._see("SELECT nullif(dropped_before, '-infinity') FROM upkeep")
        longest = timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[hold[-1]]: int(hold[:-1])})
        if horizon and start - longest - HOUR < horizon:
            # What held before is not known any more.
            return
        if bucket:
            start = max(start, end - 99 * WIDTHS[bucket])
        query: dict[str, Any] = {"building_id": building, "start": start.isoformat(), "end": end.isoformat()}
        query |= {name: limit for name, limit in zip(("above", "below"), limits, strict=True) if limit is not None}
        query |= {"room_id": room} if room else {}
        query |= {"weighting": "time"} if by_time else {}
        query |= {"max_gap": hold} if len(query) > 3 + bool(room) else {}
        query |= {"statistics": "stddev,first,last"}
        rooms: dict[str, list[tuple[datetime, float]]] = {}
        for of_building, of_room, instant, temperature in self.live:
            if of_building == building and of_room == (room or of_room):
                rooms.setdefault(of_room, []).append((instant, temperature))

        def meant(since: datetime, until: datetime) -> dict[str, Any]:
            return courses.expected(courses.course(rooms, since, until, longest, *limits), query)

        if bucket is None:
            answer = self.world.average.get("/v1/temperature/average", params=query)
            assert answer.status_code == 200, answer.text
            assert courses.answered(answer.json()) == meant(start, end), answer.text
            return
        answer = self.world.average.get("/v1/temperature/series", params={**query, "bucket": bucket})
        assert answer.status_code == 200, answer.text
        found = {datetime.fromisoformat(point["start"]): courses.answered(point) for point in answer.json()["series"]}
        boundary = floor(start, WIDTHS[bucket])
        while boundary < end:
            point = meant(max(start, boundary), min(end, boundary + WIDTHS[bucket]))
            if point["count"] or point.get("covered_seconds"):
                assert found.pop(boundary) == point
            boundary += WIDTHS[bucket]
        assert not found

    @rule(
        building=st.sampled_from(["B1", "B2"]),
        room=st.sampled_from([None, "101"]),
        ends=st.tuples(instants, instants).map(sorted),
        bucket=st.sampled_from(["1h", "6h", "1d", "2d", "1w", "1mo", "1y"]),
        zone=st.sampled_from(LOCAL_ZONES),
    )
    def somebody_asks_in_a_zone(
        self, building: str, room: str | None, ends: list[datetime], bucket: str, zone: str
    ) -> None:
        start, end = ends
        if bucket == "1h":
            start = max(start, end - (MOST_BUCKETS - 100) * HOUR)
        self._ask(building, room, start, end, bucket, zone)

    @rule()
    def all_is_asked_for(self) -> None:
        for building, room, bucket in [
            ("B1", None, None),
            ("B2", None, "6h"),
            ("B1", "101", "2d"),
            ("B2", "102", None),
        ]:
            self._ask(building, room, STARTS[2] - HOUR, THIS_HOUR + 2 * DAY, bucket)
        for building in ("B1", "B2"):
            shown = self._delete("rooms", {"building_id": building, "dry_run": "true"}).json()["rooms"]
            assert shown == _shares(row for row in (*self.live, *self.dropped) if row[0] == building)

    @rule()
    def rooms_are_asked_for(self) -> None:
        found = self._see("SELECT building_id, room_id, timestamp, temperature FROM rooms")
        assert {(row[0], row[1]): (row[2], row[3]) for row in found} == self.latest
        listed = self.world.average.get("/v1/temperature/rooms").json()["rooms"]
        assert {(room["building_id"], room["room_id"]) for room in listed} == set(self.latest)

    def _ask(
        self,
        building: str,
        room: str | None,
        start: datetime,
        end: datetime,
        bucket: str | None,
        zone: str | None = None,
    ) -> None:
        query = {"building_id": building, "start": start.isoformat(), "end": end.isoformat()}
        if room:
            query["room_id"] = room
        meant = sorted(
            (row[2], row[3])
            for row in (*self.live, *self.dropped)
            if row[0] == building and row[1] == (room or row[1]) and start <= row[2] < end
        )
        if bucket is None:
            answer = self.world.average.get("/v1/temperature/average", params=query)
            assert answer.status_code in {200, 404}, answer.text
            assert _point(answer.json()) == summary([temperature for _, temperature in meant]), answer.text
            return
        if zone:
            query["tz"] = zone
        answer = self.world.average.get("/v1/temperature/series", params={**query, "bucket": bucket})
        assert answer.status_code == 200, answer.text
        if zone:
            calendars.assert_points(answer.json()["series"], meant, bucket, zone)
            return
        expected = [
            (begun, *summary([temperature for _, temperature in group]))
            for begun, group in groupby(meant, lambda reading: floor(reading[0], WIDTHS[bucket]))
        ]
        found = [(datetime.fromisoformat(point["start"]), *_point(point)) for point in answer.json()["series"]]
        assert found == expected

    def _see(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement, with instants in UTC as `shared.database` reads them.

        Python takes no instant of an hour that a zone has twice for equal to one of another zone.
        """
        return self.observer.execute(statement.encode(), binary=True).fetchall()

    def _now(self) -> datetime:
        [(now,)] = self._see("SELECT now()")
        assert isinstance(now, datetime)
        return now

    def _see_what_was_dropped(self) -> None:
        """What is gone was in an hour that was dropped; from now on it counts where the hour begins."""
        [(horizon,)] = self._see("SELECT nullif(dropped_before, '-infinity') FROM upkeep")
        found = set(self._see("SELECT building_id, room_id, timestamp, temperature FROM temperatures"))
        assert not found - self.live
        for building, room, instant, temperature in self.live - found:
            assert horizon is not None and instant < horizon
            self.dropped.append((building, room, floor(instant, HOUR), temperature))
        self.live = found

    def _assert_all_is_summed_up(self, until: datetime) -> None:
        """All hours until then have their summaries; there is no reading left that should have been dropped."""
        [(horizon,)] = self._see("SELECT nullif(dropped_before, '-infinity') FROM upkeep")
        assert horizon is None or not any(row[2] < horizon for row in self.live)
        if self.retention and not self.world.hypertable:
            assert horizon and horizon >= floor(until - self.retention, HOUR)
        hours: dict[tuple[str, str, datetime], list[float]] = {}
        for building, room, instant, temperature in (*self.live, *self.dropped):
            hours.setdefault((building, room, floor(instant, HOUR)), []).append(temperature)
        kept = {
            (row[0], row[1], row[2]): (row[3], Fraction(row[4]), row[5], row[6])
            for row in self._see("SELECT building_id, room_id, hour, count, sum, min, max FROM room_hours")
        }
        assert not {key for key in hours if key[2] < until} - set(kept)
        assert kept == {key: _put_together((1, Fraction(t), t, t) for t in hours[key]) for key in kept}
        self._assert_hours_have_their_courses(horizon)
        weeks_until = {}
        for building, room, begun, summed_until in self._see(
            "SELECT building_id, room_id, weeks_until, summed_until FROM rooms"
        ):
            weeks_until[building, room] = begun
            # Where summing up went back to an earlier hour, the weeks behind it are there already.
            assert begun >= floor(summed_until, WEEK)
        for relation, start, width, columns in (
            ("room_days", "day", DAY, 2),
            ("room_weeks", "week", WEEK, 2),
            ("building_hours", "hour", HOUR, 1),
            ("building_days", "day", DAY, 1),
        ):
            names = ", ".join(["building_id", "room_id"][:columns])
            found = {
                tuple(row[: columns + 1]): (row[-4], Fraction(row[-3]), row[-2], row[-1])
                for row in self._see(f"SELECT {names}, {start}, count, sum, min, max FROM {relation}")
            }
            parts: dict[tuple[Any, ...], list[Any]] = {}
            for key, part in kept.items():
                if width < WEEK or key[2] < weeks_until[key[:2]]:
                    parts.setdefault((*key[:columns], floor(key[2], width)), []).append(part)
            assert found == {key: _put_together(together) for key, together in parts.items()}, relation

    def _assert_hours_have_their_courses(self, horizon: datetime | None) -> None:
        """So that no question reads their readings; those of the version before when their turn has come."""
        hours: dict[tuple[str, str, datetime], list[tuple[datetime, float]]] = {}
        for building, room, instant, temperature in self.live:
            hours.setdefault((building, room, floor(instant, HOUR)), []).append((instant, temperature))
        for building, room, hour, *found in self._see(
            "SELECT building_id, room_id, hour, first_at, first_temperature, last_at, last_temperature, longest_gap,"
            " sum_of_squares, degree_microseconds, counts, sums, mins, maxs FROM room_hours"
            " JOIN rooms USING (building_id, room_id) WHERE courses_missing_before IS NULL"
        ):
            if horizon is None or hour >= horizon:
                assert found == _course(sorted(hours[building, room, hour])), (building, room, hour)


def served(serve: Callable[..., TestClient], urls: Urls) -> TestClient:
    """The function that answers, and removes."""
    return serve("average", DATABASE_URL=urls(READER), ADMIN_DATABASE_URL=urls(ADMIN), ADMIN_TOKENS=TOKEN)


def _asked(answer: Any) -> datetime:
    """When a removal that is finished was asked for."""
    assert answer.json()["finished"], answer.text
    return datetime.fromisoformat(answer.json()["asked"])


def _shares(readings: Iterable[Reading]) -> list[dict[str, Any]]:
    """Of each room how many readings there are, the first and the last."""
    return [
        {"room_id": room, "readings": len(instants), "first": written(instants[0]), "last": written(instants[-1])}
        for room, group in groupby(sorted(readings, key=itemgetter(1, 2)), itemgetter(1))
        for instants in [[reading[2] for reading in group]]
    ]


def _put_together(parts: Iterable[tuple[int, Fraction, float, float]]) -> tuple[int, Fraction, float, float]:
    counts, sums, lowest, highest = zip(*parts, strict=True)
    return sum(counts), sum(sums, Fraction()), min(lowest), max(highest)


def _course(readings: Sequence[tuple[datetime, float]]) -> list[Any]:
    """What is kept of an hour beside its count, sum, lowest and highest: how it went, and the same of its quarters."""
    spans = [(temperature, after - instant) for (instant, temperature), (after, _) in pairwise(readings)]
    quarters = [[each for instant, each in readings if instant.minute // 15 == number] for number in range(4)]
    parts = [_put_together((1, Fraction(t), t, t) for t in quarter) if quarter else None for quarter in quarters]
    return [
        *readings[0],
        *readings[-1],
        max((length for _, length in spans), default=timedelta(0)),
        sum(Fraction(temperature) ** 2 for _, temperature in readings),
        sum(Fraction(temperature) * (length // timedelta(microseconds=1)) for temperature, length in spans),
        *([part and part[number] for part in parts] for number in range(4)),
    ]


def _point(answer: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(answer[name] for name in ("count", "average_temperature", "min", "max"))


def _summarize(connection: psycopg.Connection[Any]) -> None:
    # It may be killed.
    with suppress(psycopg.OperationalError):
        connection.execute("CALL summarize()")


def play(world: World, *, examples: int, steps: int = 25) -> None:
    """Play so many games of so many steps at most; where TORTURE is set, ten times as many."""

    taken = 0

    class Here(History):
        def __init__(self) -> None:
            super().__init__(world)

        @invariant()
        def a_step_is_counted(self) -> None:
            nonlocal taken
            taken += 1

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples * (10 if LONG else 1),
            stateful_step_count=steps,
            deadline=None,
            # To shrink a history takes long, and to explain it longer.
            phases=(Phase.reuse, Phase.generate, Phase.shrink) if LONG else (Phase.generate,),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{taken} steps")
