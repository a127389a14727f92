"""The dashboard as a person uses it."""

import random
import re
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from playwright.sync_api import Locator, Page, Route, expect

from bench.stack import command, function, serve, target
from local.postgres import READER
from tests.browser.conftest import Product, Start, Visit, keep, milliseconds_of_a_move
from tests.browser.support import (
    DAY,
    PHONE,
    WRITTEN,
    accessible,
    ask_again,
    asked,
    fits,
    plot,
    reading,
    room_of,
    row,
    saved,
    schemes,
    shown,
    tile,
    view,
)
from tests.support import LONG, NOWHERE, wait_until

HOSTILE = [
    "<script>window.hostile = 1</script>",
    '<img src=x onerror="window.hostile = 1">',
    "\"'>&lt;{{7*7}}${7*7}",
    "غرفة الاجتماعات",
    "\u202egnp.exe",
    "🌡️👩‍🔬🏢",
    "   ",
    "line\nbreak",
    "W" * 255,
    "=HYPERLINK(1)",
]


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    """A winter day of two rooms. Buckets hold different numbers of readings, so that their mean is not the average."""
    numbers = random.Random(1)
    start = datetime.fromisoformat(DAY["start"])
    for room, base in (("101", 21.0), ("102", 18.5)):
        instants = [start + timedelta(seconds=numbers.randrange(86400) ** 2 // 86400) for _ in range(900)]
        product.send(*(reading("B1", room, base + numbers.gauss(0, 1), instant) for instant in instants))


def test_a_room_is_shown_with_the_exact_average_of_the_interval(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    answer = product.ask("average", building_id="B1", room_id="101", **DAY)
    buckets = product.ask("series", building_id="B1", room_id="101", **DAY)["series"]
    mean = sum(bucket["average_temperature"] for bucket in buckets) / len(buckets)
    assert abs(answer["average_temperature"] - mean) > 0.001
    for name, field in (("Average", "average_temperature"), ("Lowest", "min"), ("Highest", "max")):
        expect(tile(page, name)).to_have_attribute("value", str(answer[field]))
        expect(tile(page, name)).to_have_text(f"{answer[field]:.2f} °C")
    expect(tile(page, "Readings")).to_have_text("900")
    expect(page.get_by_role("heading", name="B1 / 101")).to_be_visible()
    expect(page.locator("#caption")).to_have_text(re.compile("Average per 5 minutes"))
    expect(page.locator("#when")).to_have_text(
        "1 Dec 2024, 01:00 \u2013 2 Dec 2024, 01:00. Times are those of Europe/Berlin (UTC+01:00)."
    )
    keep(page, "room")


def test_a_day_of_simulated_rooms_as_the_readme_shows_it(visit: Visit, start: Start) -> None:
    product = start()
    rooms = [("Library", "Reading room"), ("Library", "Stacks"), ("Town hall", "Archive"), ("Town hall", "Lobby")]
    simulation: dict[str, Any] = {
        "rooms": [{"building_id": building, "room_id": room} for building, room in rooms],
        "profile": "daily",
        "backfill": "1d",
        "interval": 60,
    }
    answer = requests.post(f"{product.address}/simulate", json=simulation, timeout=60)
    assert answer.json()["emitted"] == 4 * 24 * 60
    page = shown(visit(view(*rooms[1:3], last="day"), product.address, viewport={"width": 1140, "height": 790}))
    expect(row(page, "Library / Stacks").locator("data").last).to_have_attribute("value", re.compile("14[34].|1440"))
    plot(page).focus()
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("PageDown")
    expect(page.locator("#tip")).to_be_visible()
    keep(page, "readme")


def test_the_values_of_the_chart_are_those_of_the_api(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    page.get_by_text("Values as a table").click()
    buckets = product.ask("series", building_id="B1", room_id="101", **DAY)["series"]
    rows = page.locator("#values tbody tr")
    expect(rows).to_have_count(len(buckets))
    last = buckets[-1]
    texts = [f"{last[field]:.2f}" for field in ("average_temperature", "min", "max")] + [str(last["count"])]
    assert rows.first.locator("td").all_inner_texts() == texts


def test_the_rooms_of_all_pages_are_listed(visit: Visit, product: Product) -> None:
    page = visit("/docs")
    page.route("**/rooms?*", lambda route: route.continue_(url=f"{route.request.url}&limit=1"))
    page.goto(page.url.replace("/docs", view(("B1", "101"), **DAY)))
    shown(page)
    for room in product.ask("rooms")["rooms"]:
        expect(page.get_by_label(f"Compare ⁨{room['building_id']}⁩ / ⁨{room['room_id']}⁩")).to_be_visible()


def test_rooms_are_compared_and_the_address_bar_holds_the_view(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    page.get_by_label("Compare ⁨B1⁩ / ⁨102⁩").check()
    page.get_by_label("Compare ⁨B1⁩, all rooms").check()
    for name, room in (("B1 / 101", {"room_id": "101"}), ("B1 / 102", {"room_id": "102"}), ("B1, all rooms", {})):
        answer = product.ask("average", building_id="B1", **room, **DAY)
        expect(row(page, name).locator("data").nth(1)).to_have_attribute("value", str(answer["average_temperature"]))
        expect(row(page, name).locator("data").last).to_have_attribute("value", str(answer["count"]))
    rooms = [
        ("building_id", "B1"),
        ("room_id", "101"),
        ("building_id", "B1"),
        ("room_id", "102"),
        ("building_id", "B1"),
    ]
    assert asked(page) == [*rooms, *DAY.items()]
    page.reload()
    expect(page.locator("#summary tbody tr")).to_have_count(3)
    expect(page.get_by_label("Compare ⁨B1⁩ / ⁨102⁩")).to_be_checked()
    keep(page, "compared")
    page.get_by_label("Compare ⁨B1⁩ / ⁨102⁩").uncheck()
    expect(page.locator("#summary tbody tr")).to_have_count(2)
    page.go_back()
    expect(page.locator("#summary tbody tr")).to_have_count(3)
    room_of(page, "102").click()
    expect(page.get_by_role("heading", name="B1 / 102")).to_be_visible()
    assert asked(page) == [("building_id", "B1"), ("room_id", "102"), *DAY.items()]


def test_intervals_that_end_now(visit: Visit) -> None:
    page = shown(visit("/"))
    # Without a room it begins with the first one.
    expect(page.get_by_label("Hour")).to_be_checked()
    for name in ("Day", "Week", "Month", "Year"):
        page.get_by_label(name, exact=True).check()
        assert ("last", name.lower()) in asked(page)
        shown(page)
    page.reload()
    expect(page.get_by_label("Year")).to_be_checked()


def test_an_interval_of_ones_own_is_in_ones_own_time(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), last="hour")))
    page.get_by_label("Custom").check()
    page.get_by_label("From", exact=True).fill("2024-12-01T07:30:00")
    page.get_by_label("To", exact=True).fill("2024-12-01T07:00:00")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#own-fault")).to_have_text("From must be before To.")
    page.get_by_label("To", exact=True).fill("2024-12-01T08:30:00")
    page.get_by_role("button", name="Show", exact=True).click()
    interval = {"start": "2024-12-01T06:30:00Z", "end": "2024-12-01T07:30:00Z"}
    answer = product.ask("average", building_id="B1", room_id="101", **interval)
    expect(tile(page, "Readings")).to_have_attribute("value", str(answer["count"]))
    assert asked(page)[2:] == list(interval.items())
    page.reload()
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-12-01T07:30")
    assert accessible(shown(page)) == []
    page.get_by_role("button", name="Earlier").click()
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-12-01T06:30")
    page.get_by_role("button", name="Later").click()
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-12-01T07:30")


def test_an_interval_that_is_half_typed_stays_while_something_else_is_chosen(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), last="hour")))
    page.get_by_label("Custom").check()
    page.get_by_label("From", exact=True).fill("2024-12-01T07:30:00")
    room_of(page, "102").click()
    shown(page)
    page.get_by_label("To", exact=True).fill("2024-12-01T08:30:00")
    page.get_by_role("button", name="Show", exact=True).click()
    shown(page)
    assert asked(page)[1:] == [
        ("room_id", "102"),
        ("start", "2024-12-01T06:30:00Z"),
        ("end", "2024-12-01T07:30:00Z"),
    ]
    page.get_by_label("Hour").check()
    page.get_by_label("Custom").check()
    page.get_by_label("Hour").check()
    expect(page.get_by_label("From", exact=True)).to_be_hidden()


