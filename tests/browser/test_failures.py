"""The dashboard where something fails: one question of several, the server for a while, the browser."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import ask_again, plot, reading, room_of, saved, shown, tile, view

ROOMS = [("B1", "101"), ("B1", "102")]
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    product.send(*(reading(*room, 21) for room in ROOMS))


@pytest.fixture(autouse=True)
def _expected(tolerated: list[str]) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of")


def fail(page: Page, path: str, status: int = 503, detail: str = "Too much at once", **headers: str) -> list[datetime]:
    """Have the server fail in answering the questions of a path; returns when it was asked."""
    times: list[datetime] = []

    given = {"Content-Type": PROBLEM, **{name.replace("_", "-"): value for name, value in headers.items()}}

    def failing(route: Route) -> None:
        times.append(datetime.now(UTC))
        route.fulfill(status=status, headers=given, body=json.dumps({"detail": detail}))

    page.route(f"**/{path}?*", failing)
    return times


@pytest.mark.parametrize(
    "value",
    ["0", "-3", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"],
)
def test_it_never_asks_more_often_than_every_five_seconds(visit: Visit, value: str) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    times = fail(page, "alarms", Retry_After=value)
    ask_again(page)
    expect(page.locator("#notice")).to_contain_text("Too much at once. ")
    expect(page.locator("#notice")).to_contain_text("Trying again every 5 seconds.")
    page.wait_for_timeout(2000)
    assert len(times) == 1


@pytest.mark.parametrize("as_date", [False, True])
def test_it_waits_for_as_long_as_the_server_asks(visit: Visit, as_date: bool) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    now = datetime.now(UTC)
    wanted = format_datetime(now + timedelta(seconds=40), usegmt=True) if as_date else "40"
    fail(page, "alarms", 429, Retry_After=wanted, Date=format_datetime(now, usegmt=True))
    ask_again(page)
    expect(page.locator("#notice")).to_contain_text("Trying again every 40 seconds.")


@pytest.mark.parametrize("status", [404, 422, 429])
def test_whatever_the_answer_was_it_goes_on_asking(visit: Visit, status: int) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    fail(page, "rooms", status)
    ask_again(page)
    expect(page.locator("#notice")).to_contain_text("Too much at once.")
    page.unroute("**/rooms?*")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("path", ["average", "series", "rooms", "alarms"])
def test_one_question_that_fails_from_the_start_leaves_the_rest(visit: Visit, path: str) -> None:
    page = visit("/docs")
    fail(page, path, 503, "The answer took too long to compute; ask for a shorter interval")
    page.goto(page.url.replace("/docs", view(ROOMS[0], last="year")))
    shown(page)
    expect(page.locator("#notice")).to_contain_text("ask for a shorter interval. ")
    expect(tile(page, "Average")).to_have_text("\u2013" if path == "average" else "21.00 \u00b0C")
    expect(tile(page, "Now")).to_have_text("\u2013" if path == "rooms" else "21.00 \u00b0C")
    if path == "series":
        expect(page.locator("#nothing")).to_contain_text("This could not be answered.")
    else:
        expect(page.locator("#nothing")).to_be_hidden()
    if path != "rooms":
        expect(room_of(page, "102 21.00 \u00b0C")).to_be_visible()
    keep(page, f"without-{path}")
    page.unroute(f"**/{path}?*")
    expect(page.locator("#notice")).to_be_hidden()
    expect(tile(page, "Average")).to_have_text("21.00 \u00b0C")
    expect(page.locator("#nothing")).to_be_hidden()


def test_a_file_that_is_wanted_too_early_is_there_later(visit: Visit) -> None:
    page = visit("/docs")
    held: list[Route] = []
    page.route("**/rooms?*", lambda route: held.append(route))
    page.goto(page.url.replace("/docs", view(ROOMS[0], last="hour")))
    for name in ("CSV", "Readings"):
        page.get_by_role("button", name=name).click()
    expect(page.locator("#old")).to_be_hidden()
    held.pop().continue_()
    page.unroute("**/rooms?*")
    shown(page)
    assert saved(page, "Readings")[1].startswith("\ufeffbuilding_id,")


def test_what_was_known_stays_and_is_said_to_be_old(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    expect(tile(page, "Average")).to_have_text("21.00 \u00b0C")
    for path in ("average", "series", "rooms", "alarms"):
        fail(page, path)
    ask_again(page)
    expect(page.locator("#notice")).to_contain_text("What is shown is from ")
    expect(tile(page, "Average")).to_have_text("21.00 \u00b0C")
    expect(room_of(page, "101 21.00 \u00b0C")).to_be_visible()
    expect(page.locator("#nothing")).to_be_hidden()


def test_what_is_of_another_day_has_its_day(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    page.clock.install()
    page.reload()
    shown(page)
    for path in ("average", "series", "rooms", "alarms"):
        fail(page, path)
    page.clock.fast_forward("24:00:00")
    ask_again(page)
    expect(page.locator("#notice")).to_contain_text(re.compile(r"What is shown is from \d+ \w+, \d\d:\d\d:\d\d\."))


def test_a_button_that_led_to_a_failure_and_is_gone_leaves_the_focus_to_the_chart(
    visit: Visit, product: Product
) -> None:
    product.send(reading("Old", "1", 20, datetime.now(UTC) - timedelta(days=2)))
    page = visit(view(("Old", "1"), last="hour"))
    button = page.get_by_role("button", name="Show the latest readings")
    button.focus()
    fail(page, "series")
    button.press("Enter")
    expect(page.get_by_text("This could not be answered")).to_be_visible()
    expect(plot(page)).to_be_focused()


# What browsers have had since 2021 or later.
NEW = """
for (const [holder, name] of [
    [Map, "groupBy"], [Object, "groupBy"], [Object, "hasOwn"], [AbortSignal, "any"], [AbortSignal, "timeout"],
    [Array.prototype, "with"], [Array.prototype, "at"], [Array.prototype, "toSorted"], [String.prototype, "at"],
    [Array.prototype, "findLast"], [Promise, "withResolvers"], [window, "structuredClone"], [URL, "canParse"],
    [Element.prototype, "role"],
]) delete holder[name];
const Format = Intl.DateTimeFormat;
Intl.DateTimeFormat = function (locale, options) {
    if (/Offset|Generic/.test(options?.timeZoneName)) throw new RangeError("timeZoneName");
    return new Format(locale, options);
};
"""


def test_a_browser_of_2020_shows_it_all(visit: Visit) -> None:
    page = shown(visit(view(*ROOMS, last="day"), script=NEW))
    expect(page.get_by_role("region", name="The rooms compared").locator("tbody tr")).to_have_count(2)
    page.get_by_text("Values as a table").click()
    expect(page.locator("#values tbody tr").first).to_be_visible()
    plot(page).focus()
    page.keyboard.press("End")
    expect(page.locator("#tip")).to_be_visible()
    expect(page.locator("#old")).to_be_hidden()


def test_a_zone_that_the_browser_cannot_name_is_utc(visit: Visit) -> None:
    script = """
        const asked = Intl.DateTimeFormat.prototype.resolvedOptions;
        Intl.DateTimeFormat.prototype.resolvedOptions = function () {
            const found = asked.call(this);
            return { ...found, timeZone: found.timeZone === "Europe/Berlin" ? "Etc/Unknown" : found.timeZone };
        };
    """
    page = shown(visit(view(ROOMS[0], last="hour"), script=script))
    expect(page.locator("#when")).to_contain_text("Times are those of UTC (UTC+00:00)")
    expect(page.locator("#old")).to_be_hidden()


def test_a_browser_that_keeps_nothing_of_this_page_shows_it_all(visit: Visit) -> None:
    script = """
        Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("no", "SecurityError"); } });
    """
    page = shown(visit(view(ROOMS[0], last="hour"), script=script))
    expect(tile(page, "Average")).to_have_text("21.00 \u00b0C")
    fail(page, "average", 401)
    ask_again(page)
    page.get_by_label("Token").fill("some-token-0123456789")
    page.unroute("**/average?*")
    with page.expect_request(lambda each: each.headers.get("authorization") == "Bearer some-token-0123456789"):
        page.get_by_role("button", name="Continue").click()
    shown(page)


def test_what_is_typed_for_a_token_stays_while_somebody_looks_it_up(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    fail(page, "average", 401)
    ask_again(page)
    page.get_by_label("Token").fill("wrong-token-0123456789")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("This token does not allow reading")).to_be_visible()
    page.get_by_label("Token").fill("half-a-tok")
    with page.expect_response("**/average?*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_label("Token")).to_have_value("half-a-tok")
    expect(page.get_by_text("This token does not allow reading")).to_be_visible()


def test_what_slept_for_hours_asks_again_soon(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    page.clock.install()
    page.reload()
    shown(page)
    page.route("**/average?*", lambda _: None)
    with page.expect_request("**/average?*"):
        ask_again(page)
    page.clock.fast_forward("08:00:00")
    expect(page.locator("#notice")).to_contain_text("The server does not answer.")
    expect(page.locator("#notice")).to_contain_text("Trying again every 300 seconds.")


def test_it_says_that_it_tries_again_only_where_it_does(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    live = page.get_by_role("button", name="Live")
    live.click()
    page.wait_for_load_state("networkidle")
    times = fail(page, "alarms")
    ask_again(page)
    page.wait_for_timeout(500)
    assert times == []
    page.get_by_label("Day").check()
    expect(page.locator("#notice")).to_contain_text("Too much at once.")
    expect(page.locator("#notice")).not_to_contain_text("Trying again")
    live.click()
    expect(page.locator("#notice")).to_contain_text("Trying again every 5 seconds.")


@pytest.mark.parametrize("script", ["let = ;", "await 0; null.f()"])
def test_a_browser_that_cannot_run_it_says_so(visit: Visit, tolerated: list[str], script: str) -> None:
    tolerated += ["Unexpected", "Cannot read properties of null"]
    page = visit("/docs")
    page.route("**/dashboard.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    page.goto(page.url.replace("/docs", "/"))
    expect(page.locator("#old")).to_contain_text("This page did not start. It needs a browser of 2020 or newer")
    keep(page, "old")


def test_without_javascript_it_says_where_the_readings_are(visit: Visit) -> None:
    page = visit("/", java_script_enabled=False)
    expect(page.locator("noscript .message")).to_be_visible()
    expect(page.locator("#dashboard")).to_be_hidden()
    page.locator("noscript a").first.click()
    assert '"rooms"' in page.content()


@pytest.mark.parametrize("typed", ["\u201csome-token-0123456789\u201d", "some-token-0123456789\u200b"])
def test_what_was_pasted_with_a_character_that_no_token_has_is_refused(visit: Visit, typed: str) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    fail(page, "average", 401)
    ask_again(page)
    page.get_by_label("Token").fill(typed)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("This token does not allow reading")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()
    page.reload()
    expect(page.get_by_label("Token")).to_be_focused()


def test_the_sheet_is_of_what_is_shown_while_something_else_is_asked_for(visit: Visit) -> None:
    page = shown(visit(view(ROOMS[0], last="hour")))
    held: list[Route] = []
    page.route("**/average?*", lambda route: held.append(route))
    page.locator("#more summary").click()
    page.get_by_label("Average of").select_option("time")
    assert saved(page)[1].startswith("\ufeffstart,average_temperature,count,min,max\r\n")
    for route in held:
        route.continue_()
    page.unroute("**/average?*")
    shown(page)
    assert "covered_seconds" in saved(page)[1]
