"""Alarms: raised once, cleared once, whoever checks, and told to a sink that may be away."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
import requests
import tzdata
from psycopg.conninfo import conninfo_to_dict
from starlette.testclient import TestClient

from bench.stack import command, serve, target
from local.postgres import OWNER, READER, WATCHER
from shared import zones
from shared.settings import SettingError
from tests.faults.link import Link
from tests.sink import Sink, listening
from tests.support import NOWHERE, SUPERUSER, Urls, remove, wait_for_locks, wait_until
from watch.outbox import MOST_FAILURES_COUNTED

Serve = Callable[..., TestClient]
NOW = datetime.now(UTC)
ROOM = {"building_id": "B1", "room_id": "101"}
RULE = {**ROOM, "above": 28, "below": 16, "silent": "15m"}


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes may have passed since this was imported."""
    monkeypatch.setattr(f"{__name__}.NOW", datetime.now(UTC))


@pytest.fixture
def watch(serve: Serve, plain: Urls) -> Callable[..., TestClient]:
    """Start an instance of the function, with these rules."""

    def start(*rules: dict[str, Any], **settings: str) -> TestClient:
        return serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES=json.dumps(rules), **settings)

    return start


@pytest.fixture
def store(plain: Urls) -> Callable[..., None]:
    """Store readings of a room, each so many minutes ago."""

    def insert(*readings: tuple[float, float], room: str = "101", building: str = "B1") -> None:
        with psycopg.connect(plain(OWNER), autocommit=True) as connection:
            for minutes, temperature in readings:
                connection.execute(
                    "INSERT INTO temperatures VALUES (%s, %s, %s, %s)", (building, room, ago(minutes), temperature)
                )

    return insert


@pytest.fixture
def link(plain: Urls) -> Iterator[Link]:
    """The network between a function and PostgreSQL."""
    between = Link(lambda: Path(str(conninfo_to_dict(plain(WATCHER))["host"])) / ".s.PGSQL.5432")
    yield between
    between.close()


@contextmanager
def telling(function: TestClient, sink: Sink) -> Iterator[Future[Any]]:
    """The answer of a check whose event the sink has, and takes at the end of the context."""
    sink.open.clear()
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(function.post, "/")
        wait_until(lambda: sink.attempts)
        try:
            yield checked
        finally:
            sink.open.set()


Store = Callable[..., None]
Watch = Callable[..., TestClient]
Asked = Callable[..., Any]


