"""Where tokens are listed, only who has one of them gets in."""

import logging
import re
import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from shared.settings import SettingError
from tests.support import NOWHERE

Serve = Callable[..., TestClient]
OLD, NEW = "an-old-token-0123456789", "a-new-token-0123456789"
SETTINGS = {"ingest": "WRITE_TOKENS", "average": "READ_TOKENS", "simulate": "WRITE_TOKENS", "watch": "WRITE_TOKENS"}
GUARDED = [
    ("ingest", "POST", "/"),
    ("ingest", "POST", "/temperature"),
    ("ingest", "POST", "/v1/temperature/"),
    ("average", "GET", "/v1/temperature/average"),
    ("average", "GET", "/temperature/average"),
    ("average", "GET", "/v1/temperature/series"),
    ("average", "HEAD", "/v1/temperature/rooms"),
    ("average", "GET", "/v1/temperature/alarms"),
    ("average", "GET", "/settings"),
    ("simulate", "POST", "/"),
    ("simulate", "POST", "/simulate"),
    ("watch", "POST", "/"),
    ("watch", "POST", "/watch"),
]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("name", "method", "path"), GUARDED)
@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"authorization": f"Basic {OLD}"}, "Bearer"),
        ({"authorization": OLD}, "Bearer"),
        (bearer(""), 'Bearer error="invalid_token"'),
        (bearer(OLD[:-1]), 'Bearer error="invalid_token"'),
        (bearer(f"{OLD} {NEW}"), 'Bearer error="invalid_token"'),
        (bearer("\xfc" * 20), 'Bearer error="invalid_token"'),
    ],
    ids=["none", "basic", "bare", "empty", "shorter", "both", "not ASCII"],
)
def test_without_a_listed_token_the_answer_is_401(
    serve: Serve, name: str, method: str, path: str, headers: dict[str, str], challenge: str
) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = serve(name, **{SETTINGS[name]: f"{OLD},{NEW}"}).request(method, path, headers=encoded)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, challenge)
    assert response.headers["content-type"] == "application/problem+json"
    assert OLD not in response.text


@pytest.mark.parametrize("token", [OLD, NEW])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_listed_token_is_let_in(serve: Serve, token: str, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {token}"}
    assert serve("ingest", WRITE_TOKENS=f"{OLD} {NEW}").post("/", json=[], headers=headers).status_code == 201
    assert serve("average", READ_TOKENS=f" {OLD},\n{NEW} ").get("/settings", headers=headers).status_code == 200
    # Let in, and told what else is missing.
    assert serve("simulate", WRITE_TOKENS=f"{OLD},{NEW}").post("/", headers=headers).status_code == 503


def test_a_token_for_reading_does_not_write(serve: Serve) -> None:
    tokens = {"WRITE_TOKENS": OLD, "READ_TOKENS": NEW}
    assert serve("ingest", **tokens).post("/", json=[], headers=bearer(NEW)).status_code == 401
    assert serve("average", **tokens).get("/settings", headers=bearer(OLD)).status_code == 401


@pytest.mark.parametrize("name", SETTINGS)
def test_health_and_the_description_are_open_to_all(serve: Serve, name: str) -> None:
    client = serve(name, WRITE_TOKENS=OLD, READ_TOKENS=OLD)
    assert client.get("/health").status_code == 200
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, item in document["paths"].items():
        for operation in item.values():
            needed = path not in {"/health", "/ready"}
            assert ("401" in operation["responses"]) == bool(operation["security"]) == needed


@pytest.mark.parametrize("name", SETTINGS)
def test_without_tokens_the_description_speaks_of_those_for_removal_alone(serve: Serve, name: str) -> None:
    document = serve(name).get("/openapi.json").json()
    secured = {
        (method, path)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if operation["security"] or "401" in operation["responses"]
    }
    removal = {("delete", f"/v1/temperature/{path}") for path in ("readings", "rooms")}
    removal.add(("get", "/v1/temperature/removals"))
    assert secured == (removal if name == "average" else set())
    assert ("securitySchemes" in document["components"]) == (name == "average")


def test_a_body_is_not_read_before_the_token(serve: Serve) -> None:
    response = serve("ingest", WRITE_TOKENS=OLD).post("/", content=b"x" * 9_000_000)
    assert response.status_code == 401


EMPTY = " is empty. List a token, or unset it to let everybody in"
WEAK = " lists a token that is not of 16 characters or more, all of them ASCII. Make one, such as: openssl rand -hex 32"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [("", EMPTY), (" , ", EMPTY), ("short", WEAK), (f"{OLD},short", WEAK), ("\u00e4" * 20, WEAK)],
)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_would_let_in_anybody_stops_the_start(
    serve: Serve, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(SettingError, match=re.escape(SETTINGS[name] + sentence)) as stopped:
        serve(name, **{SETTINGS[name]: value})
    assert OLD not in str(stopped.value)


@pytest.mark.parametrize("name", ["ingest", "simulate", "watch"])
def test_a_page_of_another_site_writes_only_where_its_origin_is_listed(serve: Serve, name: str) -> None:
    page = {"sec-fetch-site": "cross-site", "origin": "https://example.com"}
    for listed, headers, is_let_in in (
        ("", page, False),
        ("", {"sec-fetch-site": "same-site"}, False),
        ("", {**page, "sec-fetch-site": "same-origin"}, True),
        ("", {"sec-fetch-site": "none"}, True),
        ("", {"origin": "https://example.com"}, True),
        ("https://example.org", page, False),
        ("https://example.com", page, True),
        ("https://example.com", {"sec-fetch-site": "cross-site"}, False),
        ("*", page, True),
    ):
        client = serve(name, CORS_ORIGINS=listed, DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
        answer = client.post("/", content=b"[", headers=headers)
        assert (answer.status_code == 403) != is_let_in
        if not is_let_in:
            detail = "A page of another site may not do this; list its origin in CORS_ORIGINS if it is to"
            assert answer.json()["detail"] == detail


def test_a_page_that_says_so_thousands_of_times_costs_no_more_than_other_headers(serve: Serve) -> None:
    client = serve("ingest", CORS_ORIGINS="https://example.com", DATABASE_URL=NOWHERE)

    def seconds(name: str) -> float:
        headers = [(name, "cross-site")] * 2_000 + [("origin", "https://example.com")]
        started = time.process_time()
        assert client.post("/", content=b"[", headers=headers).status_code == 400
        return time.process_time() - started

    others = min(seconds("sec-fetch-mode") for _ in range(3))
    assert min(seconds("sec-fetch-site") for _ in range(3)) < 5 * others


def test_no_token_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = serve("ingest", WRITE_TOKENS=OLD, LOG_LEVEL="debug")
    client.post("/", json=[], headers=bearer(OLD))
    client.post("/", json=[], headers=bearer(NEW))
    assert OLD not in caplog.text
    assert NEW not in caplog.text
