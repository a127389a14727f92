"""The time zone that the dashboard shows times in, and what was a week or a year before."""

import json
import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import (
    PHONE,
    accessible,
    ask_again,
    asked,
    fits,
    plot,
    reading,
    saved,
    schemes,
    shown,
    tile,
    view,
)

ROOM = ("B1", "101")
# In Zurich clocks are put forward on the 29th, in the middle of this week and not of the one before.
WEEK = {"start": "2026-03-25T23:00:00Z", "end": "2026-04-01T22:00:00Z"}
BEFORE = {"start": "2026-03-18T23:00:00Z", "end": "2026-03-25T23:00:00Z"}


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    """A reading every half hour of which the temperature is the local hour, and a hundredth of the day of the year."""
    zurich = ZoneInfo("Europe/Zurich")
    for first in ("2025-03-20T00:00:00Z", "2026-03-15T00:00:00Z"):
        begin = datetime.fromisoformat(first)
        instants = [begin + timedelta(minutes=30 * number) for number in range(48 * 20)]
        product.send(*(reading(*ROOM, _temperature(instant.astimezone(zurich)), instant) for instant in instants))
    product.send(reading("B1", "102", 20, datetime(2026, 3, 30, tzinfo=UTC)), reading(*ROOM, 21))


def _temperature(local: datetime) -> float:
    return local.hour + local.timetuple().tm_yday / 100 + (10 if local.year == 2025 else 0)


def _choose(page: Page, label: str, value: str) -> None:
    if not page.locator("#more[open]").count():
        page.locator("#more summary").click()
    if label == "Time zone":
        page.get_by_label(label).fill(value)
        page.keyboard.press("Enter")
    else:
        page.get_by_label(label).select_option(value)
    shown(page)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("europe/zurich", "Europe/Zurich"),
        ("utc", "UTC"),
        ("us/pacific", "America/Los_Angeles"),
        ("asia/calcutta", "Asia/Kolkata"),
        ("Europe/Kyiv", "Europe/Kyiv"),
    ],
)
def test_a_zone_may_be_written_as_the_browser_takes_it(visit: Visit, typed: str, name: str) -> None:
    page = shown(visit(view(ROOM, **WEEK, tz=typed)))
    expect(page.locator("#when")).to_contain_text(f"Times are those of {name} (")
    expect(page.locator("#notice")).to_be_hidden()
    page = shown(visit(view(ROOM, **WEEK)))
    _choose(page, "Time zone", typed)
    expect(page.locator("#when")).to_contain_text(f"Times are those of {name} (")
    expect(page.locator("#notice")).to_be_hidden()
    assert ("tz", name) in asked(page)


def test_zones_have_the_names_of_today(visit: Visit) -> None:
    """Chrome has those of before."""
    page = shown(visit(view(ROOM, **WEEK), timezone_id="Asia/Calcutta"))
    expect(page.locator("#when")).to_contain_text("Times are those of Asia/Kolkata (")
    page.locator("#more summary").click()
    offered = page.locator("#zones option").evaluate_all("(options) => options.map((option) => option.value)")
    table = (files("tzdata") / "zoneinfo" / "zone.tab").read_text()
    today = {line.split("\t")[2] for line in table.splitlines() if not line.startswith("#")}
    assert len(offered) > 400
    assert {*offered} <= today | {"UTC"}