@pytest.fixture
def asked(serve: Serve, plain: Urls) -> Asked:
    """Ask `average` for alarms."""
    average = serve("average", DATABASE_URL=plain(READER))

    def ask(**query: Any) -> Any:
        answer = average.get("/v1/temperature/alarms", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def check(client: TestClient) -> tuple[int, int]:
    """How many alarms a check raised and cleared."""
    answer = client.post("/")
    assert answer.status_code == 200, answer.text
    return answer.json()["raised"], answer.json()["cleared"]


def alarms(urls: Urls) -> list[tuple[Any, ...]]:
    with psycopg.connect(urls(OWNER)) as connection:
        return connection.execute(
            "SELECT room_id, kind, threshold, temperature, raised, cleared FROM alarms ORDER BY raised, kind, room_id"
        ).fetchall()


def events(sink: Sink) -> list[tuple[str, str]]:
    """State and kind of the alarms that the sink was told of, in order."""
    return [(event["state"], event["kind"]) for event in map(data, sink.events)]


def data(event: Any) -> Any:
    return event.get_data()


# Temperatures


def test_an_alarm_is_raised_once_and_cleared_once(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((9, 21))
    assert check(function) == (0, 0)
    store((8, 28), (7, 28.5), (6, 30))
    assert check(function) == (1, 0)
    assert alarms(plain) == [("101", "high", 28, 28.5, ago(7), None)]
    store((5, 31))
    assert check(function) == check(function) == (0, 0)
    store((4, 28), (3, 20))
    assert check(function) == (0, 1)
    assert check(function) == (0, 0)
    assert alarms(plain) == [("101", "high", 28, 28.5, ago(7), ago(4))]
    store((2, 15.9))
    assert check(function) == (1, 0)
    assert alarms(plain)[1:] == [("101", "low", 16, 15.9, ago(2), None)]


def test_a_room_that_becomes_too_cold_is_in_alarm_at_the_next_check(watch: Watch, store: Store) -> None:
    function = watch({**ROOM, "below": 16})
    for reading, expected in (((9, 21), (0, 0)), ((6, 15), (1, 0)), ((3, 17), (0, 1))):
        store(reading)
        assert check(function) == expected


def test_a_spike_between_two_checks_raises_and_clears(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((9, 21))
    check(function)
    store((8, 29), (7, 30), (6, 21), (5, 10), (4, 29), (3, 21))
    assert check(function) == (3, 3)
    assert alarms(plain) == [
        ("101", "high", 28, 29, ago(8), ago(6)),
        ("101", "low", 16, 10, ago(5), ago(4)),
        ("101", "high", 28, 29, ago(4), ago(3)),
    ]


def test_all_readings_of_a_room_count_also_those_before_the_first_check(
    watch: Watch, store: Store, plain: Urls
) -> None:
    store((9, 40), (8, 10), (7, 29))
    assert check(watch(RULE)) == (3, 2)
    assert alarms(plain) == [
        ("101", "high", 28, 40, ago(9), ago(8)),
        ("101", "low", 16, 10, ago(8), ago(7)),
        ("101", "high", 28, 29, ago(7), None),
    ]


def test_a_late_excursion_is_told_with_when_it_was_and_when_it_was_noticed(
    watch: Watch, store: Store, plain: Urls
) -> None:
    function = watch(RULE)
    store((5, 21))
    assert check(function) == (0, 0)
    store((2 * 1440, 21), (1440, 40), (60, 21))
    begun = datetime.now(UTC)
    assert check(function) == (1, 1)
    assert alarms(plain) == [("101", "high", 28, 40, ago(1440), ago(60))]
    with psycopg.connect(plain(OWNER)) as connection:
        assert connection.execute("SELECT noticed > %s FROM alarms", (begun,)).fetchone() == (True,)
    assert check(function) == (0, 0)


def test_a_backlog_beside_live_readings_alarms_although_another_sensor_of_the_room_is_live(
    watch: Watch, store: Store, plain: Urls
) -> None:
    function = watch(RULE)
    store((120, 21), (5, 21))
    check(function)
    store((90, 30), (4, 21), (80, 31), (3, 21), (70, 21))
    assert check(function) == (1, 1)
    assert alarms(plain) == [("101", "high", 28, 30, ago(90), ago(70))]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_backlog_of_a_room_that_is_never_calm_is_read_once(
    watch: Watch, store: Store, plain: Urls, is_late: bool
) -> None:
    """And not all that is left of it for each slice."""
    readings = 30_000
    function = watch(RULE)
    if is_late:
        store((5, 30))
        assert check(function) == (1, 0)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s - number * interval '10 minutes', 30"
            " FROM generate_series(1, %s) AS number",
            (NOW, readings),
        )
        before = entries_read(owner)
        assert check(function) == (int(not is_late), 0)
        wait_until(lambda: entries_read(owner) - before >= readings)
        assert entries_read(owner) - before < 3 * readings
    assert alarms(plain) == [("101", "high", 28, 30, ago(10 * readings), None)]


def test_a_backlog_of_a_room_that_swings_around_the_threshold_alarms_each_time(watch: Watch, plain: Urls) -> None:
    """In a few steps, which the database takes for dead where one takes two seconds."""
    swings = 20_000
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s - number * interval '30 seconds', 27 + number %% 2 * 2"
            " FROM generate_series(1, 2 * %s) AS number",
            (NOW, swings),
        )
    assert check(watch({**ROOM, "above": 28})) == (swings, swings - 1)


def entries_read(connection: psycopg.Connection[Any]) -> int:
    """How many entries of the index of readings sessions read that have ended."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    (number,) = connection.execute(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'temperatures_pkey'"
    ).fetchone() or (0,)
    return int(number)


def test_a_late_calm_reading_shows_that_an_alarm_was_two(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((9, 29), (5, 30))
    assert check(function) == (1, 0)
    store((7, 21))
    assert check(function) == (1, 1)
    assert alarms(plain) == [("101", "high", 28, 29, ago(9), ago(7)), ("101", "high", 28, 30, ago(5), None)]


@pytest.mark.parametrize("latest", [30, 27])
def test_what_follows_a_late_calm_reading_begins_with_its_first_reading_beyond(
    watch: Watch, store: Store, plain: Urls, latest: float
) -> None:
    function = watch({**ROOM, "above": 28, "clear": 26})
    store((9, 29), (5, 30), (4, 31), (3, latest))
    assert check(function) == (1, 0)
    store((7, 21))
    assert check(function) == (1, 1)
    assert alarms(plain) == [("101", "high", 28, 29, ago(9), ago(7)), ("101", "high", 28, 30, ago(5), None)]


@pytest.mark.parametrize(("is_over", "raised"), [(False, 1), (True, 0)])
def test_what_is_not_over_alarms_where_a_removed_reading_kept_it_from_lasting_long_enough(
    watch: Watch, store: Store, plain: Urls, is_over: bool, raised: int
) -> None:
    function = watch({**ROOM, "above": 28, "for": "4m"})
    store((20, 30), (18, 21), (16, 30), (15, 30), *([(14, 21)] if is_over else []))
    assert check(function) == (0, 0)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        remove(owner, ("B1", "101"), ago(19), ago(17))
    assert check(function) == (raised, 0)


def test_a_late_reading_may_show_that_an_alarm_began_earlier(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((20, 21), (5, 30))
    assert check(function) == (1, 0)
    store((9, 29))
    assert check(function) == (0, 0)
    assert alarms(plain) == [("101", "high", 28, 29, ago(9), None)]
    store((7, 21))
    assert check(function) == (1, 1)
    assert [times for *_, times in alarms(plain)] == [ago(7), None]


def test_an_alarm_that_was_told_to_be_over_stays_so_and_the_next_reading_beyond_begins_another(
    watch: Watch, store: Store, plain: Urls
) -> None:
    function = watch({**ROOM, "above": 28, "clear": 26, "for": "4m"})
    store((20, 30), (15, 30), (9, 30))
    assert check(function) == (1, 0)
    store((8, 20))
    assert check(function) == (0, 1)
    # Another sensor of the room was not calm then.
    store((8, 27))
    assert check(function) == (0, 0)
    store((7, 31))
    assert check(function) == (0, 0)
    store((3, 30))
    assert check(function) == (1, 0)
    assert check(function) == (0, 0)
    assert alarms(plain) == [("101", "high", 28, 30, ago(20), ago(8)), ("101", "high", 28, 31, ago(7), None)]


def test_that_is_so_where_the_reading_that_ended_it_was_removed(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({**ROOM, "above": 28})
    store((9, 30), (8, 20))
    assert check(function) == (1, 1)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        [(removal,)] = owner.execute(
            "SELECT begin_removal('B1', '101', %s, %s, NULL, NULL, 'who', NULL, interval '0')", (ago(8.5), ago(7.5))
        )
        assert owner.execute("SELECT readings, is_finished FROM continue_removal(%s)", (removal,)).fetchall() == [
            (1, True)
        ]
    assert check(function) == (0, 0)
    store((7, 30))
    assert check(function) == (1, 0)
    assert alarms(plain) == [("101", "high", 28, 30, ago(9), ago(8)), ("101", "high", 28, 30, ago(7), None)]


def test_a_calm_room_costs_no_write_at_each_check(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((5, 21))
    check(function)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        store((4, 21))
        [before] = connection.execute("SELECT xmin FROM rooms").fetchall()
        check(function)
        assert connection.execute("SELECT xmin FROM rooms").fetchall() == [before]


def test_a_reading_of_the_future_waits_until_then(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((5, 21), (-60, 40))
    assert check(function) == (0, 0)
    store((4, 29))
    assert check(function) == (1, 0)
    store((3, 21))
    assert check(function) == (0, 1)


def test_a_reading_of_the_next_second_counts_then(watch: Watch, plain: Urls) -> None:
    function = watch(RULE)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("INSERT INTO temperatures VALUES ('B1', '101', now() + interval '2 s', 30)")
        assert check(function) == (0, 0)
        wait_until(lambda: connection.execute("SELECT FROM temperatures WHERE timestamp < now()").rowcount)
    assert check(function) == (1, 0)


def test_of_two_readings_of_an_instant_the_one_further_beyond_counts(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((5, 21), (5, 30))
    assert check(function) == (1, 0)
    store((4, 10), (4, 21))
    assert check(function) == (1, 1)
    assert check(function) == (0, 0)
    assert [kind for _, kind, *_, cleared in alarms(plain) if not cleared] == ["low"]


# Silence


def test_a_silence_is_raised_once_and_cleared_by_the_next_reading(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({"silent": "15m"})
    store((14, 21))
    store((16, 22), room="102")
    begun = datetime.now(UTC)
    assert check(function) == (1, 0)
    assert check(function) == (0, 0)
    [(room, kind, threshold, temperature, raised, cleared)] = alarms(plain)
    assert (room, kind, threshold, temperature, cleared) == ("102", "silent", 900, 22, None)
    assert begun < raised < datetime.now(UTC)
    store((0, 21), room="102")
    assert check(function) == (0, 1)
    assert check(function) == (0, 0)
    [(*_, cleared)] = alarms(plain)
    assert raised < cleared < datetime.now(UTC)


def test_late_readings_do_not_end_a_silence(watch: Watch, store: Store) -> None:
    function = watch(RULE)
    store((60, 21))
    assert check(function) == (1, 0)
    store((70, 21), (50, 21), (20, 21))
    assert check(function) == (0, 0)


def test_a_room_without_any_reading_is_not_silent(watch: Watch, store: Store) -> None:
    function = watch(RULE)
    assert check(function) == (0, 0)
    store((-5, 21))
    assert check(function) == (0, 0)


# Rules


def test_the_narrowest_rule_counts_for_each_threshold(watch: Watch, store: Store, plain: Urls) -> None:
    rules = [
        {"above": 24, "below": 18},
        {"building_id": "B1", "above": 26},
        {**ROOM, "above": 30},
        {"building_id": "B2", "silent": "30m"},
    ]
    for room in ("101", "102"):
        store((5, 27), room=room)
        store((90, 27), room=room, building="B2")
        store((90, 17), room=room, building="B3")
    assert check(watch(*rules)) == (7, 0)
    with psycopg.connect(plain(OWNER)) as connection:
        found = connection.execute(
            "SELECT building_id, room_id, kind, threshold FROM alarms ORDER BY building_id, room_id, kind"
        ).fetchall()
    assert found == [
        ("B1", "102", "high", 26),
        *(("B2", room, *alarm) for room in ("101", "102") for alarm in (("high", 24), ("silent", 1800))),
        *(("B3", room, "low", 18) for room in ("101", "102")),
    ]


def test_another_rule_counts_at_once_and_a_rule_that_is_gone_clears(watch: Watch, store: Store, plain: Urls) -> None:
    store((5, 25), (1, 25))
    assert check(watch(RULE)) == (0, 0)
    assert check(watch({**ROOM, "above": 24, "silent": "30s"})) == (2, 0)
    assert check(watch({**ROOM, "above": 26, "silent": "30s"})) == (0, 1)
    assert check(watch({**ROOM, "above": 24, "silent": "30s"})) == (1, 0)
    changed = datetime.now(UTC)
    assert check(watch()) == (0, 2)
    assert all(cleared >= raised for *_, raised, cleared in alarms(plain))
    # Temperatures end with a reading, whichever way a rule changes.
    assert {kind for _, kind, *_, cleared in alarms(plain) if cleared > changed - timedelta(seconds=5)} == {"silent"}


def test_a_rule_that_is_removed_and_made_again_raises_again_what_is_still_so(
    watch: Watch, store: Store, plain: Urls
) -> None:
    function = watch({**ROOM, "above": 24})
    store((9, 25), (5, 26))
    assert check(function) == (1, 0)
    assert check(watch()) == (0, 1)
    assert check(function) == (1, 0)
    assert alarms(plain) == [("101", "high", 24, 25, ago(9), ago(5)), ("101", "high", 24, 26, ago(5), None)]
    store((4, 25), (3, 21))
    assert check(function) == (0, 1)


def test_an_alarm_ends_where_its_rule_has_hours_now_in_which_the_latest_reading_is_not(
    watch: Watch, store: Store
) -> None:
    store((5, 29))
    assert check(watch({**ROOM, "above": 28})) == (1, 0)
    yesterday = (NOW - timedelta(days=1)).strftime("%a").lower()
    by_day = watch({**ROOM, "above": 28, "hours": f"{yesterday} 10:00-11:00"})
    assert check(by_day) == (0, 1)
    assert check(by_day) == (0, 0)


def test_a_reading_of_the_future_hides_the_latest_one_from_no_rule(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({**ROOM, "above": 28})
    store((30, 29))
    assert check(function) == (1, 0)
    store((29, 27))
    assert check(function) == (0, 1)
    store((-60, 20))
    assert check(function) == (0, 0)
    assert check(watch({**ROOM, "above": 26, "silent": "15m"})) == (2, 0)
    assert [(kind, temperature, cleared) for _, kind, _, temperature, _, cleared in alarms(plain)] == [
        ("high", 29, ago(29)),
        ("high", 27, None),
        ("silent", 27, None),
    ]


def test_an_alarm_of_another_rule_begins_and_ends_with_readings(watch: Watch, store: Store, plain: Urls) -> None:
    store((5, 25))
    assert check(watch(RULE)) == (0, 0)
    function = watch({**ROOM, "above": 24})
    assert check(function) == (1, 0)
    store((4, 21))
    assert check(function) == (0, 1)
    assert alarms(plain) == [("101", "high", 24, 25, ago(5), ago(4))]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("nonsense", "it is not JSON"),
        ("{}", "Input should be a valid array"),
        ("[1]", "Input should be an object"),
        ('[{"above": 28}, {"above": "warm"}]', "above of rule 2 must be a number from -50 to 50"),
        ('[{"above": 51}]', "above of rule 1 must be a number from -50 to 50"),
        ('[{"silent": 15}]', "silent of rule 1 must be a period of at most 3650d, such as 90m, 24h or 2d"),
        ('[{"building_id": "", "above": 1}]', "building_id of rule 1 must be a string of 1 to 255 characters"),
        ('[{"over": 28}]', "over of rule 1 is not known here"),
        ('[{"above": 28}, {"building_id": "B1"}]', "rule 2 must have a threshold: above, below or silent"),
        ('[{"room_id": "101", "above": 28}]', "rule 1 has a room_id and must have its building_id too"),
        ('[{"above": 20, "below": 20}]', "rule 1 leaves no temperature that is no alarm"),
        ('[{"above": 20}, {"above": 21, "silent": "1h"}]', "rule 2 has a threshold that another rule for the same has"),
        ('[{"below": 16}, {"building_id": "B1", "above": 15}]', "rules 1 and 2 leave no temperature that is no alarm"),
        (
            '[{"building_id": "B1", "below": 16}, {"building_id": "B1", "room_id": "101", "above": 20, "clear": 15}]',
            "rules 1 and 2 leave no temperature that is no alarm",
        ),
        (
            '[{"below": 20, "hours": "mon 07:00-18:00"}, {"above": 17, "hours": "mon 17:00-19:00"}]',
            "rules 1 and 2 leave no temperature that is no alarm",
        ),
        ('[{"building_id": "B1", "above": 24, "building_id": "B2"}]', "building_id comes twice in one rule"),
        ('[{"above": 28, "clear": 29}]', "rule 1 ends where it has not begun: clear must not be above 28"),
        ('[{"below": 16, "clear": 15.5}]', "rule 1 ends where it has not begun: clear must not be below 16"),
        ('[{"above": 28, "below": 16, "clear": 20}]', "rule 1 has clear and must have one of above and below"),
        ('[{"silent": "1h", "for": "5m"}]', "rule 1 has for and must have above or below"),
        ('[{"above": 28, "for": "5"}]', "for of rule 1 must be a period of at most 3650d"),
        ('[{"above": 28, "severity": "bad"}]', "severity of rule 1 must be info, warning or critical"),
        ('[{"above": 28, "zone": "UTC"}]', "rule 1 has a zone and must have hours"),
        ('[{"above": 28, "hours": "daily"}]', "hours of rule 1 must be days and hours such as mon-fri 07:00-18:00"),
        ('[{"above": 28, "hours": "mon 07:00-25:00"}]', "hours of rule 1 must be days and hours"),
        ('[{"above": 28, "hours": "mon 07:00-08:00", "zone": "Mars"}]', "hours of rule 1 are in no time zone: 'Mars'"),
    ],
)
def test_rules_that_make_no_sense_stop_the_start(serve: Serve, rules: str, reason: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        serve("watch", ALARM_RULES=rules)
    assert str(stopped.value).startswith("ALARM_RULES must be a JSON list of rules such as [")
    assert reason in str(stopped.value)


def test_rules_are_read_from_a_file(serve: Serve, plain: Urls, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps([RULE]), encoding="utf-8-sig")
    store((5, 29))
    function = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES_FILE=str(file))
    assert check(function) == (1, 0)
    with pytest.raises(SystemExit, match="ALARM_RULES and ALARM_RULES_FILE are both set"):
        serve("watch", ALARM_RULES="[]")
    os.environ.pop("ALARM_RULES")
    file.write_text("[{}]")
    with pytest.raises(SystemExit, match=r"ALARM_RULES_FILE must be a JSON list .*: rule 1 must have a threshold"):
        serve("watch")
    with pytest.raises(SystemExit, match="ALARM_RULES_FILE must be a file of rules that can be read"):
        serve("watch", ALARM_RULES_FILE=str(tmp_path / "none"))


# Conditions


def test_an_excursion_that_does_not_last_is_no_alarm(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({**ROOM, "above": 28, "for": "10m"})
    store((40, 29), (31, 29), (30, 21), (20, 29))
    assert check(function) == (0, 0)
    store((11, 30))
    assert check(function) == (0, 0)
    store((10, 31))
    assert check(function) == (1, 0)
    assert alarms(plain) == [("101", "high", 28, 29, ago(20), None)]
    store((9, 28))
    assert check(function) == (0, 1)


def test_a_temperature_that_swings_around_the_threshold_alarms_once(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({**ROOM, "above": 28, "clear": 26})
    for minute in range(30, 5, -1):
        store((minute, 27 + minute % 3))
        check(function)
    assert [cleared for *_, cleared in alarms(plain)] == [None]
    store((4, 26))
    assert check(function) == (0, 1)
    store((3, 28), (2, 27))
    assert check(function) == (0, 0)


@pytest.fixture
def new_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A zone that only the newest rules know, as the database of an older system does not: Berlin's, renamed."""
    berlin = Path(tzdata.__file__).parent / "zoneinfo" / "Europe" / "Berlin"
    (tmp_path / "zoneinfo").mkdir()
    (tmp_path / "zoneinfo" / "New").write_bytes(berlin.read_bytes())
    (tmp_path / "zones").write_text("New")
    for cached in (zones.load, zones._names, zones._changes):
        cached.cache_clear()
    monkeypatch.setattr(zones, "_folder", lambda: tmp_path)
    yield "New"
    for cached in (zones.load, zones._names, zones._changes):
        cached.cache_clear()


@pytest.mark.parametrize("known", ["known to the database", "unknown to it"])
def test_a_rule_counts_in_its_hours_in_its_zone(
    watch: Watch, plain: Urls, known: str, request: pytest.FixtureRequest
) -> None:
    zone = "Europe/Berlin" if known == "known to the database" else request.getfixturevalue("new_zone")
    function = watch({**ROOM, "above": 28, "hours": "mon-fri 07:00-18:00", "zone": zone})
    # The clocks went back on Sunday, 25 October 2026: seven o'clock is 05:00 UTC before, and 06:00 UTC after.
    readings = [
        ("2026-10-23T04:59:00Z", 30),
        ("2026-10-23T05:00:00Z", 31),
        ("2026-10-23T16:00:00Z", 30),
        ("2026-10-24T10:00:00Z", 30),
        ("2026-10-26T05:59:00Z", 30),
        ("2026-10-26T06:00:00Z", 32),
        ("2026-10-26T07:00:00Z", 21),
    ]
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for reading in readings:
            connection.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, %s)", reading)
    assert check(function) == (2, 2)
    assert [
        (temperature, raised.isoformat(), cleared.isoformat()) for *_, temperature, raised, cleared in alarms(plain)
    ] == [
        (31, "2026-10-23T05:00:00+00:00", "2026-10-23T16:00:00+00:00"),
        (32, "2026-10-26T06:00:00+00:00", "2026-10-26T07:00:00+00:00"),
    ]