def test_drawing_over_the_chart_narrows_the_interval_and_shows_more_detail(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    box = page.locator("#plot .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80, steps=5)
    page.mouse.up()
    shown(page)
    start, end = (datetime.fromisoformat(value) for _, value in asked(page)[2:])
    assert abs((start - datetime.fromisoformat("2024-12-01T06:00:00Z")).total_seconds()) < 300
    assert abs((end - datetime.fromisoformat("2024-12-01T12:00:00Z")).total_seconds()) < 300
    expect(page.locator("#caption")).to_have_text(re.compile("Average per minute"))


def test_no_interval_is_narrowed_to_nothing(visit: Visit, product: Product) -> None:
    product.send(reading("Narrow", "1", 20, datetime.fromisoformat("2024-12-01T10:00:03.400Z")))
    page = shown(visit(view(("Narrow", "1"), start="2024-12-01T10:00:00Z", end="2024-12-01T10:00:10Z")))
    box = page.locator("#plot .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.27, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.33, box["y"] + 50, steps=5)
    page.mouse.up()
    shown(page)
    expect(tile(page, "Readings")).to_have_text("1")
    assert asked(page)[2:] == [("start", "2024-12-01T10:00:03Z"), ("end", "2024-12-01T10:00:04Z")]
    expect(page.locator("#notice")).to_be_hidden()


def test_where_there_is_no_reading_the_keyboard_widens_the_interval(visit: Visit) -> None:
    interval = {"start": "2024-11-01T10:00:00Z", "end": "2024-11-01T11:00:00Z"}
    page = shown(visit(view(("B1", "101"), **interval)))
    expect(page.get_by_text("No readings in this interval.")).to_be_visible()
    plot(page).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("-")
    shown(page)
    assert asked(page)[2:] == [("start", "2024-11-01T09:30:00Z"), ("end", "2024-11-01T11:30:00Z")]


def test_there_is_nothing_later_than_now_however_fast_it_is_asked_for(visit: Visit) -> None:
    now = datetime.now().astimezone()
    before = {"start": (now - timedelta(hours=2)).isoformat(), "end": (now - timedelta(minutes=50)).isoformat()}
    page = shown(visit(view(("B1", "101"), **before)))
    page.evaluate("for (let times = 0; times < 3; times += 1) document.getElementById('later').click()")
    shown(page)
    start, _ = (datetime.fromisoformat(value) for _, value in asked(page)[2:])
    assert now - start > timedelta(minutes=45)


def test_the_mouse_reads_a_value(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), ("B1", "102"), **DAY)))
    box = page.locator("#plot .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50)
    series = [product.ask("series", building_id="B1", room_id=room, **DAY)["series"][-1] for room in ("101", "102")]
    last = [
        f"{each['average_temperature']:.2f} °C" for each in series if each["start"] == max(s["start"] for s in series)
    ]
    for text in last:
        expect(page.locator("#tip")).to_contain_text(text)
    keep(page, "tip")
    page.mouse.move(5, 5)
    expect(page.locator("#tip")).to_be_hidden()


def test_it_is_used_with_the_keyboard_alone(visit: Visit, product: Product) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the readings")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Custom")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+Tab")
    tab_to(page, room_of(page, "102"), backwards=True)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="B1 / 102")).to_be_visible()
    shown(page)
    tab_to(page, plot(page))
    page.keyboard.press("End")
    last = product.ask("series", building_id="B1", room_id="102", **DAY)["series"][-1]
    values = [f"{last[field]:.2f} °C" for field in ("average_temperature", "min", "max")]
    said = re.compile("2 Dec.*: " + re.escape("{}, from {} to {}".format(*values)))
    expect(plot(page)).to_have_attribute("aria-valuetext", said)
    page.keyboard.press("ArrowLeft")
    expect(plot(page)).not_to_have_attribute("aria-valuetext", said)
    keep(page, "keyboard")
    page.keyboard.press("+")
    shown(page)
    start, end = (datetime.fromisoformat(value) for _, value in asked(page)[2:])
    assert end - start == timedelta(hours=12)
    page.keyboard.press("End")
    expect(plot(page)).not_to_have_attribute("aria-valuenow", "0")
    # Of the next interval there may be fewer values.
    page.keyboard.press("Escape")
    expect(plot(page)).to_have_attribute("aria-valuenow", "0")