@pytest.mark.parametrize("own", ["Europe/Zurich", "Europe/Berlin"])
def test_a_zone_that_only_the_browser_knows_is_asked_for_once(visit: Visit, tolerated: list[str], own: str) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 422")
    times = []

    def refuse(route: Route) -> None:
        times.append(route.request.url)
        fault = {"field": "tz", "message": "'Europe/Zurich' is no IANA time zone"}
        route.fulfill(status=422, content_type="application/problem+json", body=json.dumps({"errors": [fault]}))

    page = visit("/docs", timezone_id=own)
    page.route("**/series?*tz=Europe%2FZurich*", refuse)
    chosen = {} if own == "Europe/Zurich" else {"tz": "Europe/Zurich"}
    page.goto(page.url.replace("/docs", view(ROOM, last="hour", **chosen)))
    shown(page)
    expect(page.locator("#address")).to_have_text(
        "Left out of the address: tz=Europe/Zurich is no time zone that the server knows."
    )
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#when")).to_contain_text("UTC (UTC+00:00)" if chosen == {} else "Europe/Berlin (UTC+0")
    ask_again(page)
    shown(page)
    assert len(times) == 1


def test_times_are_those_of_the_zone_that_is_chosen(visit: Visit, product: Product) -> None:
    interval = {"start": "2026-03-28T23:00:00Z", "end": "2026-03-29T22:00:00Z"}
    page = shown(visit(view(ROOM, **interval), timezone_id="Asia/Tokyo"))
    expect(page.locator("#when")).to_have_text(
        "29 Mar, 08:00 \u2013 30 Mar, 07:00. Times are those of Asia/Tokyo (UTC+09:00)."
    )
    _choose(page, "Time zone", "Europe/Zurich")
    expect(page.locator("#when")).to_have_text(
        "29 Mar, 00:00 \u2013 30 Mar, 00:00. Times are those of Europe/Zurich (UTC+01:00, then UTC+02:00)."
    )
    assert asked(page)[2:] == [*interval.items(), ("tz", "Europe/Zurich")]
    expect(page.locator("#more-chosen")).to_have_text("Europe/Zurich")
    expect(page.get_by_label("From", exact=True)).to_have_value("2026-03-29T00:00")
    page.get_by_label("From", exact=True).fill("2026-03-29T03:30:00")
    page.get_by_role("button", name="Show", exact=True).click()
    shown(page)
    assert dict(asked(page))["start"] == "2026-03-29T01:30:00Z"
    name, text = saved(page)
    assert name == "temperature-B1-101-2026-03-29-033000-2026-03-30-000000.csv"
    assert text.splitlines()[1].startswith("2026-03-29T03:30:00+02:00,")
    page.get_by_text("Values as a table").click()
    expect(page.locator("#values tbody th").last).to_contain_text("03:30")
    page.reload()
    expect(page.locator("#when")).to_contain_text("29 Mar, 03:30")
    page.get_by_role("button", name="Earlier").click()
    shown(page)
    page.go_back()
    _choose(page, "Time zone", "")
    expect(page.locator("#when")).to_contain_text("Asia/Tokyo")
    assert "tz" not in dict(asked(page))


def test_days_of_the_chart_are_those_of_the_zone(visit: Visit, product: Product) -> None:
    year = {"start": "2025-03-31T23:00:00Z", "end": "2026-03-31T22:00:00Z"}
    page = shown(visit(view(ROOM, **year, tz="Europe/Zurich")))
    expect(page.locator("#caption")).to_contain_text("Average per day")
    points = product.ask("series", building_id="B1", room_id="101", tz="Europe/Zurich", **year)["series"]
    assert "2026-03-30T00:00:00+02:00" in {point["start"] for point in points}
    page.get_by_text("Values as a table").click()
    rows = page.locator("#values tbody tr")
    expect(rows).to_have_count(len(points))
    # The day of 23 hours.
    texts = rows.nth(2).locator("th, td").all_inner_texts()
    assert texts[0] == "29 Mar, 00:00 \u2013 30 Mar, 00:00"
    assert (texts[1], texts[-1]) == (f"{points[-3]['average_temperature']:.2f}", "46")


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_the_keyboard_reads_times_of_any_zone(visit: Visit, zone: str) -> None:
    page = shown(visit(view(ROOM, start="2026-03-28T00:00:00Z", end="2026-03-29T00:00:00Z", tz=zone)))
    plot(page).focus()
    page.keyboard.press("Home")
    local = datetime(2026, 3, 28, tzinfo=UTC).astimezone(ZoneInfo(zone))
    expect(plot(page)).to_have_attribute("aria-valuetext", re.compile(f"{local.day} Mar, {local:%H:%M} "))


