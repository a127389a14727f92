"""What the address bar of the dashboard may say."""

from datetime import datetime
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