def tab_to(page: Page, wanted: Locator, *, backwards: bool = False) -> None:
    for _ in range(40):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{wanted} is not reached")


def test_a_reading_that_was_just_sent_is_shown(visit: Visit, product: Product) -> None:
    product.send(reading("Live", "1", 19.5))
    page = shown(visit(view(("Live", "1"), last="hour")))
    expect(tile(page, "Now")).to_have_text("19.50 °C")
    product.send(reading("Live", "1", 23.25))
    # It asks again after 20 times as long as the answers took.
    expect(tile(page, "Now")).to_have_text("23.25 °C", timeout=60_000)
    expect(tile(page, "Readings")).to_have_text("2")
    expect(tile(page, "Average")).to_have_text("21.38 °C")
    expect(room_of(page, "1 23.25 °C")).to_be_visible()
    assert page.title() == "23.25 °C · ⁨Live⁩ / ⁨1⁩"


def test_alarms_are_shown_while_they_last_and_lead_to_their_room(visit: Visit, product: Product) -> None:
    product.execute(
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared) VALUES"
        " ('B1', '102', 'high', 22, 29.1, now() - interval '5 minutes', NULL),"
        " ('B1', '101', 'silent', 900, 20, now() - interval '2 hours', now() - interval '1 hour')"
    )
    page = shown(visit(view(("B1", "101"), **DAY)))
    alarms = page.get_by_role("region", name="1 alarm")
    expect(alarms).to_contain_text("too warm: was 29.10 °C, more than 22.00 °C, 5 min ago")
    expect(alarms).to_contain_text("Over again within the last 7 days: 1")
    expect(room_of(page, "102")).to_contain_text("too warm")
    expect(room_of(page, "101")).not_to_contain_text("silent")
    assert accessible(page) == []
    keep(page, "alarm")
    alarms.get_by_role("button", name="B1 / 102").click()
    expect(page.locator("#name")).to_have_text("B1 / 102")
    page.get_by_text("Over again").click()
    expect(alarms).to_contain_text("silent: sent nothing for 15 minutes, from 2 hr ago to 1 hr ago")
    product.execute("UPDATE alarms SET cleared = now() WHERE cleared IS NULL")
    ask_again(page)
    expect(page.get_by_role("region", name="No alarm now")).to_contain_text("Over again within the last 7 days: 2")
    expect(room_of(page, "102")).not_to_contain_text("too warm")
    product.execute("DELETE FROM alarms")
    ask_again(page)
    expect(page.locator("#alarms")).to_be_hidden()