def test_what_is_too_cold_by_day_may_be_too_warm_at_night(watch: Watch, plain: Urls) -> None:
    function = watch({"below": 20, "hours": "mon-fri 07:00-18:00"}, {"above": 17, "hours": "mon-fri 19:00-06:00"})
    readings = [("2026-10-26T10:00:00Z", 18), ("2026-10-26T20:00:00Z", 18.5), ("2026-10-27T08:00:00Z", 21)]
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for reading in readings:
            connection.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, %s)", reading)
    assert check(function) == (2, 2)
    assert [(kind, raised.isoformat(), cleared.isoformat()) for _, kind, *_, raised, cleared in alarms(plain)] == [
        ("low", "2026-10-26T10:00:00+00:00", "2026-10-26T20:00:00+00:00"),
        ("high", "2026-10-26T20:00:00+00:00", "2026-10-27T08:00:00+00:00"),
    ]


# Several instances, and their end


def test_instances_that_check_at_once_raise_once(watch: Watch, store: Store, plain: Urls, sink: Sink) -> None:
    functions = [watch(RULE, ALARM_SINK_URL=sink.url) for _ in range(4)]
    store((9, 21))
    check(functions[0])
    store((8, 29), (7, 21), (6, 30))
    with psycopg.connect(plain(OWNER)) as blocker, ThreadPoolExecutor() as pool:
        # All of them are at work before any of them can raise an alarm.
        blocker.execute("LOCK TABLE watching IN ACCESS EXCLUSIVE MODE")
        checks = [pool.submit(check, function) for function in functions]
        wait_for_sessions(plain, "wait_event_type = 'Lock'", len(functions))
        blocker.rollback()
        found = [each.result() for each in checks]
    assert sorted(found) == [(0, 0)] * 3 + [(2, 1)]
    check(functions[0])
    assert sorted(events(sink)) == [("cleared", "high"), ("raised", "high"), ("raised", "high")]


