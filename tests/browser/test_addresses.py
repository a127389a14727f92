"""What the address bar of the dashboard may say."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import DAY, asked, reading, shown, tile, view

START = "2024-12-01T06:00:00Z"
INSTANT = datetime.fromisoformat("2024-12-01T06:30:00Z")


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    product.send(
        reading("B1", "Rack 01:02", 21, INSTANT),
        reading("B1", "101", 22, INSTANT),
    )


def test_a_room_whose_name_ends_like_an_offset(visit: Visit) -> None:
    page = shown(visit(view(("B1", "Rack 01:02"), **DAY)))
    expect(tile(page, "Average")).to_have_text("21.00 \u00b0C")


@pytest.mark.parametrize("offset", ["+01:00", "+0100"])
def test_a_plus_sign_that_was_not_encoded_is_one(visit: Visit, offset: str) -> None:
    interval = f"start=2024-12-01T07:00:00{offset}&end=2024-12-01T08:00:00{offset}"
    page = shown(visit(f"/?building_id=B1&room_id=101&{interval}"))
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-12-01T07:00")
    expect(tile(page, "Average")).to_have_text("22.00 \u00b0C")


@pytest.mark.parametrize(
    ("since", "until", "first"),
    [
        ("2024-12-01", "2024-12-02", "2024-12-01T00:00"),
        ("2024-12-01T01:00", "2024-12-01T02:00:00", "2024-12-01T01:00"),
        ("2024-12-01 01:15", "2024-12-01 02:00", "2024-12-01T01:15"),
        ("2024-12-01T06:00Z", "2024-12-01T07:00+00", "2024-12-01T01:00"),
    ],
)
def test_a_local_date_or_time_is_that_of_the_zone_as_the_api_has_it(
    visit: Visit, since: str, until: str, first: str
) -> None:
    for query in (f"tz=America/New_York&start={since}&end={until}", f"start={since}&end={until}&tz=America/New_York"):
        page = shown(visit(f"/?building_id=B1&room_id=101&{query}"))
        expect(page.get_by_label("From", exact=True)).to_have_value(first)
        expect(tile(page, "Readings")).to_have_text("1")


def test_what_of_an_address_makes_no_sense_is_said(visit: Visit) -> None:
    nonsense = {
        "room_id=7": "has no building_id before it",
        "bucket=1h": "means nothing here",
        "last=fortnight": "is none of hour, day, week, month, year",
        "last=toString": "is none of hour, day, week, month, year",
        "before=constructor": "is none of week, year",
        "start=yesterday": "is no timestamp, such as 2024-12-01T12:34:56Z",
        "start=5": "is no timestamp, such as 2024-12-01T12:34:56Z",
        "start=2026-02-30T00:00:00Z": "is no timestamp, such as 2024-12-01T12:34:56Z",
        "start=0001-01-01": "is no timestamp, such as 2024-12-01T12:34:56Z",
    }
    rooms = "&".join(["building_id=<b>"] * 9)
    page = shown(visit(f"/?{quote('&'.join([*nonsense, rooms, f'end={START}']), safe='&=:')}"))
    said = [f"{part} {why}" for part, why in nonsense.items()]
    said += ["building_id=<b> is one more than the 8 that fit", f"end={START} needs a start"]
    expect(page.locator("#address")).to_have_text(f"Left out of the address: {'; '.join(said)}.")
    keep(page, "address")
    page.get_by_label("Day", exact=True).check()
    expect(page.locator("#address")).to_be_hidden()
    assert ("last", "day") in asked(page)


@pytest.mark.parametrize("end", ["2024-12-01T06:00:00Z", "2024-12-01T05:00:00Z"])
def test_an_end_that_is_not_after_the_start_is_left_out(visit: Visit, end: str) -> None:
    page = shown(visit(view(("B1", "101"), start=START, end=end)))
    expect(page.locator("#address")).to_have_text(f"Left out of the address: end={end} is not after start.")
    expect(page.locator("#notice")).to_be_hidden()
    expect(tile(page, "Readings")).to_have_text("1")


def test_of_what_is_there_twice_the_first_is_taken(visit: Visit) -> None:
    twice = "start=2024-12-01&start=2024-12-02&tz=Asia/Tokyo&tz=UTC&last=day"
    page = shown(visit(f"/?building_id=B1&room_id=101&{twice}"))
    expect(page.locator("#address")).to_have_text(
        "Left out of the address: start=2024-12-02 is there a second time; tz=UTC is there a second time;"
        " last=day has no place beside start."
    )
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-12-01T00:00")
    expect(page.locator("#when")).to_contain_text("Asia/Tokyo")


def test_a_room_of_a_building_that_is_left_out_is_left_out_with_it(visit: Visit) -> None:
    page = shown(visit(view(*[("B1", None)] * 8, *[("B2", str(room)) for room in range(20)], **DAY)))
    expect(page.get_by_role("heading", name="B1, all rooms")).to_be_visible()
    said = ["building_id=B2 is one more than the 8 that fit"] * 12
    expect(page.locator("#address")).to_have_text(f"Left out of the address: {'; '.join(said)}; and 8 more.")


def test_a_room_that_is_named_twice_is_there_once(visit: Visit) -> None:
    page = shown(visit(view(("B1", "101"), ("B1", None), ("B1", "101"), **DAY)))
    expect(page.locator("#summary tbody tr")).to_have_count(2)
    page.get_by_label("Compare \u2068B1\u2069 / \u2068101\u2069").uncheck()
    expect(page.get_by_role("heading", name="B1, all rooms")).to_be_visible()


def test_an_interval_that_is_still_to_come_is_shown_as_it_is(visit: Visit, product: Product) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    interval = {"start": begin.isoformat(), "end": (begin + timedelta(hours=1)).isoformat()}
    # A clock may be ahead by a day.
    product.send(reading("Ahead", "1", 25, begin + timedelta(minutes=30)))
    page = shown(visit(view(("Ahead", "1"), **interval)))
    expect(tile(page, "Average")).to_have_text("25.00 \u00b0C")
    expect(page.get_by_role("button", name="Later")).to_be_disabled()
    page.get_by_role("button", name="Earlier").click()
    shown(page)
    assert datetime.fromisoformat(dict(asked(page))["end"]) == begin
    expect(tile(page, "Readings")).to_have_text("0")


@pytest.mark.parametrize("year", ["12345", "0001"])
def test_a_year_that_there_is_not_is_refused_where_it_is_typed(visit: Visit, year: str) -> None:
    page = shown(visit(view(("B1", "101"), **DAY)))
    before = page.url
    for label in ("To", "From"):
        field = page.get_by_label(label, exact=True)
        field.evaluate("(field, value) => (field.value = value)", f"{year}-01-01T00:00:00")
        page.get_by_role("button", name="Show", exact=True).click()
        assert field.evaluate("({ validity }) => validity.rangeOverflow || validity.rangeUnderflow")
    assert page.url == before