def test_nothing_is_asked_while_nobody_looks(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), last="hour")))
    page.clock.install()
    page.reload()
    shown(page)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.clock.run_for(600_000)
    assert requested == []
    with page.expect_response("**/average?*"), page.expect_response("**/series?*"):
        page.evaluate(hide, False)
    page.wait_for_load_state("networkidle")
    with page.expect_request("**/average?*"):
        page.clock.run_for(60_000)
    live = page.get_by_role("button", name="Live")
    live.click()
    shown(page)
    page.wait_for_load_state("networkidle")
    requested.clear()
    page.clock.run_for(600_000)
    assert requested == []
    expect(live).to_have_attribute("aria-pressed", "false")


def test_what_was_paused_can_go_on_whatever_is_looked_at(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), last="hour")))
    live = page.get_by_role("button", name="Live")
    live.click()
    page.get_by_role("button", name="Earlier").click()
    expect(page.get_by_role("button", name="Later")).to_be_enabled()
    expect(live).to_have_attribute("aria-pressed", "false")
    live.click()
    expect(live).to_be_hidden()
    expect(page.get_by_role("button", name="Earlier")).to_be_focused()


def test_an_interval_that_ends_while_it_is_looked_at_is_whole(visit: Visit, product: Product) -> None:
    product.send(reading("End", "1", 20))
    page = shown(visit(view(("End", "1"), last="hour")))
    end = datetime.now(UTC) + timedelta(seconds=4)
    product.send(reading("End", "1", 30, end - timedelta(milliseconds=1)))
    interval = {"start": (end - timedelta(hours=1)).isoformat(), "end": end.isoformat()}
    # Without loading the page again, which may take longer.
    page.evaluate("(address) => history.pushState(null, '', address)", view(("End", "1"), **interval))
    page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")
    expect(page.get_by_label("Custom")).to_be_checked()
    shown(page)
    expect(tile(page, "Highest")).to_have_text("20.00 °C")
    expect(page.get_by_role("button", name="Live")).to_be_visible()
    wait_until(lambda: datetime.now(UTC) > end)
    ask_again(page)
    expect(tile(page, "Highest")).to_have_text("30.00 °C")
    expect(page.get_by_role("button", name="Live")).to_be_hidden()
    expect(page.get_by_role("button", name="Later")).to_be_enabled()