def wait_for_sessions(urls: Urls, condition: str, number: int) -> None:
    """Until so many sessions of the function are that way."""
    statement = (
        f"SELECT FROM pg_stat_activity WHERE datname = current_database() AND {condition} AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as observer:
        wait_until(lambda: observer.execute(statement).rowcount == number)


def test_a_room_cannot_be_in_alarm_twice_whatever_goes_wrong(plain: Urls) -> None:
    alarm = (
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
        " VALUES ('B1', '101', 'high', 28, 29, now())"
    )
    with psycopg.connect(plain(WATCHER), autocommit=True) as connection:
        connection.execute(alarm)
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(alarm)
        connection.execute("UPDATE alarms SET cleared = now()")
        connection.execute(alarm)


def test_another_instance_goes_on_where_the_last_one_ended(watch: Watch, store: Store) -> None:
    store((5, 29))
    assert check(watch(RULE)) == (1, 0)
    assert check(watch(RULE)) == (0, 0)
    store((4, 21))
    assert check(watch(RULE)) == (0, 1)


def test_a_check_that_breaks_off_leaves_all_to_the_next(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch(RULE)
    store((9, 21))
    check(function)
    store((8, 29), (7, 21))
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        # The last that a slice of a check does.
        owner.execute("ALTER TABLE alarms ADD CONSTRAINT broken CHECK (cleared IS NULL)")
        assert function.post("/").status_code == 500
        assert alarms(plain) == []
        owner.execute("ALTER TABLE alarms DROP CONSTRAINT broken")
    assert check(function) == (1, 1)


def test_without_a_database_it_is_503(serve: Serve) -> None:
    answer = serve("watch", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1").post("/watch")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "The database does not answer; check again"


@pytest.mark.parametrize("connects", [False, True])
def test_a_database_that_hangs_is_503_at_the_deadline(
    serve: Serve, store: Store, plain: Urls, link: Link, connects: bool
) -> None:
    database = conninfo_to_dict(plain(WATCHER))["dbname"]
    url = f"postgresql://{WATCHER}@127.0.0.1:{link.port}/{database}?sslmode=disable"
    function = serve("watch", DATABASE_URL=url, ALARM_RULES=json.dumps([RULE]), DEADLINE_SECONDS="1")
    store((5, 29))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(plain(OWNER)) as owner:
        owner.execute("LOCK alarms")
        if not connects:
            link.stall()
        started = time.monotonic()
        answer = pool.submit(function.post, "/")
        if connects:
            wait_for_locks(plain)
            link.stall()
        assert answer.result().status_code == 503
        assert time.monotonic() - started < 2.5


def test_a_check_waits_for_a_room_that_is_being_written_whatever_the_database_says_of_locks(
    watch: Watch, store: Store, plain: Urls
) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        (name,) = owner.execute("SELECT current_database()").fetchone() or ("",)
        owner.execute(f"ALTER DATABASE {name} SET lock_timeout = '5ms'")
    store((5, 29))
    function = watch(RULE)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(plain(OWNER)) as writer:
        writer.execute("SELECT FROM rooms FOR UPDATE")
        answer = pool.submit(function.post, "/")
        wait_for_locks(plain)
        time.sleep(0.1)
        writer.rollback()
        assert answer.result().json()["raised"] == 1


# Silence, and who was away


def test_a_silence_is_not_told_for_a_time_in_which_nothing_could_arrive(
    watch: Watch, store: Store, plain: Urls
) -> None:
    function = watch({"silent": "15m"})
    store((17, 21))
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        # As if the last check had been when the reading came, and a minute before.
        connection.execute("UPDATE watching SET checked = now() - interval '16 minutes'")
        assert check(function) == (0, 0)
        assert check(function) == (0, 0)
        # Where it is always asked that rarely, that means nothing.
        connection.execute(
            "UPDATE watching SET checked = now() - interval '10 minutes', rarely = true, listening_since = '-infinity'"
        )
        assert check(function) == (1, 0)
        # An alarm that is open stays so.
        connection.execute("UPDATE watching SET checked = now() - interval '16 minutes', rarely = false")
        assert check(function) == (0, 0)


def test_a_check_that_fails_is_no_look(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({"silent": "15m"}, DEADLINE_SECONDS="1")
    store((17, 21))
    notes = "SELECT checked, nullif(listening_since, '-infinity') FROM watching"
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("UPDATE watching SET checked = now() - interval '16 minutes'")
        [(checked, _)] = owner.execute(notes)
        with psycopg.connect(plain(OWNER)) as somebody:
            somebody.execute("LOCK TABLE alarms")
            listening = []
            for _ in range(2):
                assert function.post("/").status_code == 503
                [(still, since)] = owner.execute(notes)
                assert still == checked
                listening.append(since)
        # A silence counts from when readings could arrive again, and no check that fails puts it off.
        assert listening[0] == listening[1] > checked
        assert check(function) == (0, 0)
        [(looked, since)] = owner.execute(notes)
        assert looked > since == listening[0]


def test_a_big_incident_is_kept_slice_by_slice(
    watch: Watch, plain: Urls, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    function = watch({"silent": "15m"})
    monkeypatch.setattr("watch.alarms.ALARMS_AT_ONCE", 100)
    monkeypatch.setattr("watch.alarms.ROOMS_LISTED_AT_ONCE", 300)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', 'room ' || room, now() - interval '1 hour', 21"
            " FROM generate_series(1000, 1999) AS room"
        )
        owner.execute("ALTER TABLE alarms ADD CONSTRAINT broken CHECK (room_id <> 'room 1750')")
        assert function.post("/").status_code == 500
        assert owner.execute("SELECT count(*) FROM alarms").fetchone() == (700,)
        owner.execute("ALTER TABLE alarms DROP CONSTRAINT broken")
        assert check(function) == (300, 0)
        assert check(function) == (0, 0)
        assert asked(limit=1)["open"] == 1000
        owner.execute("INSERT INTO temperatures SELECT building_id, room_id, now(), 21 FROM rooms")
    assert check(function) == (0, 1000)


def test_many_open_alarms_leave_a_check_as_quick_as_it_was(watch: Watch, plain: Urls) -> None:
    function = watch({"silent": "15m"}, DEADLINE_SECONDS="4")
    rooms = "SELECT 'B1', 'room ' || room, now() - interval '%s', 21 FROM generate_series(%s, %s) AS room"
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        # As where ten times as many are open: they do not fit into the memory of one statement.
        (name,) = owner.execute("SELECT current_database()").fetchone() or ("",)
        owner.execute(f"ALTER DATABASE {name} SET work_mem = '64kB'")
        owner.execute("INSERT INTO temperatures " + rooms % ("1 hour", 1, 10_000))
        assert check(function) == (10_000, 0)
        owner.execute("INSERT INTO temperatures " + rooms % ("1 minute", 10_001, 20_000))
        owner.execute("ANALYZE alarms, rooms")
    assert check(function) == (0, 0)


def test_thousands_of_rooms_may_each_have_a_rule_of_their_own(watch: Watch, plain: Urls) -> None:
    rooms = 12_000
    function = watch(
        *({"building_id": "B1", "room_id": str(room), "above": 28} for room in range(1, rooms + 1)),
        DEADLINE_SECONDS="4",
    )
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, now(), 29 FROM generate_series(1, %s) AS room", (rooms,)
        )
    assert check(function) == (rooms, 0)


def test_alarms_of_a_room_that_was_removed_end(watch: Watch, store: Store, plain: Urls) -> None:
    function = watch({"above": 28, "silent": "1h"})
    store((90, 30))
    assert check(function) == (2, 0)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("DELETE FROM temperatures")
        connection.execute("DELETE FROM rooms")
    assert check(function) == (0, 2)
    assert check(function) == (0, 0)


def test_alarms_are_forgotten_after_a_year_or_as_the_settings_say(watch: Watch, plain: Urls, sink: Sink) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for days in (5, 11, 400):
            connection.execute(
                "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared, noticed)"
                " SELECT 'B1', '101', 'high', 28, 29, at, at, at FROM (SELECT now() - %s * interval '1 day') AS _ (at)",
                (days,),
            )
        check(watch(RULE))
        assert connection.execute("SELECT count(*) FROM alarms").fetchone() == (2,)
        check(watch(RULE, ALARM_RETENTION_DAYS="10"))
        assert connection.execute("SELECT count(*) FROM alarms").fetchone() == (1,)


def test_an_alarm_is_not_forgotten_before_the_sink_was_told(
    watch: Watch, store: Store, plain: Urls, sink: Sink
) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url, ALARM_RETENTION_DAYS="1")
    sink.refuse(1, 500)
    store((5, 29), (4, 21))
    assert function.post("/").status_code == 502
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for column in ("raised", "cleared", "noticed"):
            connection.execute(f"UPDATE alarms SET {column} = {column} - interval '2 days'")
        connection.execute("UPDATE alarm_events SET made = made - interval '2 days', next_attempt = now()")
        assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 2, "unsent": 0}
        assert events(sink) == [("raised", "high"), ("cleared", "high")]
        check(function)
        assert connection.execute("SELECT count(*) FROM alarms").fetchone() == (0,)


def test_a_check_waits_for_another_one_no_longer_than_the_deadline(
    watch: Watch, store: Store, plain: Urls, sink: Sink
) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url, DEADLINE_SECONDS="1")
    store((5, 29))
    with telling(function, sink) as first:
        answer = function.post("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert answer.json()["detail"] == "Another check is still going on; check again"
    assert first.result().status_code == 200


# The sink


def test_each_severity_is_told_with_its_number_of_opentelemetry(watch: Watch, store: Store, sink: Sink) -> None:
    rooms = {"101": "info", "102": "warning", "103": "critical"}
    rules = [{**ROOM, "room_id": room, "above": 28, "severity": severity} for room, severity in rooms.items()]
    for room in rooms:
        store((5, 29), room=room)
    assert check(watch(*rules, ALARM_SINK_URL=sink.url)) == (3, 0)
    assert sorted(
        (data(event)["severity"], event["severitytext"], event["severitynumber"]) for event in sink.events
    ) == [
        ("critical", "ERROR", "17"),
        ("info", "INFO", "9"),
        ("warning", "WARN", "13"),
    ]


def test_the_schema_of_an_event_is_below_the_path_at_which_a_proxy_has_the_functions(
    store: Store, sink: Sink, plain: Urls, tmp_path: Path
) -> None:
    settings = {"PATH_PREFIX": "/left", "ALARM_RULES": json.dumps([{"above": 28}]), "ALARM_SINK_URL": sink.url}
    with serve(command(), {**target("watch", plain(WATCHER)), **settings}, log=tmp_path / "log") as served:
        for minutes, path in ((5, "/left/watch"), (4, "/watch")):
            store((minutes, 29), room=str(minutes))
            assert check_at(served.port, path) == 1
    places = [event["dataschema"] for event in sink.events]
    assert [place.partition(f"{served.port}")[2] for place in places] == [
        "/left/watch/alarm.v1.json",
        "/watch/alarm.v1.json",
    ]


def check_at(port: int, path: str) -> int:
    """Have a function look for alarms; how many it raised."""
    return int(requests.post(f"http://127.0.0.1:{port}{path}", timeout=20).json()["raised"])


def test_the_host_that_a_check_is_asked_at_makes_no_event_too_long(watch: Watch, store: Store, sink: Sink) -> None:
    """A sink could refuse it for that."""
    function = watch(RULE, K_SINK=sink.url)
    store((5, 29))
    answer = function.post("/", headers={"host": 60_000 * "x"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "The header Host has at most 300 characters")
    assert sink.attempts == 0
    longest = f"{250 * 'x'}.com:65535"
    assert function.post("/", headers={"host": longest}).json()["sent"] == 1
    assert sink.events[0]["dataschema"].startswith(f"http://{longest}/")


def test_the_sink_is_told_of_each_with_what_it_was_once(watch: Watch, store: Store, sink: Sink, plain: Urls) -> None:
    function = watch({**RULE, "severity": "critical"}, K_SINK=sink.url, ALARM_SINK_TOKEN="a-token-0123456789")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    store((5, 29))
    answer = function.post("/", headers={"traceparent": trace})
    assert answer.json() == {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0}
    store((4, 21))
    answer = function.post("/", headers={"traceparent": "nonsense"})
    assert answer.json() == {"raised": 0, "cleared": 1, "sent": 1, "unsent": 0}
    assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 0, "unsent": 0}
    raised, cleared = sink.events
    assert {name: raised[name] for name in raised if name != "id"} == {
        "specversion": "1.0",
        "type": "dev.temperature.alarm.v1",
        "source": "/buildings/B1/rooms/101",
        "time": written(5),
        "datacontenttype": "application/json",
        "dataschema": "http://testserver/watch/alarm.v1.json",
        "traceparent": trace,
        "severitytext": "ERROR",
        "severitynumber": "17",
    }
    assert cleared["time"] == written(4)
    assert cleared.get("traceparent") is None
    with psycopg.connect(plain(OWNER)) as connection:
        [(noticed,)] = connection.execute("SELECT noticed FROM alarms").fetchall()
    alarm = {
        **ROOM,
        "kind": "high",
        "severity": "critical",
        "threshold": 28.0,
        "temperature": 29.0,
        "raised": written(5),
        "noticed": noticed.isoformat().replace("+00:00", "Z"),
    }
    assert data(raised) == {**alarm, "state": "raised", "cleared": None}
    assert data(cleared) == {**alarm, "state": "cleared", "cleared": written(4)}
    assert raised["id"].endswith("/raised") and cleared["id"] == raised["id"].replace("raised", "cleared")
    assert {headers["authorization"] for headers, _ in sink.requests} == {"Bearer a-token-0123456789"}
    answer = function.get("/watch/alarm.v1.json")
    assert answer.headers["content-type"] == "application/schema+json"
    schema = answer.json()
    for event in (raised, cleared):
        jsonschema.validate(data(event), schema)


def written(minutes: float) -> str:
    return ago(minutes).isoformat().replace("+00:00", "Z")


def make_due(urls: Urls) -> None:
    """As if the pauses after attempts were over, and the claims of instances that ended."""
    with psycopg.connect(urls(OWNER)) as connection:
        connection.execute("UPDATE alarm_events SET next_attempt = now()")


def test_a_sink_that_was_away_is_told_later_in_the_order_of_each_alarm(
    watch: Watch, store: Store, sink: Sink, plain: Urls
) -> None:
    sink.refuse(float("inf"), 500)
    function = watch(RULE, ALARM_SINK_URL=sink.url)
    store((9, 29))
    answer = function.post("/")
    assert answer.status_code == 502
    assert answer.json()["detail"] == "The sink did not take all events, and gets them again later: status 500"
    assert {name: answer.json()[name] for name in ("raised", "cleared", "sent", "unsent")} == {
        "raised": 1,
        "cleared": 0,
        "sent": 0,
        "unsent": 1,
    }
    store((8, 21), (7, 30))
    assert function.post("/").json()["unsent"] == 3
    # What was tried is left alone for a while, and of an alarm that it does not know a sink is not told that it ended.
    assert sink.attempts == 1 + 1
    sink.refuse(0, 500)
    make_due(plain)
    assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 3, "unsent": 0}
    assert sorted(events(sink)) == [("cleared", "high"), ("raised", "high"), ("raised", "high")]
    states = [(event["id"].split("/")[0], data(event)["state"]) for event in sink.events]
    ended = next(alarm for alarm, state in states if state == "cleared")
    assert states.index((ended, "raised")) < states.index((ended, "cleared"))


