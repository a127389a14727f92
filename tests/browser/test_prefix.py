"""All of it behind a proxy that has put it below a path, as an nginx does."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import Product, Start, Visit
from tests.browser.support import reading, shown, tile
from tests.support import free_port, listens, program, wait_until

CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /taken/away/ {{ proxy_pass {taken}/; }}
    location /left { proxy_pass {left}; }
  }}
}}
""".replace("{ proxy_pass {left}; }", "{{ proxy_pass {left}; }}")
WAYS = ["taken/away", "left"]
"""The proxy takes the prefix away before it passes a request on, or leaves it there for PATH_PREFIX."""


@pytest.fixture(scope="module")
def proxy(product: Product, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an nginx before the product, and another one with a prefix of its own."""
    nginx = program("nginx")
    folder, port, prefixed = tmp_path_factory.mktemp("nginx"), free_port(), start(PATH_PREFIX="/left/")
    for each in (product, prefixed):
        each.send(reading("B1", "101", 21.5))
    # As root its workers are of a user that must exist.
    user = "user root;" if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(folder=folder, port=port, user=user, taken=product.address, left=prefixed.address)
    configuration = Path(folder) / "nginx.conf"
    configuration.write_text(text)
    with subprocess.Popen([nginx, "-c", configuration, "-p", folder, "-e", folder / "error.log"]) as process:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, f"nginx ended with {process.returncode}"
        yield address
        process.terminate()


@pytest.mark.parametrize("way", WAYS)
def test_the_dashboard_fills(visit: Visit, proxy: str, way: str) -> None:
    # Without a slash at its end too, as people type it.
    page = shown(visit(f"/{way}?building_id=B1&room_id=101&last=day", proxy))
    expect(tile(page, "Average")).to_have_text("21.50 \u00b0C")
    assert page.url == f"{proxy}/{way}/?building_id=B1&room_id=101&last=day"
    page.get_by_label("Week").check()
    assert page.url.startswith(f"{proxy}/{way}/?")
    page.get_by_role("link", name="API", exact=True).click()
    expect(page.locator(".opblock").first).to_be_visible()


@pytest.mark.parametrize("way", WAYS)
def test_without_any_reading_the_command_sends_one_there(visit: Visit, proxy: str, way: str) -> None:
    page = visit(f"/{way}/docs", proxy)
    page.route("**/rooms?*", lambda route: route.fulfill(json={"rooms": [], "next": None}))
    page.goto(f"{proxy}/{way}/")
    expect(page.locator("#command")).to_contain_text(f"curl {proxy}/{way}/v1/temperature ")


@pytest.mark.parametrize(("way", "slash"), [*zip(WAYS, ["", "/"], strict=True)])
def test_a_request_is_tried_from_the_docs(visit: Visit, proxy: str, way: str, slash: str) -> None:
    page = visit(f"/{way}/docs{slash}", proxy)
    operation = page.locator(".opblock-get").filter(has_text="/v1/temperature/rooms")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute", exact=True).click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(operation.locator(".request-url")).to_contain_text(f"{proxy}/{way}/v1/temperature/rooms")


@pytest.mark.parametrize("way", WAYS)
def test_the_reference_says_where_the_api_is(visit: Visit, proxy: str, way: str) -> None:
    page: Page = visit(f"/{way}/redoc", proxy)
    expect(page.get_by_text(f"{proxy}/{way}", exact=True).first).to_be_visible()
    expect(page.get_by_text("/v1/temperature/average", exact=True).first).to_be_attached()


@pytest.mark.parametrize("way", WAYS)
def test_readings_are_sent_and_asked_for(proxy: str, way: str) -> None:
    sent = requests.post(f"{proxy}/{way}/", json=reading("B2", way, 20), timeout=10)
    assert sent.status_code == 201
    assert requests.post(f"{proxy}/{way}/v1/temperature", json=reading("B2", way, 21), timeout=10).status_code == 201
    asked = requests.get(f"{proxy}/{way}/v1/temperature/average", params={"building_id": "B2"}, timeout=10).json()
    assert asked["count"] == 2
    description = requests.get(f"{proxy}/{way}/openapi.json", timeout=10).json()
    assert description["servers"] == [{"url": "."}]
    unknown = requests.get(f"{proxy}/{way}/nothing", timeout=10)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    assert re.search("nothing", unknown.json()["detail"])
