"""A real browser, and the functions behind one address as `make run` serves them."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Route, expect, sync_playwright

from bench.stack import serve
from local.postgres import READER, WATCHER, WRITER
from tests.support import ANY_CLOCK, ROOT, SUPERUSER, Urls, leave_out

KEPT = ROOT / "build" / "browser"
"""Where the pictures are."""
SCRIPT = """
import os, uvicorn
from local import gateway
from shared.server import configuration
os.environ["SINK_URL"] = "http://127.0.0.1:" + os.environ["PORT"]
functions = {"ingest": {"DATABASE_URL": os.environ["WRITER"]}, "average": {"DATABASE_URL": os.environ["READER"]}}
application = gateway.application({**functions, "simulate": {}, "watch": {"DATABASE_URL": os.environ["WATCHER"]}})
uvicorn.Server(configuration(application, port=int(os.environ["PORT"]))).run()
"""
NewDatabase = Callable[[], AbstractContextManager[Urls]]


@dataclass(frozen=True)
class Product:
    """The functions at an address, and their database."""

    address: str
    urls: Urls

    def send(self, *readings: dict[str, Any]) -> None:
        """Have readings stored."""
        answer = requests.post(f"{self.address}/v1/temperature", json=readings, timeout=20)
        assert answer.status_code == 201, answer.text

    def ask(self, path: str, **query: str) -> Any:
        """The answer to a question."""
        return requests.get(f"{self.address}/v1/temperature/{path}", params=query, timeout=20).json()

    def execute(self, statement: str) -> None:
        """Run SQL as the superuser."""
        with psycopg.connect(self.urls(SUPERUSER), autocommit=True) as connection:
            connection.execute(statement)


# What is live is asked for every five seconds.
expect.set_options(timeout=15_000)

Start = Callable[..., Product]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def start(new_database: NewDatabase) -> Iterator[Start]:
    """Start the product on a database of its own."""
    with ExitStack() as stack:

        def start(**variables: str) -> Product:
            urls = stack.enter_context(new_database())
            databases = {"WRITER": urls(WRITER), "READER": urls(READER), "WATCHER": urls(WATCHER)}
            path = {"PYTHONPATH": f"{ROOT / 'functions'}:{ROOT}"}
            settings = {**databases, **path, **ANY_CLOCK, **variables}
            served = stack.enter_context(serve([sys.executable, "-c", SCRIPT], settings))
            return Product(f"http://127.0.0.1:{served.port}", urls)

        yield start


@pytest.fixture(scope="module")
def product(start: Start) -> Product:
    """The product that the tests of a file share."""
    return start()


# Not for the whole session: as long as Playwright runs, no other test can run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        # As root it has no sandbox.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=_program(playwright), args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def chromium_path() -> str:
    """The browser, for a program that starts it itself."""
    with sync_playwright() as playwright:
        return _program(playwright)


def _program(playwright: Playwright) -> str:
    """That of the system, else the one that `playwright install chromium` brings."""
    program = shutil.which("chromium") or playwright.chromium.executable_path
    if not Path(program).exists():
        leave_out("chromium")
    return program


@pytest.fixture
def tolerated() -> list[str]:
    """What the console may say: beginnings of lines that a test expects."""
    return []


@pytest.fixture
def visit(chromium: Browser, product: Product, tolerated: list[str]) -> Iterator[Visit]:
    """Open a page, in which a script runs before its own. None may report an error, or ask beyond this machine."""
    faults: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            faults.append(message.text)

    def refuse(route: Route) -> None:
        faults.append(f"asked for {route.request.url}")
        route.abort()

    with ExitStack() as stack:

        def visit(path: str, address: str = product.address, *, script: str = "", **options: Any) -> Page:
            context = chromium.new_context(
                **{
                    "locale": "en-GB",
                    "timezone_id": "Europe/Berlin",
                    "viewport": {"width": 1280, "height": 820},
                    **options,
                }
            )
            stack.callback(context.close)
            context.route(re.compile(r"^(?!data:|blob:|http://(127\.0\.0\.1|localhost)[:/])"), refuse)
            context.add_init_script(script)
            page = context.new_page()
            page.set_default_timeout(15_000)
            page.on("console", said)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"{address}{path}")
            return page

        yield visit
    assert [fault for fault in faults if not fault.startswith(tuple(tolerated))] == []


def keep(page: Page, name: str, **options: Any) -> Path:
    """Take a picture for a person to look at; returns where it is."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{name}.png"
    page.screenshot(path=path, **options)
    return path


def milliseconds_of_a_move(page: Page) -> float:
    """How long the chart takes for each step of a mouse that crosses it."""
    return float(
        page.evaluate("""() => {
            const over = document.querySelector(".u-over");
            const { left, top, width } = over.getBoundingClientRect();
            const started = performance.now();
            for (let step = 0; step < 200; step += 1) {
                const clientX = left + (width * step) / 200;
                over.dispatchEvent(new MouseEvent("mousemove", { clientX, clientY: top + 50 }));
            }
            return (performance.now() - started) / 200;
        }""")
    )