def test_events_that_the_sink_refuses_do_not_hold_up_others_and_are_given_up(
    watch: Watch, store: Store, sink: Sink, plain: Urls
) -> None:
    function = watch({"above": 28}, ALARM_SINK_URL=sink.url)
    sink.refuse(float("inf"), 400)
    for number in range(60):
        store((9, 29), room=f"bad {number}")
    while function.post("/").json().get("unsent", 0) and sink.attempts < 60:
        pass
    assert sink.attempts == 60
    sink.refuse(0, 400)
    store((8, 29), room="good")
    assert function.post("/").json() == {"raised": 1, "cleared": 0, "sent": 1, "unsent": 60}
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        # One attempt is left of ten.
        connection.execute("UPDATE alarm_events SET attempts = 9, next_attempt = now() WHERE attempts = 1")
        connection.execute("DELETE FROM alarm_events WHERE alarm <> (SELECT alarm FROM alarm_events LIMIT 1)")
        sink.refuse(float("inf"), 422)
        assert function.post("/").json()["unsent"] == 0
        assert connection.execute(
            "SELECT state, attempts, given_up IS NOT NULL, reason FROM alarm_events"
        ).fetchall() == [("raised", 10, True, "status 422")]
    sink.refuse(0, 400)
    for number in range(60):
        store((7, 21), room=f"bad {number}")
    answer = function.post("/").json()
    # Neither is the end of what it was not told.
    assert (answer["cleared"], answer["sent"]) == (60, 59)


