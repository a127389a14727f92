"""The pages for people, as a browser gets them."""

import gzip
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from starlette.testclient import TestClient

from bench import stack
from tests.support import python

Serve = Callable[..., TestClient]
PAGES = [
    ("average", "/"),
    *((name, path) for name in ("average", "ingest", "simulate", "watch") for path in ("/docs", "/redoc")),
]
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TOKEN = "read-token-0123456789"


def links(page: str) -> list[str]:
    """The files that a page loads. They are beside it, wherever that is."""
    return [f"/{link}" for link in re.findall(r'(?:src|href)="(\w+/[0-9a-f]{16}/[^"]+)"', page)]


@pytest.mark.parametrize(("name", "path"), PAGES)
def test_a_page_and_its_files_are_open_and_allow_nothing_from_elsewhere(serve: Serve, name: str, path: str) -> None:
    client = serve(name, READ_TOKENS=TOKEN, WRITE_TOKENS=TOKEN)
    page = client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert re.sub(r" 'sha256-\S+'", "", policy) == STRICT + ("; font-src data:" if path == "/redoc" else "")
    assert ("sha256" in policy) == (path == "/redoc")
    assert "<style" not in page.text
    assert not re.search(r"\son\w+=|style=|<script(?![^>]+src=)", page.text)
    assert links(page.text)
    for link in links(page.text):
        file = client.get(link)
        assert (file.status_code, file.headers["cache-control"]) == (200, "max-age=31536000, immutable")
    for answer in (page, file):
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_browser_guesses_no_media_type(tmp_path: Path) -> None:
    with stack.serve(stack.command(), stack.target("average"), log=tmp_path / "log") as served:
        for path in ("/", "/docs", "/settings", "/nothing"):
            answer = requests.get(f"http://127.0.0.1:{served.port}{path}", timeout=10)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_the_browser_has_is_not_sent_again(serve: Serve) -> None:
    client = serve("average")
    for path in ("/", links(client.get("/").text)[0]):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        # Which a proxy has taken the weakness from, which comes in two lines, or any that there is (RFC 9110, 13.1.2).
        for tags in ([tag.removeprefix("W/")], ['"other"', tag], ["*"]):
            headers = [("If-None-Match", each) for each in tags]
            assert client.get(path, headers=headers).status_code == 304, tags


def test_it_is_sent_compressed_to_who_understands_that(serve: Serve) -> None:
    client = serve("average")
    for refused in ("identity", "gzip;q=0", "br, gzip; q=0.0", "*;q=0", "gzip;q=much"):
        plain = client.get("/", headers={"Accept-Encoding": refused})
        assert "content-encoding" not in plain.headers
    with client.stream("GET", "/", headers={"Accept-Encoding": "gzip"}) as packed:
        content = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(content) == plain.content
    assert len(content) < len(plain.content) / 2
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


def test_a_page_of_another_revision_gets_the_files_there_are_and_does_not_keep_them(serve: Serve) -> None:
    client = serve("average")
    link = links(client.get("/").text)[0]
    other = re.sub("[0-9a-f]{16}", "0" * 16, link)
    assert client.get(other).content == client.get(link).content
    assert client.get(other).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/dashboard", "/dashboard/", "/dashboard/0/main.py", "/dashboard/0/../main.py", "/docs/x"]
)
def test_there_is_nothing_else(serve: Serve, path: str) -> None:
    answer = serve("average").get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_page_is_only_looked_at(serve: Serve) -> None:
    answer = serve("average").post("/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert serve("average").head("/").status_code == 200


@pytest.mark.parametrize(
    ("path", "place"), [("/docs/", "../docs"), ("/redoc/", "../redoc"), ("/docs/?a=b&c", "../docs?a=b&c")]
)
def test_a_page_with_a_slash_too_many_is_beside_it(serve: Serve, path: str, place: str) -> None:
    answer = serve("ingest").get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, place)
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("prefix", ["/t", "/t/", "/t/of.rooms~1"])
def test_below_a_path_a_function_answers_with_it_and_without(prefix: str) -> None:
    place = prefix.rstrip("/")
    paths = [place, f"{place}/", f"{place}/a/b", f"{place}x", "/a"]
    run = python("-c", f"from shared import prefix; print(*map(prefix.without, {paths}))", PATH_PREFIX=prefix)
    assert (run.stdout.split(), run.stderr) == (["/", "/", "/a/b", f"{place}x", "/a"], "")


@pytest.mark.parametrize("prefix", ["t", "/a b", "//", "/t?x", "/\u00fc", "https://example.com"])
def test_what_is_no_path_stops_the_start(prefix: str) -> None:
    run = python("-c", "from shared import prefix", PATH_PREFIX=prefix)
    meant = prefix.rstrip("/")
    said = f"PATH_PREFIX is {meant!r}. It must be a path of letters, digits, dots and hyphens, such as /temperatures\n"
    assert (run.returncode, run.stderr) == (1, said) if meant else (0, "")


RELEASED = {
    "uplot.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "swagger-ui.js": "050bc415ee7048dcd881682678f720264e7da5e373f7461d7c58c755305255f7",
    "swagger-ui.css": "1ac324f7dcd27e4b9386b4bd6421271ec147e922a22c05ba24b11515e9aa6321",
    "redoc.standalone.js": "ffcb91a368fe66c51c55df1c4a951b9022aca4d0a53b05e73b686d8e354c3cb6",
}
"""The hashes of uPlot 1.6.31, Swagger UI 5.33.1 and ReDoc 3.0.0."""
LOGO = b"https://cdn.redoc.ly/redoc/logo-mini-full.svg"


def test_a_library_is_what_its_makers_released(serve: Serve) -> None:
    """The packages that bring them are of others. ReDoc is served without the address of a logo elsewhere."""
    client = serve("average")
    for name, released in RELEASED.items():
        page = "/" if name.startswith("uplot") else "/docs"
        content = client.get(f"{links(client.get(page).text)[0].rpartition('/')[0]}/{name}").content
        content = content.replace(b"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>", LOGO)
        assert sha256(content).hexdigest() == released, name
