"""What the dashboard says of times: which year, and which hour where clocks are changed."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Product, Visit
from tests.browser.support import WRITTEN, asked, reading, shown, view

ROOM = ("B1", "101")
# In Berlin clocks are put back at 01:00 UTC, from 03:00 to 02:00, and forward on 31 March 2024 from 02:00 to 03:00.
BACK = datetime.fromisoformat("2024-10-27T01:00:00Z")

# Where in the line below the chart a text is.
EDGES = """(text) => {
    const { firstChild } = document.querySelector("#when");
    const range = document.createRange();
    range.setStart(firstChild, firstChild.data.indexOf(text));
    range.setEnd(firstChild, firstChild.data.indexOf(text) + text.length);
    const parts = [...range.getClientRects()];
    return { left: Math.min(...parts.map((each) => each.left)), right: Math.max(...parts.map((each) => each.right)) };
}"""


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    """A reading every ten minutes around the change, and one now."""
    instants = [BACK + timedelta(minutes=minutes) for minutes in range(-180, 180, 10)]
    product.send(*(reading(*ROOM, 20, instant) for instant in instants), reading(*ROOM, 21))


def test_an_interval_that_is_not_of_this_year_has_its_years(visit: Visit) -> None:
    page = shown(visit(view(ROOM, last="year")))
    this = datetime.now().astimezone().year
    expect(page.locator("#when")).to_contain_text(f" {this - 1}, ")
    expect(page.locator("#when")).to_contain_text(f" {this}, ")
    page = shown(visit(view(ROOM, last="hour")))
    expect(page.locator("#when")).not_to_contain_text(str(this))


def test_the_year_is_that_of_the_server(visit: Visit) -> None:
    last = datetime.now().astimezone().year - 1
    page = visit("/docs")
    page.clock.install(time=datetime(last, 7, 1, tzinfo=UTC))
    page.goto(page.url.replace("/docs", view(ROOM, start=f"{last}-03-28T00:00:00Z", end=f"{last}-03-28T01:00:00Z")))
    expect(shown(page).locator("#when")).to_contain_text(f"28 Mar {last}, ")


def test_the_hour_that_comes_twice_is_told_apart(visit: Visit) -> None:
    page = shown(visit(view(ROOM, start="2024-10-27T00:30:00Z", end="2024-10-27T01:30:00Z")))
    expect(page.locator("#when")).to_have_text(
        "27 Oct 2024, 02:30 (UTC+02:00) \u2013 02:30 (UTC+01:00)."
        " Times are those of Europe/Berlin (UTC+02:00, then UTC+01:00)."
    )
    page.get_by_text("Values as a table").click()
    times = page.locator("#values tbody th").all_inner_texts()
    assert len(set(times)) == len(times) == 6
    assert all("(UTC+0" in time for time in times)


@pytest.mark.parametrize(
    ("day", "first", "last", "before"),
    [
        ("2024-10-27", "2024-10-27T23:00:00Z", "2024-10-28T23:00:00Z", "2024-10-26T22:00:00Z"),
        ("2024-03-31", "2024-03-31T22:00:00Z", "2024-04-01T22:00:00Z", "2024-03-30T23:00:00Z"),
    ],
)
def test_a_day_stays_a_day_where_clocks_are_changed(visit: Visit, day: str, first: str, last: str, before: str) -> None:
    page = shown(visit(view(ROOM, start=first, end=last)))
    page.get_by_role("button", name="Earlier").click()
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{day}T00:00")
    assert asked(page)[2:] == [("start", before), ("end", first)]
    shown(page)
    page.get_by_role("button", name="Later").click()
    expect(page.get_by_label("From", exact=True)).not_to_have_value(f"{day}T00:00")
    assert asked(page)[2:] == [("start", first), ("end", last)]


def test_hours_follow_each_other_where_clocks_are_changed(visit: Visit) -> None:
    page = shown(visit(view(ROOM, start="2024-10-27T01:00:00Z", end="2024-10-27T02:00:00Z")))
    page.get_by_role("button", name="Earlier").click()
    shown(page)
    assert asked(page)[2:] == [("start", "2024-10-27T00:00:00Z"), ("end", "2024-10-27T01:00:00Z")]


@pytest.mark.parametrize("hour", ["00", "01"])
def test_show_asks_for_what_is_shown_even_in_the_hour_that_comes_twice(visit: Visit, hour: str) -> None:
    interval = {"start": f"2024-10-27T{hour}:10:00Z", "end": f"2024-10-27T{hour}:50:00.500Z"}
    page = shown(visit(view(ROOM, **interval)))
    page.get_by_role("button", name="Show", exact=True).click()
    shown(page)
    assert asked(page)[2:] == list(interval.items())
    # An end that is typed is the first one after the start.
    page.get_by_label("To", exact=True).fill("2024-10-27T02:40:00")
    page.get_by_role("button", name="Show", exact=True).click()
    shown(page)
    assert asked(page)[2:] == [("start", interval["start"]), ("end", f"2024-10-27T{hour}:40:00Z")]


@pytest.mark.parametrize(
    ("interval", "dates"),
    [
        # A year began on the 20th of March.
        (("2024-03-12T12:00:00Z", "2024-03-26T12:00:00Z"), ["3 Farvardin 1403 AP"]),
        # Months of ours begin within theirs.
        (("2023-06-15T00:00:00Z", "2025-06-15T00:00:00Z"), ["11 Dey 1402 AP", "12 Dey 1403 AP"]),
    ],
)
def test_years_and_months_are_those_of_the_calendar_of_the_reader(
    visit: Visit, interval: tuple[str, str], dates: list[str]
) -> None:
    start, end = interval
    options = {"locale": "en-GB-u-ca-persian", "viewport": {"width": 1920, "height": 820}}
    page = shown(visit(view(ROOM, start=start, end=end), script=WRITTEN, **options))
    written = page.evaluate("written.map(({ text }) => text.replace(/[^\\p{L}\\p{N} ]/gu, ''))")
    assert set(dates) <= set(written), written


@pytest.mark.parametrize(
    ("locale", "first", "last"),
    [
        ("ar", "1 \u062f\u064a\u0633\u0645\u0628\u0631 2024", "2 \u062f\u064a\u0633\u0645\u0628\u0631 2024"),
        ("en-GB", "1 Dec 2024", "2 Dec 2024"),
    ],
)
def test_an_interval_reads_from_its_start_to_its_end_in_any_language(
    visit: Visit, locale: str, first: str, last: str
) -> None:
    page = shown(visit(view(ROOM, start="2024-12-01T00:00:00Z", end="2024-12-02T00:00:00Z"), locale=locale))
    left, right = (page.evaluate(EDGES, text) for text in (first, last))
    # Each date is in one piece, and the later one is to the right of the other.
    assert left["right"] <= right["left"]