def test_others_are_told_by_the_same_check_however_many_events_the_sink_refuses(
    watch: Watch, store: Store, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watch.outbox.MOST_EVENTS_CLAIMED", 10)
    function = watch({"above": 28}, ALARM_SINK_URL=sink.url)
    for number in range(60):
        store((9, 29), room=f"{number}")
    sink.refuse(45, 422)
    answer = function.post("/")
    assert answer.status_code == 502 and answer.json()["detail"].endswith("later: status 422")
    assert (answer.json()["sent"], answer.json()["unsent"]) == (15, 45)


def test_an_event_is_given_up_for_what_the_sink_refuses_and_not_for_how_often_it_was_away(
    watch: Watch, store: Store, sink: Sink, plain: Urls
) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url, SINK_PATIENCE="1")
    sink.refuse(float("inf"), 503)
    store((5, 29))
    function.post("/")
    refused = 10 - MOST_FAILURES_COUNTED
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for status, is_given_up in (
            *[(status, False) for status in (503, 503, 408, 425, 429, 500, 503, 503, 503)],
            *[(404, False)] * (refused - 1),
            (404, True),
        ):
            connection.execute("UPDATE alarm_events SET next_attempt = now()")
            sink.refuse(float("inf"), status)
            function.post("/")
            assert connection.execute("SELECT given_up IS NOT NULL FROM alarm_events").fetchall() == [(is_given_up,)], (
                status
            )


