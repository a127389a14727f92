"""CSV that a spreadsheet shows right, and of which it runs nothing."""

import csv
import io
import re
from datetime import datetime

import pytest
import requests
from playwright.sync_api import expect

from tests.browser.conftest import Product, Visit
from tests.browser.support import DAY, reading, saved, shown, view

INSTANT = datetime.fromisoformat("2024-12-01T06:30:00Z")
BYTE_ORDER_MARK = "\ufeff"
FORMULAS = ['=1+"1"', "+1+1", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1+1", "\r=1+1", "\uff1d1+1"]
HARMLESS = ["B\u00fcro", "101", "-5", "it's; 1,5", 'a "b"', "line\nbreak"]


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    product.send(*(reading("B", name, -20.5, INSTANT) for name in [*FORMULAS, *HARMLESS]))
    product.send(reading("B", "101", -21, INSTANT))


def test_one_room_is_what_the_api_answers_and_says_that_it_is_utf_8(visit: Visit, product: Product) -> None:
    text = requests.get(
        f"{product.address}/v1/temperature/series",
        params={"building_id": "B", "room_id": "101", "tz": "Europe/Berlin", **DAY},
        headers={"Accept": "text/csv"},
        timeout=20,
    ).text
    # Programs would take the mark for a part of the first name.
    assert text.startswith("start,average_temperature,count,min,max\r\n")
    page = shown(visit(view(("B", "101"), **DAY)))
    assert saved(page) == ("temperature-B-101-2024-12-01-010000-2024-12-02-010000.csv", BYTE_ORDER_MARK + text)


@pytest.mark.parametrize("names", [FORMULAS, HARMLESS])
def test_names_are_text_to_a_spreadsheet_whatever_they_begin_with(visit: Visit, names: list[str]) -> None:
    page = shown(visit(view(*(("B", name) for name in names), **DAY)))
    name, text = saved(page)
    assert name == f"temperature-{len(names)}-rooms-2024-12-01-010000-2024-12-02-010000.csv"
    assert text.startswith(BYTE_ORDER_MARK)
    head, *lines = csv.reader(io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline=""))
    assert head == ["building_id", "room_id", "start", "average_temperature", "count", "min", "max"]
    guard = "'" if names is FORMULAS else ""
    assert [line[1] for line in lines] == [f"{guard}{each}" for each in names]
    assert all(line[0] == "B" and line[5].startswith("-2") for line in lines)


def test_where_numbers_have_a_comma_the_sheet_has_one_too(visit: Visit) -> None:
    page = shown(visit(view(("B", "101"), ("B", "B\u00fcro"), **DAY), locale="de-DE"))
    lines = saved(page)[1].removeprefix(BYTE_ORDER_MARK).splitlines()
    assert lines[0] == "building_id;room_id;start;average_temperature;count;min;max"
    assert lines[1] == '"B";"101";2024-12-01T07:30:00+01:00;-20,75;2;-21,0;-20,5'
    assert re.fullmatch(r'"B";"B\u00fcro";[^;]+;-20,5;1;-20,5;-20,5', lines[2])


def test_every_reading_is_saved_as_the_api_has_it(visit: Visit, product: Product) -> None:
    texts = [
        requests.get(
            f"{product.address}/v1/temperature/readings",
            params={"building_id": "B", "room_id": room, "format": "csv", **DAY},
            timeout=20,
        ).text
        for room in ("101", '=1+"1"', "B\u00fcro")
    ]
    head = texts[0].splitlines(keepends=True)[0]
    assert [text.count("\n") for text in texts] == [3, 2, 2]
    page = shown(visit(view(("B", "101"), ("B", '=1+"1"'), ("B", "B\u00fcro"), **DAY)))
    name, text = saved(page, "Readings")
    assert name == "readings-3-rooms-2024-12-01-010000-2024-12-02-010000.csv"
    assert text == BYTE_ORDER_MARK + texts[0] + "".join(text.removeprefix(head) for text in texts[1:])


def test_a_download_that_breaks_off_is_told(visit: Visit, tolerated: list[str]) -> None:
    tolerated.append("Failed to load resource: net::ERR_FAILED")
    page = shown(visit(view(("B", "101"), **DAY)))
    page.route("**/v1/temperature/readings?*", lambda route: route.abort())
    page.get_by_role("button", name="Readings").click()
    expect(page.locator("#notice")).to_have_text("The server does not answer.")
    expect(page.get_by_role("button", name="Readings")).to_be_enabled()


def test_a_file_has_a_name_of_whole_characters(visit: Visit, product: Product) -> None:
    room = "\U0001033c" * 100
    product.send(reading("B1", room, 20, INSTANT))
    page = shown(visit(view(("B1", room), **DAY)))
    assert saved(page)[0] == f"temperature-B1-{room[:77]}-2024-12-01-010000-2024-12-02-010000.csv"
