"""The pages that describe the API, and what they say can be tried."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from bench.stack import function
from tests.browser.conftest import Product, Visit, keep
from tests.browser.support import schemes

PATHS = [f"/v1/temperature/{name}" for name in ("average", "series", "readings", "rooms", "alarms")]
# Of which the first two can be deleted from too. They are off without a token for them,
# so that nobody can try them.
FOR_ADMINS = ["/v1/temperature/readings", "/v1/temperature/rooms", "/v1/temperature/removals"]
PATHS += [
    *FOR_ADMINS,
    "/settings",
    "/v1/temperature",
    "/",
    "/temperature",
    "/simulate",
    "/watch",
    "/health",
    "/ready",
    "/metrics",
]


def test_every_documented_request_works_when_it_is_tried(visit: Visit) -> None:
    page = visit("/docs")
    operations = page.locator(".opblock")
    expect(operations).to_have_count(len(PATHS))
    keep(page, "docs")
    tried = []
    # What is posted is there to be asked for then.
    for number in reversed(range(len(PATHS))):
        operation = operations.nth(number)
        path = operation.locator(".opblock-summary-path").inner_text().replace("\u200b", "")
        if path == FOR_ADMINS[-1] or "opblock-delete" in str(operation.get_attribute("class")):
            continue
        operation.locator(".opblock-summary-control").click()
        kinds = operation.get_by_label("Request content type")
        posted = "opblock-post" in str(operation.get_attribute("class")) and path != "/watch"
        expect(kinds).to_have_count(int(posted))
        for kind in kinds.locator("option").all_inner_texts() if posted else [""]:
            if posted:
                kinds.select_option(kind)
            operation.get_by_role("button", name="Execute", exact=True).click()
            answer = operation.locator(".live-responses-table .response").first
            expect(answer.locator(".response-col_status")).to_contain_text("20")
            documented = operation.locator(".responses-table:not(.live-responses-table) .response-col_status")
            tried.append((path, kind, answer.inner_text()))
            assert answer.locator(".response-col_status").inner_text().split()[0] in documented.all_inner_texts()
            operation.get_by_role("button", name="Clear", exact=True).click()
        operation.locator(".opblock-summary-control").click()
    # One of the paths takes a batch of events and CSV too.
    assert len(tried) == len(PATHS) - len(FOR_ADMINS) + 2, [each[:2] for each in tried]
    (average,) = (text for path, _, text in tried if path == "/v1/temperature/average")
    assert '"average_temperature": 22.5' in average


@pytest.mark.parametrize("name", ["average", "ingest", "simulate", "watch"])
def test_each_function_has_its_own_pages(visit: Visit, product: Product, name: str) -> None:
    with function(name) as served:
        address = f"http://127.0.0.1:{served.port}"
        for path in ("/docs", "/redoc"):
            page = visit(path, address)
            expect(page.get_by_role("heading", name=f"Temperature monitoring: {name}").first).to_be_visible()


def test_the_reference_shows_every_path(visit: Visit) -> None:
    page: Page = visit("/redoc")
    # Of many requests it shows the first ones.
    page.get_by_role("button", name=re.compile("^Show .* more")).click()
    for path in PATHS:
        expect(page.get_by_text(path, exact=True).first).to_be_attached()
    for scheme in schemes(page):
        keep(page, f"redoc-{scheme}")


def test_the_reference_tells_nobody_that_it_is_read(visit: Visit, product: Product) -> None:
    """Its makers are told by default, unless the page is on this machine."""
    page = visit("/health")
    faults: list[str] = []

    def answer(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.hostname == "temperatures.example":
            route.fulfill(response=page.context.request.get(f"{product.address}{address.path}"))
        else:
            faults.append(route.request.url)
            route.abort()

    page.context.route("**/*", answer)
    page.goto("https://temperatures.example/redoc")
    page.get_by_text("Search").first.click()
    page.keyboard.type("rooms")
    expect(page.get_by_text("response 200 fields").first).to_be_visible()
    # As long as it gathers events before it sends them.
    page.wait_for_timeout(1500)
    assert [url for url in faults if not url.startswith("data:")] == []