@pytest.mark.parametrize("status", [500, 503, 429, 401])
def test_the_pause_between_attempts_doubles(watch: Watch, store: Store, sink: Sink, plain: Urls, status: int) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url, SINK_PATIENCE="1")
    sink.refuse(float("inf"), status)
    store((5, 29))
    pauses = []
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for _ in range(2):
            make_due(plain)
            assert function.post("/").status_code == 502
            [(seconds, given_up)] = connection.execute(
                "SELECT extract(epoch FROM next_attempt - now())::float8, given_up FROM alarm_events"
            ).fetchall()
            assert given_up is None
            pauses.append(seconds)
    assert pauses == [pytest.approx(30, abs=10), pytest.approx(60, abs=10)]


def test_a_sink_that_was_not_heard_is_told_again_with_the_same_id(
    watch: Watch, store: Store, sink: Sink, plain: Urls
) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url)
    store((5, 29))
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        with telling(function, sink) as checked:
            # The sink has it, and the function cannot write that down.
            superuser.execute(f"ALTER DATABASE {superuser.info.dbname} CONNECTION LIMIT 0")
        assert checked.result().status_code == 503
        superuser.execute(f"ALTER DATABASE {superuser.info.dbname} CONNECTION LIMIT -1")
    assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 0, "unsent": 1}
    make_due(plain)
    assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 1, "unsent": 0}
    first, again = sink.events
    assert (first["source"], first["id"], data(first)) == (again["source"], again["id"], data(again))


def test_no_connection_waits_for_a_sink_that_takes_its_time(
    watch: Watch, store: Store, sink: Sink, plain: Urls
) -> None:
    """The database, a pooler or a network may end one that is idle; the same would be told again and again."""
    function = watch(RULE, ALARM_SINK_URL=sink.url)
    store((5, 29))
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser, telling(function, sink) as checked:
        sessions = f"SELECT FROM pg_stat_activity WHERE usename = {WATCHER!r}"
        wait_until(lambda: not superuser.execute(sessions).rowcount)
    assert checked.result().json() == {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0}


@pytest.mark.parametrize(
    "name", ["line\r\nce-id: forged", "<script>", "غرفة", "\u202egnp", "%2F..", '"\\', "W" * 255, " ", "{0} %s"]
)
def test_a_room_whose_name_is_hostile_is_told_as_any_other(
    watch: Watch, store: Store, sink: Sink, asked: Asked, name: str
) -> None:
    function = watch({"building_id": name, "above": 28}, ALARM_SINK_URL=sink.url)
    store((5, 29), room=name, building=name)
    assert function.post("/").json() == {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0}
    (event,) = sink.events
    assert (data(event)["building_id"], data(event)["room_id"]) == (name, name)
    assert event["id"] == f"{asked(building_id=name, room_id=name)['alarms'][0]['id']}/raised"
    assert len(asked(building_id=name, limit=1)["alarms"]) == 1


def test_more_than_a_batch_is_sent_by_one_check(watch: Watch, store: Store, sink: Sink) -> None:
    function = watch({"above": 28}, ALARM_SINK_URL=sink.url)
    store((500, 21))
    check(function)
    store(*((minute, 20 + minute % 2 * 10) for minute in range(1, 452)))
    assert function.post("/").json() == {"raised": 226, "cleared": 225, "sent": 451, "unsent": 0}
    told: dict[str, list[str]] = {}
    for event in sink.events:
        told.setdefault(event["id"].split("/")[0], []).append(data(event)["state"])
    assert sorted(told.values()) == [["raised"], *([["raised", "cleared"]] * 225)]


