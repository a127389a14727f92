"""Alarms in the dashboard: in the chart, in the list of rooms, as words, on paper and on a phone."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Product, Visit, keep, milliseconds_of_a_move
from tests.browser.support import DAY, accessible, ask_again, fits, plot, reading, room_of, schemes, shown, view

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LANDSCAPE: dict[str, Any] = {"viewport": {"width": 844, "height": 390}, "has_touch": True, "is_mobile": True}
SCREENS: dict[str, dict[str, Any]] = {
    "390": PHONE,
    "landscape": LANDSCAPE,
    "768": {"viewport": {"width": 768, "height": 900}},
    "1280": {"viewport": {"width": 1280, "height": 820}},
    "1920": {"viewport": {"width": 1920, "height": 1000}},
}
START = datetime.fromisoformat(DAY["start"])
HOSTILE = "<img src=x onerror='window.hostile = 1'>\u202e"
ALARM = (
    "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared, noticed)"
    " SELECT '{building}', '{room}', '{kind}', {threshold}, {temperature}, {raised}, {cleared}, {noticed}"
)
# Of which kinds there are pixels in the chart at a place from 0 to 1, and how many colours there are.
DRAWN = """(place) => {
    const canvas = document.querySelector("#plot canvas");
    const over = document.querySelector("#plot .u-over");
    const ratio = canvas.width / canvas.clientWidth;
    const x = Math.round((over.offsetLeft + over.offsetWidth * place) * ratio);
    const { data } = canvas.getContext("2d").getImageData(x, over.offsetTop * ratio, 16, over.offsetHeight * ratio);
    const pixels = Array.from({ length: data.length / 4 }, (_, index) => data.slice(4 * index, 4 * index + 3).join());
    const hues = { high: "180,35,24", low: "29,78,216", silent: "86,99,115" };
    const kinds = Object.keys(hues).filter((kind) => pixels.includes(hues[kind]));
    return { kinds, colours: new Set(pixels).size };
}"""


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    """A day of two rooms, one of which is too warm from eight to ten and too cold from 16 to 18 o'clock (UTC)."""
    hours = {8: 30, 9: 29, 16: 10, 17: 11}
    quarters = [(number, START + number * timedelta(minutes=15)) for number in range(96)]
    product.send(
        *(reading("B1", "101", hours.get(number // 4, 21), instant) for number, instant in quarters),
        *(reading("B1", "102", 20, instant) for _, instant in quarters),
        *(reading("B1", f"other {number}", 20) for number in range(8)),
        reading("B2", HOSTILE, 20, START),
    )


@pytest.fixture(autouse=True)
def _no_alarms(product: Product) -> None:
    product.execute("DELETE FROM alarms")


def alarm(product: Product, room: str, kind: str, raised: str, cleared: str = "NULL", **values: Any) -> None:
    """Keep an alarm; instants are of SQL."""
    thresholds = {"high": (28, 30), "low": (16, 10), "silent": (900, 20)}
    threshold, temperature = thresholds[kind]
    given = {"building": "B1", "threshold": threshold, "temperature": temperature, "noticed": raised, **values}
    room, given["building"] = (name.replace("'", "''") for name in (room, given["building"]))
    product.execute(ALARM.format(room=room, kind=kind, raised=raised, cleared=cleared, **given))


def at(hours: float) -> str:
    """So many hours after the day began, in SQL."""
    return f"'{(START + timedelta(hours=hours)).isoformat()}'::timestamptz"


def day_of_alarms(product: Product) -> None:
    """Those of the day that the readings are of."""
    alarm(product, "101", "high", at(8), at(10))
    alarm(product, "101", "low", at(16), at(18))
    alarm(product, "101", "silent", at(20), at(22))


def listed(page: Page) -> list[str]:
    """What is said of the alarms of the chart."""
    if page.locator("#excursions").get_attribute("open") is None:
        page.locator("#excursions summary").click()
    return page.locator("#excursions li").all_inner_texts()


def test_the_chart_shows_from_when_to_when_a_room_was_in_alarm(
    visit: Visit, product: Product, tolerated: list[str]
) -> None:
    tolerated.append("Canvas2D: Multiple readback operations")
    day_of_alarms(product)
    page = shown(visit(view(("B1", "101"), **DAY)))
    expect(page.locator("#excursions summary")).to_have_text("Alarms in this interval: 3  too warm too cold silent")
    found = {hour: page.evaluate(DRAWN, hour / 24) for hour in (8.2, 16.2, 20.2, 13)}
    assert [drawn["kinds"] for drawn in found.values()] == [["high"], ["low"], ["silent"], []]
    # Hatched, so that not only the colour tells which is which.
    assert all((drawn["colours"] > found[13]["colours"] + 3) == (hour != 13) for hour, drawn in found.items())
    assert listed(page) == [
        "1 Dec 2024, 21:00 \u2013 23:00\nsilent: sent nothing for 15 minutes",
        "1 Dec 2024, 17:00 \u2013 19:00\ntoo cold: was 10.00 \u00b0C, less than 16.00 \u00b0C",
        "1 Dec 2024, 09:00 \u2013 11:00\ntoo warm: was 30.00 \u00b0C, more than 28.00 \u00b0C",
    ]
    assert accessible(page) == []
    keep(page, "alarms-of-a-room", full_page=True)


def test_the_keyboard_and_a_screen_reader_get_the_same(visit: Visit, product: Product) -> None:
    day_of_alarms(product)
    page = shown(visit(view(("B1", "101"), **DAY)))
    plot(page).focus()
    for key in ("Home", *["PageUp"] * 4, "ArrowLeft"):
        page.keyboard.press(key)
    expect(plot(page)).to_have_attribute(
        "aria-valuetext",
        "1 Dec 2024, 10:45 \u2013 10:50: 29.00 \u00b0C, from 29.00 \u00b0C to 29.00 \u00b0C."
        " too warm: was 30.00 \u00b0C, more than 28.00 \u00b0C, 1 Dec 2024, 09:00 \u2013 11:00",
    )
    expect(page.locator("#tip")).to_contain_text("too warm: was 30.00 \u00b0C, more than 28.00 \u00b0C")
    keep(page, "alarms-tip")
    page.locator("#excursions summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    # It leads to the chosen one, with an hour around it.
    expect(page.locator("#when")).to_contain_text("1 Dec 2024, 16:00 \u2013 20:00")
    expect(page.locator("#excursions li")).to_have_count(1)


def test_of_several_rooms_each_has_its_own(visit: Visit, product: Product) -> None:
    day_of_alarms(product)
    alarm(product, "102", "high", at(9), at(12))
    page = shown(visit(view(("B1", "101"), ("B1", "102"), **DAY)))
    assert [text.split("\n")[1] for text in listed(page)] == ["B1 / 101", "B1 / 101", "B1 / 102", "B1 / 101"]
    assert accessible(page) == []
    keep(page, "alarms-of-two", full_page=True)
    page = shown(visit(view(("B1", None), ("B1", "101"), **DAY)))
    # A room and its building have the same ones, which are listed once.
    assert len(listed(page)) == 4


def test_rooms_in_alarm_are_marked_and_found(visit: Visit, product: Product) -> None:
    alarm(product, "101", "high", "now() - interval '1 hour'", temperature=28.0001)
    alarm(product, "101", "silent", "now()")
    alarm(product, "other 3", "low", "now()")
    page = shown(visit(view(("B1", "102"), **DAY)))
    expect(room_of(page, "101")).to_contain_text("too warm")
    expect(room_of(page, "101")).to_contain_text("silent")
    expect(room_of(page, "All rooms")).to_contain_text("2 in alarm")
    expect(room_of(page, "102")).not_to_contain_text("too")
    only = page.get_by_role("button", name="Only rooms in alarm (2)")
    only.click()
    expect(page.locator("#rooms li:visible")).to_have_count(3)
    keep(page, "alarms-rooms")
    page.get_by_label("Find a room").fill("other")
    expect(page.locator("#rooms li:visible")).to_have_count(1)
    page.get_by_label("Find a room").fill("")
    product.execute("UPDATE alarms SET cleared = now() WHERE kind <> 'low'")
    ask_again(page)
    expect(page.locator("#rooms li:visible")).to_have_count(2)
    product.execute("UPDATE alarms SET cleared = now() WHERE cleared IS NULL")
    ask_again(page)
    # With the last one the rooms are back.
    expect(page.locator("#rooms li:visible")).to_have_count(12)
    expect(page.get_by_text("was 28.0001 \u00b0C, more than 28.0000 \u00b0C").first).to_be_attached()


@pytest.mark.parametrize("options", SCREENS.values(), ids=SCREENS)
def test_nobody_is_kept_out(visit: Visit, product: Product, options: dict[str, Any]) -> None:
    day_of_alarms(product)
    alarm(product, "101", "high", "now() - interval '400 days'")
    alarm(product, "102", "high", at(9), at(12))
    for number, rooms in (("one", [("B1", "101")]), ("two", [("B1", "101"), ("B1", "102")])):
        page = shown(visit(view(*rooms, **DAY), **options))
        listed(page)
        for scheme in schemes(page):
            assert fits(page)
            assert accessible(page) == []
            keep(page, f"alarms-{options['viewport']['width']}-{scheme}-{number}", full_page=True)
    if options in (PHONE, LANDSCAPE):
        rooms_button = page.get_by_role("button", name="Rooms")
        expect(rooms_button).to_contain_text("1 in alarm")
        rooms_button.tap()
        expect(room_of(page, "101")).to_contain_text("too warm")
        assert fits(page)
        box = plot(page).bounding_box()
        assert box and box["height"] >= 200


def test_it_is_asked_only_for_alarms_that_are_not_known(visit: Visit, product: Product) -> None:
    alarm(product, "101", "high", "now() - interval '2 hours'", "now() - interval '1 hour'")
    alarm(product, "101", "low", "now() - interval '40 days'", "now() - interval '39 days'")
    page = visit("/docs")
    questions: list[str] = []
    page.on("request", lambda request: questions.append(request.url) if "/alarms?" in request.url else None)
    for last, number, of_chart in (("day", 1, 1), ("week", 1, 1), ("year", 3, 2)):
        questions.clear()
        page.goto(page.url.partition("?")[0].replace("/docs", "/") + view(("B1", "101"), ("B1", "102"), last=last)[1:])
        shown(page)
        expect(page.locator("#excursions li")).to_have_count(of_chart)
        assert len(questions) == number, questions


def test_an_alarm_that_is_open_for_a_year_is_drawn_and_said(
    visit: Visit, product: Product, tolerated: list[str]
) -> None:
    tolerated.append("Canvas2D: Multiple readback operations")
    alarm(product, "101", "high", "now() - interval '400 days'")
    page = shown(visit(view(("B1", "101"), last="hour")))
    expect(page.get_by_role("region", name="1 alarm")).to_contain_text("more than 28.00 \u00b0C, last yr")
    (text,) = listed(page)
    began = (datetime.now(UTC) - timedelta(days=400)).astimezone(ZoneInfo("Europe/Berlin"))
    assert text.startswith(f"since {began.day} ") and f" {began.year}, " in text
    assert all(page.evaluate(DRAWN, place)["kinds"] == ["high"] for place in (0.01, 0.5, 0.95))
    keep(page, "alarms-for-a-year")
    page.locator("#excursions li button").click()
    # Up to now, since it goes on.
    expect(page.locator("#live")).to_be_visible()


def test_one_that_was_told_late_is_drawn_when_it_was_and_says_when_it_was_told(visit: Visit, product: Product) -> None:
    alarm(product, "101", "high", at(8), at(10), noticed="'2024-12-03T10:00:00Z'")
    page = shown(visit(view(("B1", "101"), **DAY)))
    (text,) = listed(page)
    assert text.startswith("1 Dec 2024, 09:00 \u2013 11:00\n")
    assert text.endswith(", told 3 Dec 2024, 11:00")


def test_the_hour_that_comes_twice_is_told_apart(visit: Visit, product: Product) -> None:
    product.send(reading("B1", "101", 30, datetime(2024, 10, 27, 0, 30, tzinfo=UTC)))
    alarm(product, "101", "high", "'2024-10-27T00:30:00Z'", "'2024-10-27T01:30:00Z'")
    page = shown(visit(view(("B1", "101"), start="2024-10-26T22:00:00Z", end="2024-10-27T23:00:00Z")))
    (text,) = listed(page)
    assert text.startswith("27 Oct 2024, 02:30 (UTC+02:00) \u2013 02:30 (UTC+01:00)\n")


def test_thousands_of_alarms_leave_the_page_fluid(visit: Visit, product: Product) -> None:
    product.execute(
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared)"
        " SELECT 'B1', '101', kind, 28, 29, at, at + interval '40 seconds'"
        " FROM generate_series(now() - interval '300 days', now() - interval '1 hour', '30 minutes') AS at,"
        " unnest(ARRAY['high', 'low', 'silent']) AS kind"
    )
    product.execute(
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
        " SELECT 'B1', 'open ' || number, 'silent', 900, 20, now() FROM generate_series(1, 12000) AS number"
    )
    product.execute("ANALYZE alarms")
    page = shown(visit(view(("B1", "101"), last="year")))
    expect(page.locator("#excursions summary")).to_contain_text("Alarms in this interval: the newest 1,000")
    expect(page.locator("#alarms-heading")).to_have_text("12,000 alarms")
    expect(page.get_by_role("status")).to_contain_text("12,000 alarms. \u2068B1\u2069 / \u2068101\u2069: ")
    assert len(listed(page)) == 101
    assert page.locator("#alarms-open li").count() == 101
    milliseconds = milliseconds_of_a_move(page)
    # A frame takes 16 of them.
    assert milliseconds < 16
    keep(page, "alarms-thousands", full_page=True)


def test_names_are_text(visit: Visit, product: Product) -> None:
    alarm(product, HOSTILE, "high", at(0), at(2), building="B2")
    alarm(product, HOSTILE, "low", "now()", building="B2")
    page = shown(visit(view(("B2", None), **DAY)))
    (text,) = listed(page)
    assert f"B2 / {HOSTILE}" in text
    assert page.evaluate("window.hostile") is None
    assert page.locator("#dashboard :is(script, img)").count() == 0


def test_it_can_be_printed(visit: Visit, product: Product) -> None:
    day_of_alarms(product)
    page = shown(visit(view(("B1", "101"), **DAY), color_scheme="dark"))
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#excursions li")).to_have_count(3)
    expect(page.locator(".tiles time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d$"))
    for hidden in ("aside", "#periods", ".tools", "nav"):
        expect(page.locator(hidden).first).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--surface')") == "#fff"
    assert fits(page)
    page.pdf(path=str(keep(page, "alarms-print", full_page=True).with_suffix(".pdf")))


def test_the_list_has_the_times_of_the_zone_that_is_chosen(visit: Visit, product: Product) -> None:
    alarm(product, "101", "high", at(8), at(10))
    page = shown(visit(view(("B1", "101"), **DAY)))
    assert listed(page)[0].startswith("1 Dec 2024, 09:00 \u2013 11:00\n")
    page.locator("#more summary").click()
    page.get_by_label("Time zone").fill("Asia/Tokyo")
    page.keyboard.press("Enter")
    expect(page.locator("#when")).to_contain_text("Asia/Tokyo")
    assert listed(page)[0].startswith("1 Dec 2024, 17:00 \u2013 19:00\n")


def test_an_alarm_of_a_kind_that_came_with_an_update_of_the_server_is_one(visit: Visit) -> None:
    page = visit("/docs")
    known = {"id": "1", "building_id": "B1", "room_id": "101", "kind": "humid", "threshold": 60, "temperature": 21}
    times = {"raised": "2024-12-01T08:00:00Z", "noticed": "2024-12-01T08:00:00Z", "cleared": None}
    answer = {"open": 1, "alarms": [{**known, **times}], "next": None}
    page.route("**/alarms?*", lambda route: route.fulfill(json=answer))
    page.goto(page.url.replace("/docs", view(("B1", "101"), **DAY)))
    shown(page)
    expect(page.get_by_role("region", name="1 alarm")).to_contain_text("humid: was 21.00 \u00b0C")
    expect(room_of(page, "101")).to_contain_text("humid")
    assert "humid: was 21.00 \u00b0C" in listed(page)[0]
