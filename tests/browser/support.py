"""How tests read the dashboard."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Locator, Page, expect

DAY = {"start": "2024-12-01T00:00:00Z", "end": "2024-12-02T00:00:00Z"}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def reading(building: str, room: str, temperature: float, instant: datetime | None = None) -> dict[str, Any]:
    """A reading as it is sent, by default of now."""
    timestamp = (instant or datetime.now(UTC)).isoformat()
    return {"building_id": building, "room_id": room, "temperature": round(temperature, 2), "timestamp": timestamp}


def view(*rooms: tuple[str, str | None], **interval: str) -> str:
    """The address of a view."""
    names = [pair for building, room in rooms for pair in (("building_id", building), ("room_id", room)) if pair[1]]
    return f"/?{urlencode([*names, *interval.items()])}"


def asked(page: Page) -> list[tuple[str, str]]:
    """What the address bar says."""
    return parse_qsl(urlsplit(page.url).query)


def tile(page: Page, name: str) -> Locator:
    """The value below a name."""
    return page.locator(".tiles .card").filter(has=page.locator("dt", has_text=name)).locator("data")


def row(page: Page, name: str) -> Locator:
    """The line of a room where several are compared."""
    return page.locator("#summary tbody tr").filter(has_text=name)


def room_of(page: Page, name: str) -> Locator:
    """The button of a room in the list."""
    return page.locator("#rooms").get_by_role("button", name=name)


def plot(page: Page) -> Locator:
    """The chart."""
    return page.get_by_role("slider", name="Time in the chart")


def shown(page: Page) -> Page:
    """The page when it has shown what was asked for."""
    expect(page.locator("#dashboard.loading")).to_have_count(0)
    expect(page.locator("#plot canvas")).to_be_visible()
    return page


def schemes(page: Page) -> Iterator[str]:
    """Have the page light, then dark; its name each time."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        yield scheme


def ask_again(page: Page) -> None:
    """Have the page ask for what is new, as it does after a while."""
    page.evaluate("dispatchEvent(new Event('online'))")


def accessible(page: Page) -> list[str]:
    """What axe finds that keeps somebody out."""
    page.evaluate(
        "Promise.all(document.getAnimations().map((each) => each.effect.getTiming().iterations < 9 && each.finished))"
    )
    # To describe each of thousands of nodes that are right takes longer than to look at them.
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {node['target']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def fits(page: Page) -> bool:
    """Whether nothing has to be looked for beyond the right edge."""
    return bool(page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth"))


def saved(page: Page, button: str = "CSV") -> tuple[str, str]:
    """The name and the text of the file that the page saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path: Path = download.value.path()
    return download.value.suggested_filename, path.read_bytes().decode()


# Every text that was last written on a canvas: what it says, how, where it begins and ends, and how wide the canvas is.
WRITTEN = """
window.written = [];
const clear = CanvasRenderingContext2D.prototype.clearRect;
CanvasRenderingContext2D.prototype.clearRect = function (...rest) {
    written.length = 0;
    return clear.apply(this, rest);
};
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
    const { width } = this.measureText(text);
    const left = x - { right: width, end: width, center: width / 2 }[this.textAlign] || x;
    const { e } = this.getTransform();
    const [canvas, size, colour] = [this.canvas.width, parseFloat(this.font), this.fillStyle];
    written.push({ text, size, colour, left: left + e, right: left + width + e, canvas, y });
    return write.call(this, text, x, y, ...rest);
};
"""