def test_one_instance_sends_at_a_time(watch: Watch, store: Store, sink: Sink) -> None:
    first, second = (watch(RULE, ALARM_SINK_URL=sink.url) for _ in range(2))
    store((5, 29))
    with telling(first, sink) as checked:
        assert second.post("/").json() == {"raised": 0, "cleared": 0, "sent": 0, "unsent": 1}
    assert checked.result().json()["sent"] == 1
    assert len(sink.events) == 1


def test_a_sink_that_is_new_is_told_nothing_of_the_past(watch: Watch, store: Store, plain: Urls, sink: Sink) -> None:
    store((5, 29))
    assert watch(RULE).post("/").json() == {"raised": 1, "cleared": 0, "sent": 0, "unsent": 0}
    assert len(alarms(plain)) == 1
    function = watch(RULE, ALARM_SINK_URL=sink.url)
    assert function.post("/").json() == {"raised": 0, "cleared": 0, "sent": 0, "unsent": 0}
    store((4, 21), (3, 30))
    # Not of the end of what it was not told of either.
    assert function.post("/").json() == {"raised": 1, "cleared": 1, "sent": 1, "unsent": 0}
    with listening() as other:
        elsewhere = watch(RULE, ALARM_SINK_URL=other.url)
        store((2, 21), (1, 15))
        assert elsewhere.post("/").json()["sent"] == 1
        assert events(other) == [("raised", "low")]
    # What the first one is still to be told, it is told when it is there again.
    again = watch(RULE, ALARM_SINK_URL=sink.url)
    assert again.post("/").json()["sent"] == 1
    assert events(sink) == [("raised", "high"), ("cleared", "high")]


def test_what_no_sink_took_within_a_week_is_given_up(watch: Watch, store: Store, plain: Urls, sink: Sink) -> None:
    function = watch(RULE, ALARM_SINK_URL=sink.url)
    sink.refuse(1, 500)
    store((5, 29))
    assert function.post("/").json()["unsent"] == 1
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("UPDATE alarm_events SET made = made - interval '8 days', next_attempt = now()")
        assert function.post("/").json()["unsent"] == 0
        store((4, 21))
        assert function.post("/").json() == {"raised": 0, "cleared": 1, "sent": 0, "unsent": 0}
        assert connection.execute("SELECT reason FROM alarm_events ORDER BY state DESC").fetchall() == [
            ("status 500",),
            ("no sink took it in time",),
        ]
    assert sink.attempts == 1


def test_a_sink_is_an_http_url(watch: Watch) -> None:
    with pytest.raises(SettingError, match="ALARM_SINK_URL must be an http or https URL"):
        watch(RULE, ALARM_SINK_URL="kafka://events")


# Who asks


def kept(connection: psycopg.Connection, room: str, kind: str, raised: float, cleared: float | None = None) -> None:
    """Keep an alarm that was raised and cleared so many minutes ago."""
    connection.execute(
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared)"
        " VALUES ('B1', %s, %s, 28, 29, %s, %s)",
        (room, kind, ago(raised), None if cleared is None else ago(cleared)),
    )


def test_average_knows_what_is_open_and_what_was_within_a_week(
    watch: Watch, store: Store, plain: Urls, asked: Asked
) -> None:
    function = watch({"above": 28}, {"building_id": "B2", "silent": "1h", "severity": "info"})
    store((9, 29))
    store((90, 21), room="201", building="B2")
    check(function)
    store((8, 21))
    store((7, 30), room="102")
    check(function)
    answer = asked()
    assert (answer["open"], answer["next"]) == (2, None)
    silent, open_, closed = answer["alarms"]
    alarm = {"building_id": "B1", "kind": "high", "severity": "warning", "threshold": 28, "cleared": None}
    own = {name: open_[name] for name in ("id", "noticed")}
    assert open_ == {**alarm, **own, "room_id": "102", "temperature": 30, "raised": written(7)}
    own = {name: closed[name] for name in ("id", "noticed")}
    assert closed == {**alarm, **own, "room_id": "101", "temperature": 29, "raised": written(9), "cleared": written(8)}
    assert (silent["kind"], silent["threshold"], silent["temperature"]) == ("silent", 3600, 21)
    assert silent["severity"] == "info"
    assert asked(building_id="B1")["alarms"] == [open_, closed]
    assert asked(building_id="B1", room_id="101")["alarms"] == [closed]
    assert asked(kind="silent")["alarms"] == [silent]
    assert asked(state="open")["alarms"] == [silent, open_]
    assert (asked(state="cleared")["alarms"], asked(state="cleared")["open"]) == ([closed], 0)
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute(
            "UPDATE alarms SET raised = raised - interval '8 days', cleared = cleared - interval '7 days'"
        )
    assert [found["kind"] for found in asked()["alarms"]] == ["silent", "high"]


def test_what_is_open_comes_first_however_much_there_was_since(plain: Urls, asked: Asked) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        kept(connection, "101", "high", 5000)
        kept(connection, "102", "silent", 4000)
        for minute in range(1100):
            kept(connection, "103", "high", minute + 0.5, minute)
    answer = asked(limit=1000)
    assert [alarm["room_id"] for alarm in answer["alarms"][:3]] == ["102", "101", "103"]
    assert answer["open"] == 2
    rest = asked(limit=1000, after=answer["next"])
    assert len(rest["alarms"]) == 102 and rest["next"] is None


def test_pages_show_each_alarm_once(plain: Urls, asked: Asked) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        for number in range(7):
            # All at one instant, as silences are.
            kept(connection, f"{number}", "silent", 90)
            kept(connection, f"{number}", "high", number % 2, 0)
    every = asked()["alarms"]
    assert [alarm["cleared"] is None for alarm in every] == [True] * 7 + [False] * 7
    paged: list[Any] = []
    after: dict[str, str] = {}
    while True:
        answer = asked(limit=3, **after)
        paged += answer["alarms"]
        if not answer["next"]:
            break
        after = {"after": answer["next"]}
    assert paged == every


def test_a_week_before_the_first_week_is_what_there_is(asked: Asked) -> None:
    assert asked(end="0001-01-02T00:00:00Z")["alarms"] == []


def test_a_check_without_time_says_that_rooms_are_left(
    watch: Watch, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    function = watch(RULE)
    store((5, 40))
    monkeypatch.setattr(sys.modules["main"], "CHECK_SECONDS", -1)
    assert check(function) == (0, 0)
    assert "0 raised, 0 cleared, 0 sent, 0 unsent, the rest is left to the next check" in caplog.text
    monkeypatch.undo()
    assert check(function) == (1, 0)


def test_alarms_of_an_interval_are_those_that_lasted_in_it(plain: Urls, asked: Asked) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        kept(connection, "101", "high", 20, 10)
        kept(connection, "102", "high", 10)
    for start, end, rooms in (
        (30, 20, []),
        (30, 19, ["101"]),
        (15, 12, ["101"]),
        (15, 9, ["102", "101"]),
        (10, 5, ["102", "101"]),
        (9, 5, ["102"]),
    ):
        found = asked(start=written(start), end=written(end))["alarms"]
        assert [alarm["room_id"] for alarm in found] == rooms