def test_a_room_without_readings_in_the_interval_leads_to_its_latest(visit: Visit) -> None:
    page = visit(view(("B1", "101"), last="hour"))
    expect(page.get_by_text("No readings in this interval.")).to_be_visible()
    expect(tile(page, "Average")).to_have_text("\u2013")
    keep(page, "nothing")
    assert accessible(page) == []
    page.get_by_role("button", name="Show the latest readings").click()
    expect(page.get_by_text("No readings in this interval.")).to_be_hidden()
    expect(tile(page, "Average")).not_to_have_text("\u2013")


def test_without_any_reading_it_says_how_to_send_one(visit: Visit, start: Start) -> None:
    product = start()
    page = visit("/", product.address)
    expect(page.get_by_role("heading", name="No readings yet")).to_be_visible()
    assert accessible(page) == []
    keep(page, "empty")
    shell = page.locator("#command").inner_text()
    # What a terminal makes of it.
    (address,) = re.findall(r"http://\S+", shell)
    (body,) = re.findall("-d '(.*)'", shell)
    answer = requests.post(address, data=body, headers={"Content-Type": "application/json"}, timeout=20)
    assert answer.status_code == 201
    expect(page.get_by_role("heading", name="B1 / 101")).to_be_visible()
    expect(tile(page, "Now")).to_have_text("21.50 °C")


def test_a_database_that_is_away_is_said_and_what_was_shown_stays(
    visit: Visit, start: Start, tolerated: list[str]
) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 503")
    product = start(DEADLINE_SECONDS="1")
    product.send(reading("B1", "101", 21))
    page = shown(visit("/", product.address))
    expect(tile(page, "Average")).to_have_text("21.00 °C")
    database = urlsplit(product.urls(READER)).path[1:]
    product.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {READER}")
    product.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{READER}'")
    # Which it does after longer where the answers took long.
    ask_again(page)
    expect(page.get_by_role("alert").filter(has_text="The database does not answer")).to_be_visible()
    expect(tile(page, "Average")).to_have_text("21.00 °C")
    keep(page, "away")
    assert accessible(page) == []
    product.execute(f"GRANT CONNECT ON DATABASE {database} TO PUBLIC")
    expect(page.locator("#notice")).to_be_hidden(timeout=20_000)


def test_from_the_start_without_a_database(visit: Visit, tolerated: list[str]) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 503")
    with serve(command(), {**target("average", NOWHERE), "DEADLINE_SECONDS": "1"}) as served:
        page = visit("/", f"http://127.0.0.1:{served.port}")
        expect(page.get_by_role("alert").filter(has_text="The database does not answer")).to_be_visible()
        keep(page, "away-from-the-start")


def test_offline(visit: Visit, tolerated: list[str]) -> None:
    tolerated.append("Failed to load resource: net::ERR_INTERNET_DISCONNECTED")
    page = shown(visit(view(("B1", "101"), last="year")))
    page.context.set_offline(True)
    page.get_by_label("Month").check()
    expect(page.get_by_role("alert").filter(has_text="You are offline.")).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator("#notice")).to_be_hidden()


def test_where_a_token_is_needed_it_asks_for_one_and_keeps_it_in_this_tab(
    visit: Visit, product: Product, tolerated: list[str]
) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 401")
    token = "read-token-0123456789"
    with serve(command(), {**target("average", product.urls(READER)), "READ_TOKENS": token}) as served:
        page = visit(view(("B1", "101"), **DAY), f"http://127.0.0.1:{served.port}")
        expect(page.get_by_label("Token")).to_be_focused()
        expect(page.locator("#dashboard")).to_be_hidden()
        keep(page, "token")
        assert accessible(page) == []
        page.keyboard.type("not-the-token-0123456789")
        page.keyboard.press("Enter")
        expect(page.get_by_text("This token does not allow reading")).to_be_visible()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Continue").click()
        shown(page)
        expect(tile(page, "Readings")).to_have_text("900")
        assert saved(page)[1].count("\r\n") > 100
        page.reload()
        expect(tile(page, "Readings")).to_have_text("900")
        assert token not in page.url
        assert page.context.storage_state() == {"cookies": [], "origins": []}


