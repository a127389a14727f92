"""What is drawn in the dashboard's chart, and how large it is what people are to hit."""

import re
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import DAY, PHONE, WRITTEN, asked, plot, reading, shown, tile, view
from tests.support import LONG, wait_until

START = datetime.fromisoformat(DAY["start"])
# Whether the chart is as wide as its place, and drawn so.
FITTED = """() => {
    const [plot, canvas] = ["#plot", "#plot canvas"].map((each) => document.querySelector(each));
    return canvas.clientWidth === plot.clientWidth && written.length && written[0].canvas === canvas.width;
}"""
# How many pixels of the first series there are in each hundredth of the chart, from left to right.
DRAWN = """() => {
    const canvas = document.querySelector("#plot canvas");
    const over = document.querySelector("#plot .u-over");
    const ratio = canvas.width / canvas.clientWidth;
    const [left, width] = [over.offsetLeft * ratio, over.offsetWidth * ratio];
    const context = canvas.getContext("2d");
    return Array.from({ length: 100 }, (_, part) => {
        const { data } = context.getImageData(left + (width * part) / 100, 0, width / 100, canvas.height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4) count += data[i] === 29 && data[i + 1] === 95 && data[i + 2] === 209;
        return count;
    });
}"""
SMALL = """() => [...document.querySelectorAll("a, button, input, summary, [tabindex='0']")]
    .map((each) => (each.matches(".segments input") ? each.parentElement : each))
    .filter((each) => each.checkVisibility({ visibilityProperty: true }) && !each.matches(".skip, p a"))
    .map((each) => ({ each: each.outerHTML.slice(0, 80), ...each.getBoundingClientRect().toJSON() }))
    .filter(({ width, height }) => width && (width < 24 || height < 24))
    .map(({ each, width, height }) => `${each}: ${width} x ${height}`)"""


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    def every(room: str, step: timedelta, number: int, temperature: float = 20) -> list[dict[str, Any]]:
        return [reading("B1", room, temperature, START + step * index) for index in range(number)]

    product.send(
        *every("minutes", timedelta(minutes=1), 1440),
        *every("hours", timedelta(hours=1), 24),
        *every("morning and evening", timedelta(hours=23), 2),
        *every("years", timedelta(days=365), 3),
        *(reading("B1", "near", 24.2 + index / 100, START + timedelta(hours=index)) for index in range(20)),
        {**reading("B1", "nothing", 0, START), "temperature": -0.001},
    )
    product.execute(
        "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared) VALUES"
        " ('B1', 'near', 'high', 24, 24.001, now(), NULL), ('B1', 'hours', 'low', 16, 15.5, now(), now())"
    )


LOCALES = ["en-US", "pt-BR", "en-GB", "de-DE", "sq-AL", "el-GR", "ta-IN", "fa-IR"]
"""With clocks of 24 and of 12 hours, short and long names of days, another calendar and other digits."""
VIEWS = {
    "evening": {"start": "2024-12-01T16:10:00Z", "end": "2024-12-01T20:41:00Z"},
    "minutes": {"start": "2024-12-01T19:33:00Z", "end": "2024-12-01T19:41:00Z"},
    "day": DAY,
    "week": {"start": "2024-11-25T00:00:00Z", "end": "2024-12-02T05:00:00Z"},
    "turn of the year": {"start": "2024-12-09T23:00:00Z", "end": "2025-01-01T01:00:00Z"},
    "years": {"start": "2022-10-15T00:00:00Z", "end": "2025-10-05T00:00:00Z"},
    "clocks are put back": {"start": "2024-10-26T20:00:00Z", "end": "2024-10-27T01:30:00Z"},
    "the hour that comes again": {"start": "2024-10-27T01:00:00Z", "end": "2024-10-27T02:00:00Z"},
    "clocks are put forward": {"start": "2024-03-30T20:00:00Z", "end": "2024-04-01T01:30:00Z"},
}
WIDTHS = (390, 768, 1280, 1920)


@pytest.mark.parametrize("locale", LOCALES if LONG else LOCALES[:1])
def test_every_label_of_the_axes_is_whole(visit: Visit, locale: str) -> None:
    page = visit("/docs", locale=locale, script=WRITTEN)
    address = page.url.replace("/docs", "")
    for name, interval in VIEWS.items():
        page.goto(address + view(("B1", "near"), **interval))
        shown(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 820})
            page.wait_for_function(FITTED)
            assert_whole(page.evaluate("written"))
            if name == "evening":
                keep(page, f"axis-{locale}-{width}", full_page=True)
        if name == "day":
            decimal = "," if locale in {"de-DE", "pt-BR"} else "."
            assert locale not in LOCALES[:4] or f"24{decimal}" in str(page.evaluate("written"))


def assert_whole(written: list[dict[str, Any]]) -> None:
    """Nothing that is written on the canvas goes beyond it, or runs into what is beside it."""
    assert len({text["y"] for text in written}) > 3
    lines: dict[float, list[dict[str, Any]]] = {}
    for text in written:
        assert text["left"] >= 0, text
        assert text["right"] <= text["canvas"], text
        if text not in lines.setdefault(text["y"], []):
            lines[text["y"]].append(text)
    # Those of the times.
    for line in sorted(lines.values(), key=lambda texts: texts[0]["y"])[-2:]:
        line.sort(key=lambda text: float(text["left"]))
        for one, other in pairwise(text for text in line if text["text"]):
            assert one["right"] + 4 <= other["left"], (one, other)


def test_what_is_rounded_to_nothing_has_no_sign(visit: Visit) -> None:
    page = shown(visit(view(("B1", "nothing"), **DAY)))
    expect(tile(page, "Average")).to_have_text("0.00 \u00b0C")
    expect(tile(page, "Average")).to_have_attribute("value", "-0.001")


