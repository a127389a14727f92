"""The controls of the dashboard in any order, while answers are late or fail: SEED=... plays the same again."""

import os
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Product, Visit
from tests.browser.support import WRITTEN, asked, plot, reading, shown, view
from tests.support import LONG

SEED = int(os.environ.get("SEED") or random.randrange(10**9))
STEPS = 400 if LONG else 8
ROOMS = [("B1", "101"), ("B1", "102"), ("b1", "101 "), ("B+2/%2F?#", "<i>"), ("B1", None)]
ZONES = ["", "UTC", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]
# In Berlin, Lord Howe and St. John's clocks are changed in these weeks.
BEGIN = datetime.fromisoformat("2024-03-01T00:00:00Z")
DAYS = 45
# What is shown, and by whom: the figures as the API wrote them, and all that is to be the same when it is loaded again.
FIGURES = """() => [...document.querySelectorAll("#summary :is(.tiles, tbody tr)")].map((row) =>
    [...row.querySelectorAll("data:not(.then data)")].slice(1, 5).map(({ value }) => value))"""
ALL = """() => ["#name", "#summary", "#caption", "#when", "#values", "#more-chosen", "#rooms"]
    .map((each) => document.querySelector(each).innerText.replace(/\\d+ \\S+ ago|now|yesterday/g, ""))
    .concat(["#from", "#to", "#tz"].map((each) => document.querySelector(each).value), document.title,
        written.map(({ text }) => text))"""


@pytest.fixture(scope="module", autouse=True)
def _readings(product: Product) -> None:
    numbers = random.Random(SEED)
    for building, room in ROOMS[:-1]:
        instants = [BEGIN + timedelta(seconds=numbers.randrange(DAYS * 86400)) for _ in range(1000)]
        temperatures = [20 + numbers.choice([-1e-12, 0, 1e-12, numbers.uniform(-70, 30)]) for _ in instants]
        product.send(
            *(
                {**reading(building, str(room), 0, instant), "temperature": temperature}
                for instant, temperature in zip(instants, temperatures, strict=True)
            )
        )


class Player:
    """Somebody who presses what there is, sooner than the page answers."""

    def __init__(self, page: Page, numbers: random.Random) -> None:
        self.page = page
        self.numbers = numbers
        self.held: list[Route] = []
        self.calm = False
        page.route("**/v1/temperature/**", self._answer)

    def _answer(self, route: Route) -> None:
        fate = 1 if self.calm else self.numbers.random()
        if fate < 0.1:
            self.held.append(route)
        elif fate < 0.15:
            route.fulfill(status=503, json={"detail": "Too much at once"})
        else:
            route.continue_()

    def play(self) -> str:
        """Press something; returns what it was."""
        move: Callable[[], None] = self.numbers.choice(
            [self.room, self.compare, self.interval, self.shift, self.zone, self.choose, self.limit, self.key, self.go]
        )
        move()
        return f"{move.__name__} -> {self.page.url.partition('?')[2]}"

    def settle(self) -> None:
        """Have all answers come, those that are late last, until there is nothing that failed."""
        self.calm = True
        self.page.evaluate("dispatchEvent(new Event('online'))")
        shown(self.page)
        expect(self.page.locator("#notice")).to_be_hidden()
        for route in self.held:
            route.continue_()
        self.held.clear()
        self.page.wait_for_load_state("networkidle")

    def room(self) -> None:
        self._any("#rooms li button").click()

    def compare(self) -> None:
        self._any("#rooms input:not(:disabled)").click()

    def interval(self) -> None:
        length = self.numbers.choice([60, 3600, 86400, 7 * 86400, DAYS * 86400])
        begin = BEGIN + timedelta(seconds=self.numbers.randrange(DAYS * 86400))
        self.page.locator("#periods [value=own]").click()
        self.page.locator("#from").fill(f"{begin:%Y-%m-%dT%H:%M:%S}")
        self.page.locator("#to").fill(f"{begin + timedelta(seconds=length):%Y-%m-%dT%H:%M:%S}")
        self.page.get_by_role("button", name="Show", exact=True).click()

    def shift(self) -> None:
        self._any("#earlier, #later:not([aria-disabled=true])").click()

    def zone(self) -> None:
        self.page.locator("#tz").fill(self.numbers.choice(ZONES))
        self.page.keyboard.press("Enter")

    def choose(self) -> None:
        field = self._any("#before, #weighting")
        field.select_option(index=self.numbers.randrange(field.locator("option").count()))

    def limit(self) -> None:
        field = self._any("#above, #below")
        field.fill(self.numbers.choice(["", "0", "20", "20.00000001", "-3.5"]))
        self.page.keyboard.press("Enter")

    def key(self) -> None:
        plot(self.page).focus()
        for _ in range(self.numbers.randrange(1, 4)):
            self.page.keyboard.press(self.numbers.choice(["+", "-", "Home", "End", "ArrowLeft", "PageDown", "Escape"]))

    def go(self) -> None:
        self.page.evaluate(self.numbers.choice(["history.back()", "history.forward()"]))
        self.page.wait_for_timeout(50)

    def _any(self, selector: str) -> Any:
        found = self.page.locator(selector)
        return found.nth(self.numbers.randrange(found.count()))


def test_what_is_shown_is_what_the_address_asks_for_whatever_is_pressed_meanwhile(
    visit: Visit, product: Product, tolerated: list[str]
) -> None:
    tolerated.append("Failed to load resource: the server responded with a status of 503")
    print(f"SEED={SEED}")
    numbers = random.Random(SEED)
    page = visit("/docs", script=WRITTEN, viewport={"width": 1280, "height": 2000})
    first = {"start": "2024-03-30T23:00:00Z", "end": "2024-04-01T22:00:00Z"}
    # So that nobody gets back to where it began.
    page.evaluate("(address) => location.replace(address)", view(ROOMS[0], **first))
    page.wait_for_url("**/?building_id=*")
    shown(page)
    page.locator("#more summary").click()
    player = Player(page, numbers)
    for step in range(1, STEPS + 1):
        print(player.play())
        if step % 5:
            continue
        player.settle()
        assert page.evaluate(FIGURES) == expected(product, asked(page))
        before = page.evaluate(ALL)
        page.reload()
        shown(page)
        page.wait_for_load_state("networkidle")
        page.locator("#more summary").click()
        assert page.evaluate(ALL) == before
        player.calm = False


def expected(product: Product, address: list[tuple[str, str]]) -> list[list[str]]:
    """The figures of each room that an address names, as the API writes them: average, lowest, highest and count."""
    rooms: list[dict[str, str]] = []
    for name, value in address:
        if name == "building_id":
            rooms.append({name: value})
        elif name == "room_id":
            rooms[-1][name] = value
    asks = {name: value for name, value in address if name in {"start", "end", "weighting", "above", "below"}}
    answers = [product.ask("average", **room, **asks) for room in rooms]
    fields = ("average_temperature", "min", "max", "count")
    return [["" if answer[field] is None else as_script(answer[field]) for field in fields] for answer in answers]


def as_script(number: float) -> str:
    """The number as JavaScript writes it."""
    return str(int(number)) if number == int(number) else repr(number)
