"""Averages over time, and hours above and below a limit, in the dashboard."""

import re
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import PHONE, accessible, asked, fits, plot, reading, row, saved, schemes, shown, tile, view

ROOM, OTHER = ("B1", "101"), ("B1", "102")
DAY = {"start": "2026-03-02T23:00:00Z", "end": "2026-03-03T23:00:00Z"}
BEGIN = datetime.fromisoformat(DAY["start"])
WISHES = {"weighting": "time", "above": "26", "below": "18"}


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    """A sensor that reports only changes: the day before, 16 degrees until 10:00, 28.5 until 12:30, then 20."""
    changes = ((-6, 16.0), (10, 28.5), (12.5, 20.0))
    product.send(*(reading(*ROOM, temperature, BEGIN + timedelta(hours=hours)) for hours, temperature in changes))
    product.send(reading(*OTHER, 21, BEGIN + timedelta(hours=12)))


def test_each_reading_counts_for_as_long_as_it_holds(visit: Visit, product: Product) -> None:
    page = shown(visit(view(ROOM, **DAY)))
    expect(tile(page, "Average")).to_have_text("24.25 °C")
    page.locator("#more summary").click()
    page.get_by_label("Average of").select_option("time")
    shown(page)
    assert asked(page)[-1] == ("weighting", "time")
    answer = product.ask("average", building_id="B1", room_id="101", **DAY, weighting="time")
    assert answer["average_temperature"] == pytest.approx((16 * 10 + 28.5 * 2.5 + 20 * 11.5) / 24)
    expect(tile(page, "Average")).to_have_text(f"{answer['average_temperature']:.2f} °C")
    expect(page.locator(".tiles")).to_contain_text("known for 24 h")
    expect(page.locator("#caption")).to_contain_text("Average over time per 5 minutes")
    # It is known before the first reading of the day, which has no lowest and highest there.
    plot(page).focus()
    page.keyboard.press("Home")
    expect(plot(page)).to_have_attribute("aria-valuetext", re.compile("00:00.*16.00 °C"))
    page.get_by_text("Values as a table").click()
    assert page.locator("#values tbody tr").last.inner_text().split("\t")[1:] == ["16.00", "\u2013", "\u2013", "0"]
    page.get_by_label("Average of").select_option("readings")
    expect(tile(page, "Average")).to_have_text("24.25 °C")
    assert "weighting" not in dict(asked(page))


def test_hours_above_and_below_a_limit_are_beside_the_figures(visit: Visit) -> None:
    page = shown(visit(view(ROOM, **DAY)))
    page.locator("#more summary").click()
    page.get_by_label("Time above").fill("26")
    page.keyboard.press("Enter")
    expect(tile(page, "Above 26°")).to_have_text("2.5 h")
    page.get_by_label("Time below").fill("18")
    page.keyboard.press("Tab")
    expect(tile(page, "Below 18°")).to_have_text("10 h")
    expect(page.locator(".tiles .card").filter(has_text="Above")).to_contain_text("6.3 degree hours")
    expect(page.locator(".tiles .card").filter(has_text="Below")).to_contain_text("20 degree hours")
    expect(page.locator("#status")).to_contain_text("above 26° for 2.5 h, below 18° for 10 h")
    assert asked(page)[-2:] == [("above", "26"), ("below", "18")]
    head = saved(page)[1].splitlines()[0]
    assert head.endswith("above_seconds,above_degree_hours,below_seconds,below_degree_hours")
    page.reload()
    expect(tile(page, "Above 26°")).to_have_text("2.5 h")
    expect(page.locator("#more-chosen")).to_have_text("above 26°, below 18°")
    page.locator("#more summary").click()
    page.get_by_label("Time above").fill("")
    page.keyboard.press("Enter")
    expect(page.locator(".tiles")).not_to_contain_text("Above")
    assert asked(page)[-1] == ("below", "18")


def test_a_limit_that_is_none_changes_nothing(visit: Visit) -> None:
    page = shown(visit(view(ROOM, **DAY, above="warm", below="51", weighting="space")))
    said = page.get_by_role("alert").filter(has_text="Left out of the address")
    for text in (
        "above=warm is no temperature",
        "below=51 is no temperature",
        "weighting=space is none of reading, time",
    ):
        expect(said).to_contain_text(text)
    before = page.url
    page.locator("#more summary").click()
    page.get_by_label("Time above").fill("99")
    page.keyboard.press("Enter")
    assert page.get_by_label("Time above").evaluate("(field) => field.validity.rangeOverflow")
    assert page.url == before
    expect(page.locator(".tiles")).not_to_contain_text("Above")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_rooms_are_compared_by_them_and_nobody_is_kept_out(visit: Visit, options: dict[str, object]) -> None:
    page = shown(visit(view(ROOM, OTHER, **DAY, **WISHES, before="week"), **options))
    expect(row(page, "101").locator("td[data-name='Above 26°']")).to_contain_text("2.5 h")
    expect(row(page, "102").locator("td[data-name='Above 26°']")).to_contain_text("0 h")
    page.locator("#more summary").click()
    size = "phone" if options else "desk"
    for scheme in schemes(page):
        assert accessible(page) == []
        assert fits(page)
        keep(page, f"limits-two-{scheme}-{size}", full_page=True)
    page = shown(visit(view(ROOM, **DAY, **WISHES, before="week"), **options))
    for scheme in schemes(page):
        assert accessible(page) == []
        assert fits(page)
        keep(page, f"limits-{scheme}-{size}", full_page=True)


def test_every_column_is_on_the_paper(visit: Visit) -> None:
    # As wide as A4 is between its margins.
    page = shown(visit(view(ROOM, OTHER, **DAY, **WISHES, before="week"), viewport={"width": 700, "height": 900}))
    page.emulate_media(media="print")
    table = page.get_by_role("region", name="The rooms compared")
    assert table.evaluate("({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth")
    page.pdf(path=str(keep(page, "limits-print", full_page=True).with_suffix(".pdf")))


def test_what_nobody_knows_any_more_is_no_hour(visit: Visit, product: Product) -> None:
    product.send(*(reading("Old", "1", 20 + minute % 20, BEGIN + timedelta(minutes=minute)) for minute in range(50)))
    product.execute("UPDATE upkeep SET retention = interval '1 hour'")
    product.execute("CALL summarize()")
    page = shown(visit(view(("Old", "1"), **DAY, above="26")))
    expect(tile(page, "Above 26°")).to_have_text("\u2013")
    expect(page.locator(".tiles .card").filter(has_text="Above")).to_contain_text("not known: readings were dropped")
    expect(page.locator("#status")).not_to_contain_text("above")


def test_a_limit_is_said_with_all_its_digits(visit: Visit) -> None:
    page = shown(visit(view(ROOM, **DAY, above="19.9999", below="1e-7")))
    expect(tile(page, "Above 19.9999\u00b0")).to_have_text("14 h")
    expect(tile(page, "Below 0.0000001\u00b0")).to_have_text("0 h")
    expect(page.locator("#more-chosen")).to_have_text("above 19.9999\u00b0, below 0.0000001\u00b0")
