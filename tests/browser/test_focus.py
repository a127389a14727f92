"""Where the focus is after something was pressed or came: nobody who uses the keyboard begins at the top again."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from bench.stack import command, serve, target
from local.postgres import READER
from tests.browser.conftest import Product, Start, Visit
from tests.browser.support import PHONE, ask_again, plot, reading, room_of, saved, shown, view
from tests.support import wait_until

NOW = datetime.now(UTC)
ROOM = ("B1", "101")
ALARM = (
    "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared)"
    " VALUES ('B1', '{}', 'high', 28, 30, now() - interval '{} minutes', {})"
)


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    product.send(*(reading("B1", str(room), 21, NOW - timedelta(days=2)) for room in (101, 102, 103)))


@pytest.fixture(autouse=True)
def _no_alarms(product: Product) -> None:
    product.execute("DELETE FROM alarms")


def test_what_was_pressed_stays_focused_or_its_heir_is(visit: Visit) -> None:
    page = shown(visit(view(ROOM, last="hour")))
    page.get_by_role("button", name="Show the latest readings").press("Enter")
    expect(page.locator("#nothing")).to_be_hidden()
    expect(plot(page)).to_be_focused()
    readings = page.get_by_role("button", name="Readings")
    readings.focus()
    saved(page, "Readings")
    expect(readings).to_be_enabled()
    expect(readings).to_be_focused()
    page.get_by_label("From", exact=True).focus()
    page.go_back()
    expect(page.get_by_label("Hour")).to_be_focused()
    end = NOW - timedelta(minutes=10)
    page = shown(visit(view(ROOM, start=(end - timedelta(hours=1)).isoformat(), end=end.isoformat())))
    later = page.get_by_role("button", name="Later")
    later.press("Enter")
    expect(later).to_be_disabled()
    expect(later).to_be_focused()


def test_a_room_that_is_chosen_from_a_list_that_closes(visit: Visit) -> None:
    page = shown(visit(view(ROOM, last="hour"), **PHONE))
    button = page.get_by_role("button", name="Rooms")
    button.press("Enter")
    room_of(page, "102").press("Enter")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(button).to_be_focused()


def test_an_alarm_stays_focused_while_others_come_and_go(visit: Visit, product: Product) -> None:
    product.execute(ALARM.format("101", 9, "NULL"))
    product.execute(ALARM.format("102", 8, "NULL"))
    page = shown(visit(view(ROOM, last="day")))
    alarms = page.locator("#alarms-open")
    alarms.get_by_role("button", name="102").focus()
    product.execute(ALARM.format("103", 7, "NULL"))
    ask_again(page)
    expect(alarms.get_by_role("listitem")).to_have_count(3)
    expect(alarms.get_by_role("button", name="102")).to_be_focused()
    product.execute("UPDATE alarms SET cleared = now() WHERE room_id = '102'")
    ask_again(page)
    expect(alarms.get_by_role("button", name="101")).to_be_focused()
    product.execute("UPDATE alarms SET cleared = now() WHERE cleared IS NULL")
    ask_again(page)
    expect(page.locator("#alarms-cleared summary")).to_be_focused()
    product.execute("DELETE FROM alarms")
    ask_again(page)
    expect(page.get_by_role("main")).to_be_focused()


def test_the_only_alarm_that_is_over_and_then_forgotten_leaves_the_focus(visit: Visit, product: Product) -> None:
    product.execute(ALARM.format("101", 9, "NULL"))
    page = shown(visit(view(ROOM, last="day")))
    page.locator("#alarms-open").get_by_role("button").focus()
    product.execute("UPDATE alarms SET cleared = now()")
    ask_again(page)
    over = page.locator("#alarms-cleared summary")
    expect(over).to_be_focused()
    product.execute(ALARM.format("102", 8, "NULL"))
    product.execute("DELETE FROM alarms WHERE cleared IS NOT NULL")
    ask_again(page)
    expect(over).to_be_hidden()
    expect(page.get_by_role("main")).to_be_focused()


def test_an_alarm_of_the_chart_stays_focused_when_it_is_looked_at(visit: Visit, product: Product) -> None:
    for minutes in (50, 500):
        product.execute(ALARM.format("101", minutes, f"now() - interval '{minutes - 5} minutes'"))
    page = shown(visit(view(ROOM, last="day")))
    page.locator("#excursions summary").press("Enter")
    page.locator("#excursions button").last.press("Enter")
    expect(page.locator("#excursions button")).to_have_count(1)
    expect(page.locator("#excursions button")).to_be_focused()


def test_after_the_token_come_the_readings(visit: Visit, product: Product, tolerated: list[str]) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 401")
    token = "read-token-0123456789"
    with serve(command(), {**target("average", product.urls(READER)), "READ_TOKENS": token}) as served:
        page = visit(view(ROOM, last="day"), f"http://127.0.0.1:{served.port}")
        page.get_by_label("Token").fill(token)
        page.get_by_label("Token").press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        # It would ask again when the function has ended.
        page.close()


def test_the_list_of_rooms_stays_where_it_is_scrolled_when_a_room_comes(visit: Visit, start: Start) -> None:
    product = start()
    product.send(*(reading(f"B{building}", str(room), 21) for building in (1, 2) for room in range(200)))
    page = shown(visit("/", product.address))
    rooms = page.locator("#rooms")
    rooms.evaluate("(rooms) => { rooms.scrollTop = 0.9 * rooms.scrollHeight; }")
    # A building takes its whole height as soon as it is seen.
    wait_until(lambda: rooms.evaluate("({ scrollHeight }) => scrollHeight > 400 * 30"))
    scrolled = rooms.evaluate("({ scrollTop }) => scrollTop")
    product.send(reading("Z", "9", 5))
    ask_again(page)
    expect(rooms.get_by_role("button", name="5.00")).to_be_attached()
    assert rooms.evaluate("({ scrollTop }) => scrollTop") == scrolled


def test_a_list_of_rooms_that_gets_short_leaves_the_focus(visit: Visit, product: Product) -> None:
    product.send(*(reading("Many", str(room), 21) for room in range(8)))
    for room in ("101", "102"):
        product.execute(ALARM.format(room, 9, "NULL"))
    page = shown(visit(view(ROOM, last="day")))
    alarmed = page.get_by_role("button", name="Only rooms in alarm")
    alarmed.click()
    room_of(page, "102").focus()
    product.execute("UPDATE alarms SET cleared = now() WHERE room_id = '102'")
    ask_again(page)
    expect(room_of(page, "102")).to_be_hidden()
    expect(alarmed).to_be_focused()
    alarmed.click()
    room_of(page, "7").focus()
    product.execute("DELETE FROM rooms WHERE building_id = 'Many' AND room_id = '7'")
    ask_again(page)
    expect(room_of(page, "7")).to_have_count(0)
    expect(page.get_by_role("main")).to_be_focused()
    find = page.get_by_label("Find a room")
    find.focus()
    product.execute("DELETE FROM rooms WHERE building_id = 'Many'")
    ask_again(page)
    expect(find).to_be_hidden()
    expect(page.get_by_role("main")).to_be_focused()


def test_the_first_reading_is_told(visit: Visit, start: Start) -> None:
    product = start()
    page = visit("/", product.address)
    page.get_by_role("button", name="Copy").focus()
    product.send(reading(*ROOM, 21))
    ask_again(page)
    expect(page.get_by_role("main")).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("average 21.00 \u00b0C of 1 reading")
    product.execute("DELETE FROM rooms")
    ask_again(page)
    expect(page.get_by_role("heading", name="No readings yet")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()