def test_names_are_text_whatever_they_say(visit: Visit, product: Product) -> None:
    product.send(*(reading(name, other, 20) for name, other in zip(HOSTILE, reversed(HOSTILE), strict=True)))
    product.send(*(reading("Tower", name, 20) for name in HOSTILE))
    for name, options in (("hostile", {}), ("hostile-phone", PHONE)):
        page = shown(visit(view(*(("Tower", each) for each in HOSTILE[:8]), last="hour"), **options))
        assert page.locator("#summary tbody th").all_text_contents() == [f"Tower / {each}" for each in HOSTILE[:8]]
        assert fits(page)
        keep(page, name)
        assert accessible(page) == []
        page = shown(visit(view((HOSTILE[1], HOSTILE[8]), last="hour"), **options))
        assert page.locator("#name").text_content() == f"{HOSTILE[1]} / {HOSTILE[8]}"
        assert fits(page)
        keep(page, f"{name}-long")
        assert page.evaluate("window.hostile") is None
        assert page.locator("#dashboard :is(script, img)").count() == 0


def test_many_rooms_are_found_by_a_part_of_their_name(visit: Visit, product: Product) -> None:
    product.send(*(reading("Many", f"{number:03}", 20) for number in range(300)))
    page = shown(visit(view(("B1", "101"), **DAY)))
    page.get_by_label("Find a room").fill("many / 29")
    expect(page.locator("#rooms li:visible")).to_have_count(10)
    room_of(page, "295").click()
    expect(page.get_by_role("heading", name="Many / 295")).to_be_visible()
    page.get_by_label("Find a room").fill("nowhere")
    expect(page.get_by_text("No room has that in its name.")).to_be_visible()
    page.get_by_label("Find a room").fill("many")
    for number in range(7):
        page.get_by_label(f"Compare ⁨Many⁩ / ⁨{number:03}⁩").check()
    expect(page.get_by_text("8 rooms are the most to compare.")).to_be_visible()
    expect(page.get_by_label("Compare ⁨Many⁩ / ⁨007⁩")).to_be_disabled()


def test_a_letter_with_a_mark_is_found_however_it_is_encoded(visit: Visit, product: Product) -> None:
    product.send(*(reading("Marks", name, 20) for name in ("B\u00fcro", "Bu\u0308ro", *"12345678")))
    page = shown(visit(view(("B1", "101"), **DAY)))
    for typed in ("b\u00fcro", "bu\u0308ro"):
        page.get_by_label("Find a room").fill(typed)
        expect(page.locator("#rooms li:visible")).to_have_count(2)


def test_rooms_that_became_few_are_all_there(visit: Visit, product: Product) -> None:
    product.send(*(reading("Few", str(number), 20) for number in range(9)))
    page = shown(visit(view(("B1", "101"), **DAY)))
    page.get_by_label("Find a room").fill("nowhere")
    expect(page.locator("#rooms li:visible")).to_have_count(0)
    latest = {"temperature": 20, "timestamp": "2024-12-01T12:00:00Z"}
    left = [{"building_id": "B1", "room_id": room, "latest": latest} for room in ("101", "102")]
    page.route("**/rooms?*", lambda route: route.fulfill(json={"rooms": left, "next": None}))
    ask_again(page)
    # The building too.
    expect(page.locator("#rooms li:visible")).to_have_count(3)
    expect(page.get_by_label("Find a room")).to_be_hidden()


def test_the_room_that_is_shown_stays_when_one_before_it_begins_to_send(visit: Visit, start: Start) -> None:
    product = start()
    product.send(reading("B1", "101", 21))
    page = shown(visit("/", product.address))
    expect(page.get_by_role("heading", name="B1 / 101")).to_be_visible()
    room_of(page, "101").focus()
    product.send(reading("A1", "1", 5))
    for _ in range(2):
        with page.expect_response("**/average?*"):
            ask_again(page)
        expect(room_of(page, "5.00")).to_be_visible()
    expect(page.get_by_role("heading", name="B1 / 101")).to_be_visible()
    expect(page.locator("#rooms li.chosen")).to_contain_text("101")
    expect(room_of(page, "101")).to_be_focused()


