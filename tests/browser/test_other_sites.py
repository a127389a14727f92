"""A page of another site, open in a browser on the machine that `make run` is on, tries to write and to read."""

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Product, Start

READING = {
    "building_id": "EVIL",
    "room_id": "1",
    "temperature": 49.5,
    "timestamp": datetime.now(UTC).isoformat(),
}
PAGE = """<!doctype html><title>evil</title><link rel=icon href="data:,"><iframe name=hidden></iframe><script>
const body = READING, tried = [];
const note = name => error => tried.push(name + (error ? ": " + error.name : ""));
async function attack(address) {
  for (const path of ["/", "/temperature", "/v1/temperature", "/simulate", "/watch"]) {
    const url = address + path;
    // A blob without a type has the request go out without a Content-Type.
    const buffer = new TextEncoder().encode(body);
    const bodies = {untyped: new Blob([body]), text: body, form: new URLSearchParams({body}), buffer};
    for (const [kind, each] of Object.entries(bodies))
      for (const mode of ["no-cors", "cors"])
        await fetch(url, {method: "POST", mode, body: each}).then(() => note(kind)(), note(kind));
    const headers = {"Content-Type": "application/json"};
    await fetch(url, {method: "POST", body, headers}).then(() => note("json")(), note("json"));
    navigator.sendBeacon(url, new Blob([body]));
    const form = document.createElement("form");
    form.method = "post"; form.action = url; form.target = "hidden"; form.enctype = "text/plain";
    const field = document.createElement("input");
    // The form makes name=value of it: a valid JSON document.
    field.name = body.slice(0, -1) + ',"x":"'; field.value = '"}';
    form.append(field); document.body.append(form); form.submit();
    await new Promise(done => setTimeout(done, 50));
  }
  const asked = await fetch(address + "/v1/temperature/rooms").then(answer => answer.text(), error => error.name);
  return {tried, asked};
}
</script>"""


@pytest.fixture(scope="module")
def evil() -> Iterator[int]:
    """The port of the other site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.replace("READING", json.dumps(json.dumps(READING))).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def resolving(chromium: Browser) -> Iterator[Browser]:
    """A browser for which the names of the other site lead to this machine (DNS rebinding)."""
    program = shutil.which("chromium") or chromium.browser_type.executable_path
    options = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1,MAP *.evil.example 127.0.0.1"]
    browser = chromium.browser_type.launch(executable_path=program, args=options)
    yield browser
    browser.close()


def rooms(product: Product) -> set[str]:
    return {room["building_id"] for room in product.ask("rooms")["rooms"]}


def open_page(browser: Browser, address: str) -> Page:
    page = browser.new_page()
    page.goto(address)
    return page


# Another site; another origin of the same site, such as what a developer runs beside it.
@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1"])
def test_nothing_of_what_another_page_sends_is_stored_and_it_reads_nothing(
    product: Product, resolving: Browser, evil: int, host: str
) -> None:
    port = product.address.rpartition(":")[2]
    page = open_page(resolving, f"http://{host}:{evil}/")
    for own in ("127.0.0.1", "localhost"):
        result = page.evaluate("address => attack(address)", f"http://{own}:{port}")
        # Those that need no leave of the server did go out.
        assert {"untyped", "text", "form", "buffer"} <= set(result["tried"])
        assert result["asked"] == "TypeError"
    page.close()
    assert "EVIL" not in rooms(product)
    refused = [
        line
        for line in product_metrics(product).splitlines()
        if line.startswith("temperature_requests_total") and 'status="403"' in line and "other_site" in line
    ]
    assert len(refused) >= 3, refused


def product_metrics(product: Product) -> str:
    return requests.get(f"{product.address}/metrics", timeout=20).text


def test_a_name_of_another_site_that_leads_here_reads_and_writes_nothing(product: Product, resolving: Browser) -> None:
    port = product.address.rpartition(":")[2]
    product.send({**READING, "building_id": "B1"})
    page = open_page(resolving, f"http://evil.example:{port}/")
    for path in ("/", "/v1/temperature/rooms", "/metrics", "/openapi.json"):
        answer = page.goto(f"http://evil.example:{port}{path}")
        assert answer is not None
        assert (path, answer.status, "B1" in answer.text()) == (path, 403, False)
    status = page.evaluate(
        "async body => (await fetch('/', {method: 'POST', body, headers: {'Content-Type': 'application/json'}}))"
        ".status",
        json.dumps(READING),
    )
    assert status == 403
    page.close()
    assert "EVIL" not in rooms(product)


def test_a_listed_name_and_a_listed_origin_work(start: Start, resolving: Browser, evil: int) -> None:
    product = start(ALLOWED_HOSTS="temps.evil.example", CORS_ORIGINS=f"http://evil.example:{evil}")
    port = product.address.rpartition(":")[2]
    page = open_page(resolving, f"http://temps.evil.example:{port}/")
    answer = page.request.get(f"http://127.0.0.1:{port}/health")
    assert answer.ok
    assert page.evaluate("async () => (await fetch('/v1/temperature/rooms')).status") == 200
    page.close()
    page = open_page(resolving, f"http://evil.example:{evil}/")
    page.evaluate(
        "([address, body]) => fetch(address, {method: 'POST', mode: 'no-cors', body: new Blob([body])})",
        [f"http://127.0.0.1:{port}/v1/temperature", json.dumps(READING)],
    )
    page.close()
    assert "EVIL" in rooms(product)