@pytest.mark.parametrize(
    ("room", "interval", "joined"),
    [
        ("minutes", DAY, True),
        ("hours", DAY, True),
        ("morning and evening", DAY, False),
        ("years", {"start": "2024-06-01", "end": "2027-06-01"}, False),
    ],
)
def test_points_are_joined_if_they_are_near(
    visit: Visit, tolerated: list[str], room: str, interval: dict[str, str], joined: bool
) -> None:
    tolerated.append("Canvas2D: Multiple readback operations")
    page = shown(visit(view(("B1", room), **interval)))
    filled = sum(count > 0 for count in page.evaluate(DRAWN))
    assert (filled > 90) if joined else (0 < filled < 10)


def test_an_alarm_is_told_with_the_digits_that_it_takes(visit: Visit) -> None:
    page = shown(visit(view(("B1", "near"), **DAY)))
    expect(page.locator("#alarms-open")).to_contain_text("was 24.001 \u00b0C, more than 24.000 \u00b0C")
    page.get_by_text("Over again").click()
    expect(page.locator("#alarms-cleared")).to_contain_text("was 15.50 \u00b0C, less than 16.00 \u00b0C")


@pytest.mark.parametrize("options", [{}, PHONE])
def test_what_is_clicked_is_large_enough(visit: Visit, options: dict[str, Any]) -> None:
    """24 pixels, by WCAG 2.2, 2.5.8."""
    page: Page = shown(visit(view(("B1", "near"), ("B1", "hours"), **DAY), **options))
    page.get_by_text("Over again").click()
    page.get_by_label("Custom").check()
    page.get_by_text("Values as a table").click()
    expect(page.locator("#values tbody tr").first).to_be_visible()
    if options:
        page.get_by_role("button", name="Rooms").click()
    assert page.evaluate(SMALL) == []


def test_two_fingers_on_the_chart_enlarge_the_page(visit: Visit) -> None:
    page = shown(visit(view(("B1", "near"), **DAY), **PHONE))
    over = page.locator("#plot .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for step in range(20):
        points = [{"x": x + side * (20 + 4 * step), "y": y, "id": side + 1} for side in (-1, 1)]
        session.send("Input.dispatchTouchEvent", {"type": "touchMove" if step else "touchStart", "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_until(lambda: page.evaluate("visualViewport.scale") > 1.5)


def lines_written(page: Page) -> list[list[str]]:
    """What is written beside the axes, each line from left to right, from top to bottom."""
    lines: dict[float, dict[float, str]] = {}
    for text in page.evaluate("written"):
        if text["text"]:
            lines.setdefault(text["y"], {})[text["left"]] = text["text"]
    return [[texts[left] for left in sorted(texts)] for _, texts in sorted(lines.items())]


def test_the_axis_has_the_times_of_the_zone_that_is_chosen(visit: Visit) -> None:
    interval = {"start": "2024-12-01T06:00:00Z", "end": "2024-12-01T12:00:00Z"}
    page = shown(visit(view(("B1", "near"), **interval), script=WRITTEN))
    assert lines_written(page)[-2:] == [[f"{hour:02}:00" for hour in range(7, 14)], ["1 Dec 2024"]]
    page.locator("#more summary").click()
    page.get_by_label("Time zone").fill("Asia/Tokyo")
    page.keyboard.press("Enter")
    expect(page.locator("#when")).to_contain_text("Asia/Tokyo")
    assert lines_written(page)[-2:] == [[f"{hour:02}:00" for hour in range(15, 22)], ["1 Dec 2024"]]


@pytest.mark.parametrize(
    ("own", "zone", "interval", "days"),
    [
        # In Beirut the 31st of March 2024 begins at 01:00.
        ("Asia/Beirut", None, {"start": "2024-03-27T00:00:00Z", "end": "2024-04-02T00:00:00Z"}, range(28, 34)),
        ("UTC", "Asia/Beirut", {"start": "2024-03-27T00:00:00Z", "end": "2024-04-02T00:00:00Z"}, range(28, 34)),
        # Apia had no 30th of December 2011.
        ("Europe/Berlin", "Pacific/Apia", {"start": "2011-12-27T12:00:00Z", "end": "2012-01-02T12:00:00Z"}, None),
    ],
)
def test_each_day_is_named_once_where_it_begins(
    visit: Visit, own: str, zone: str | None, interval: dict[str, str], days: range | None
) -> None:
    address = view(("B1", "near"), **interval, **({"tz": zone} if zone else {}))
    page = shown(visit(address, script=WRITTEN, timezone_id=own, viewport={"width": 1920, "height": 820}))
    names = [text for line in lines_written(page) for text in line if re.match(r"\d+ (Mar|Apr|Dec|Jan)", text)]
    if days is None:
        assert [name.split()[0] for name in names] == ["28", "29", "31", "1", "2", "3"]
    else:
        assert [name.split()[0] for name in names] == [str(day if day < 32 else day - 31) for day in days]


def test_what_widens_the_interval_ends_at_the_years_that_there_are(visit: Visit) -> None:
    page = shown(visit(view(("B1", "near"), start="1000-01-01", end="2025-01-01")))
    plot(page).focus()
    before = ""
    while page.url != before:
        before = page.url
        page.keyboard.press("-")
        shown(page)
    assert dict(asked(page))["start"] == "0001-01-03T00:00:00Z"
    expect(page.locator("#notice")).to_be_hidden()
    expect(tile(page, "Readings")).to_have_text("20")
    page.get_by_role("button", name="Earlier").click()
    shown(page)
    expect(page.locator("#notice")).to_be_hidden()