def test_what_is_focused_and_scrolled_stays_so_when_new_values_come(visit: Visit, product: Product) -> None:
    rooms = [("Wide", f"room with a long name {number}") for number in range(3)]
    product.send(*(reading(*room, 20) for room in rooms))
    page = shown(visit(view(*rooms, last="day", above="20"), viewport={"width": 680, "height": 800}))
    table = page.get_by_role("region", name="The rooms compared")
    table.focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: table.evaluate("({ scrollLeft }) => scrollLeft"))
    product.send(reading(*rooms[0], 30))
    ask_again(page)
    expect(table).to_contain_text("30.00 \u00b0C")
    expect(table).to_be_focused()
    assert table.evaluate("({ scrollLeft }) => scrollLeft")


def test_what_is_selected_stays_so_unless_it_changes(visit: Visit, product: Product) -> None:
    now = datetime.now(UTC)
    product.send(reading("Copied", "1", 20, now - timedelta(minutes=30)))
    page = shown(visit(view(("Copied", "1"), last="hour")))
    page.get_by_text("Values as a table").click()
    oldest = page.locator("#values tbody tr").last.locator("td").first
    for number, (place, text) in enumerate([(tile(page, "Lowest"), "20.00 °C"), (oldest, "20.00")], start=2):
        place.evaluate("(place) => getSelection().selectAllChildren(place)")
        product.send(reading("Copied", "1", 25, now - timedelta(minutes=1, seconds=number)))
        ask_again(page)
        expect(tile(page, "Readings")).to_have_text(str(number))
        assert page.evaluate("String(getSelection())") == text


def test_letters_grow_together_and_nothing_is_written_over_something(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), last="year"), viewport={"width": 320, "height": 640}))
    assert fits(page)
    assert page.evaluate("(([title]) => title.scrollWidth <= title.clientWidth)(document.querySelectorAll('h1'))")
    keep(page, "320", full_page=True)
    sizes = "[...document.querySelectorAll('#summary dd, #summary dt, .tools button, body')]"
    sizes += ".map((each) => parseFloat(getComputedStyle(each).fontSize))"
    before = page.evaluate(sizes)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    assert page.evaluate(sizes) == pytest.approx([2 * size for size in before])
    assert fits(page)


def beyond(page: Page) -> Any:
    """The figures and buttons that are not within their frames."""
    return page.locator(".tiles :is(data, time), .segments span, .tools button").evaluate_all("""(all) =>
        all.filter((each) => each.getBoundingClientRect().right >
            each.closest(".card, .segments").getBoundingClientRect().right).map(({ textContent }) => textContent)""")


def test_the_letters_of_the_chart_are_as_large_as_the_reader_wants_letters(visit: Visit) -> None:
    for change, size in ("", 12), ("document.documentElement.style.fontSize = '32px'", 24):
        script = f"{WRITTEN}; addEventListener('readystatechange', () => {{ {change} }}, true)"
        page = shown(visit(view(("B1", "101"), **DAY), script=script))
        assert {text["size"] for text in page.evaluate("written")} == {size}
        assert beyond(page) == []
        keep(page, f"letters-{size}", full_page=True)


def test_figures_are_within_their_frames(visit: Visit, product: Product) -> None:
    product.send(reading("Cold", "1", -50))
    page = shown(visit(view(("Cold", "1"), last="hour"), locale="fa-IR"))
    for width in (360, 641, 768, 961, 1024, 1280):
        page.set_viewport_size({"width": width, "height": 820})
        assert beyond(page) == [], width
    keep(page, "figures")


def test_in_the_colours_of_the_system_what_is_chosen_has_a_frame(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), last="day"), script=WRITTEN, forced_colors="active"))
    style = "(element) => getComputedStyle(element).outlineStyle"
    spans = page.locator("#periods span")
    assert spans.evaluate_all("(all) => all.map((each) => getComputedStyle(each).outlineStyle)").count("solid") == 1
    live = page.get_by_role("button", name="Live")
    assert live.evaluate(style) == "solid"
    live.click()
    page.mouse.click(2, 2)
    expect(live).to_have_attribute("aria-pressed", "false")
    assert live.evaluate(style) != "solid"
    keep(page, "forced-colours")
    # What is drawn is as plain as what is written.
    assert {text["colour"] for text in page.evaluate("written")} == {"#000000"}