def test_a_zone_that_is_none_is_said(visit: Visit) -> None:
    page = shown(visit(view(ROOM, **WEEK, tz="Europe/Basel")))
    expect(page.get_by_role("alert").filter(has_text="tz=Europe/Basel is no time zone")).to_be_visible()
    expect(page.locator("#when")).to_contain_text("Europe/Berlin")
    page.locator("#more summary").click()
    page.get_by_label("Time zone").fill("Europe/Basel")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No such time zone; one is Europe/Zurich.")).to_be_visible()
    assert accessible(page) == []


@pytest.mark.parametrize("before", ["week", "year"])
def test_what_was_before_is_drawn_behind_at_the_same_hours_of_the_calendar(
    visit: Visit, product: Product, before: str
) -> None:
    page = shown(visit(view(ROOM, **WEEK, tz="Europe/Zurich")))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    _choose(page, "Behind the chart", before)
    assert asked(page)[-1] == ("before", before)
    expect(page.locator("#caption")).to_contain_text(f"the light line is the {before} before")
    year = " 2025" if before == "year" else ""
    first = "19 Mar" if before == "week" else "26 Mar"
    expect(page.locator("#when")).to_contain_text(f"; behind it {first}{year}, 00:00")
    assert len([url for url in requested if "2026-03-18T23" in url or "2025-03-2" in url]) == 2
    interval = BEFORE if before == "week" else {"start": "2025-03-25T23:00:00Z", "end": "2025-04-01T22:00:00Z"}
    then = product.ask("average", building_id="B1", room_id="101", **interval)["average_temperature"]
    expect(page.locator("#summary .then")).to_have_text(f"{before} before {then:.2f} °C")
    expect(page.locator("#status")).to_contain_text(f"the {before} before {then:.2f} °C")
    page.get_by_text("Values as a table").click()
    head = page.locator("#values thead th").all_inner_texts()
    assert head[-1] == f"The {before} before"
    rows = [row.split("\t") for row in page.locator("#values tbody tr").all_inner_texts()]
    # The same local hours, although there is an hour less between now and then.
    ten = 10 if before == "year" else 0
    compared = [(float(row[1]), float(row[-1])) for row in rows if row[-1] != "\u2013" and "Mar, 02:" not in row[0]]
    assert len(compared) > 300
    assert {int(then) - int(now) for now, then in compared} == {ten}
    plot(page).focus()
    page.keyboard.press("End")
    expect(plot(page)).to_have_attribute("aria-valuetext", re.compile(f", the {before} before \\d+\\.\\d\\d °C"))
    keep(page, f"before-{before}")
    assert accessible(page) == []
    page.reload()
    expect(page.locator("#caption")).to_contain_text(f"the {before} before")
    _choose(page, "Behind the chart", "")
    expect(page.locator("#caption")).not_to_contain_text("before")
    expect(tile(page, "Average")).to_be_visible()


def test_several_rooms_have_what_was_before_too(visit: Visit) -> None:
    page = shown(visit(view(ROOM, ("B1", "102"), **WEEK, before="week")))
    expect(page.locator("#summary .then")).to_have_count(2)
    keep(page, "before-two")
    assert accessible(page) == []


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_the_settings_keep_nobody_out(visit: Visit, options: dict[str, object]) -> None:
    page = shown(visit(view(ROOM, **WEEK, tz="America/Argentina/ComodRivadavia", before="year"), **options))
    page.locator("#more summary").click()
    for scheme in schemes(page):
        assert accessible(page) == []
        assert fits(page)
        keep(page, f"more-{scheme}-{'phone' if options else 'desk'}", full_page=True)