@pytest.mark.parametrize("width", [360, 1920, *([768] if LONG else [])])
def test_nobody_is_kept_out(visit: Visit, width: int) -> None:
    narrow = width == PHONE["viewport"]["width"]
    options = PHONE if narrow else {"viewport": {"width": width, "height": 900}}
    for name, rooms in (("one", [("B1", "101")]), ("two", [("B1", "101"), ("B1", "102")])):
        page = shown(visit(view(*rooms, **DAY), **options))
        for scheme in schemes(page):
            assert fits(page)
            keep(page, f"{width}-{scheme}-{name}", full_page=True)
            if narrow:
                expect(page.locator("#rooms")).to_be_hidden()
                page.get_by_role("button", name="Rooms").tap()
                expect(page.locator("#rooms")).to_be_visible()
                assert accessible(page) == []
                page.get_by_role("button", name="Rooms", expanded=True).tap()
            page.get_by_text("Values as a table").click()
            assert accessible(page) == []
            assert fits(page)
            page.get_by_text("Values as a table").click()


def painted(page: Page) -> float:
    """Milliseconds from when the page was asked for until something is to be seen."""
    asked = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    return float(wait_until(lambda: page.evaluate(asked)))


def test_the_first_picture_waits_for_no_script_and_no_answer(visit: Visit, product: Product) -> None:
    page = visit("/health")
    held: list[Route] = []
    # That which begins is small, and all the others are behind it.
    page.route(re.compile(r"/files/(?!start\.)\w+\.js$|/v1/"), lambda route: held.append(route))
    page.goto(product.address + view(("B1", "101"), **DAY), wait_until="commit")
    painted(page)
    expect(page.get_by_role("heading", name="Temperature", exact=True)).to_be_visible()
    assert held
    for route in held:
        route.continue_()
    page.unroute_all()
    shown(page)


def test_the_first_picture_is_there_at_once(visit: Visit, product: Product) -> None:
    """Soon after that of a page which is a line of text, whatever else the machine does."""
    with function("average", product.urls(READER)) as served:
        paints: dict[str, list[float]] = {"/health": [], view(("B1", "101"), **DAY): []}
        for _ in range(5):
            for path, found in paints.items():
                page = visit(path, f"http://127.0.0.1:{served.port}")
                found.append(painted(page))
                # It would ask again when the function has ended.
                page.close()
    line, dashboard = (median(found) for found in paints.values())
    print(f"{dashboard:.0f} ms, a line of text {line:.0f} ms")
    assert dashboard < max(200, 6 * line), paints


def test_a_year_of_twenty_rooms_stays_fluid(visit: Visit, product: Product) -> None:
    """With a reading every half hour: a thirtieth of what such rooms send, for which loading would take too long."""
    product.execute("""
        INSERT INTO temperatures
        SELECT 'Year', lpad(room::text, 2, '0'), instant, 20 + 4 * sin(extract(epoch FROM instant)::float8 / 1e6)
        FROM generate_series(1, 20) AS room,
             generate_series(date_trunc('hour', now()) - interval '365 days', now(), '30 minutes') AS instant
    """)
    page = shown(visit(view(*(("Year", f"{room:02}") for room in range(1, 9)), last="year")))
    expect(page.locator("#summary tbody tr")).to_have_count(8)
    milliseconds = milliseconds_of_a_move(page)
    keep(page, "year")
    # A frame takes 16 of them.
    assert milliseconds < 16
    page.get_by_text("Values as a table").click()
    assert page.locator("#values tbody tr").count() <= 500


def test_an_address_that_makes_no_sense_is_said(visit: Visit, tolerated: list[str]) -> None:
    page = visit(f"/?building_id={quote('B1')}&start=%2B000000-01-01T00:00:00Z")
    expect(page.get_by_role("alert").filter(has_text="start=+000000-01-01T00:00:00Z is no timestamp")).to_be_visible()
    tolerated.append("Failed to load resource: the server responded with a status of 422")
    page = visit(f"/?building_id={'B' * 256}")
    expect(page.get_by_role("alert").filter(has_text="building_id must be a string of 1 to 255")).to_be_visible()
