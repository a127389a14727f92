"""`make run` answers this machine's own programs and pages, and no page of another site."""

import re
import socket
from collections.abc import Callable

import pytest
import requests
from starlette.testclient import TestClient

from local import gateway
from shared.settings import SettingError
from tests.local.machine import place, running
from tests.stack import Stack
from tests.support import NOWHERE

JSON = {"content-type": "application/json"}
EMPTY = "[]"
"""Of no readings: taken without a database."""
WRITES = ["/", "/temperature", "/v1/temperature", "/simulate", "/watch"]


def client(**environment: str) -> TestClient:
    """The functions behind one address, with settings."""
    functions = {name: {"DATABASE_URL": NOWHERE} for name in ("ingest", "average", "watch", "simulate")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return TestClient(gateway.application(functions), base_url="http://localhost:8080")


@pytest.fixture(scope="module")
def product() -> TestClient:
    """The functions with a name and an origin that are listed."""
    return client(ALLOWED_HOSTS="temperature.example.com, other.example.com.", CORS_ORIGINS="https://partner.example")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST.:9", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("temperature.example.com:443", 200),
        ("other.example.com", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost@evil.example", 403),
        ("0.0.0.0:8080", 403),
        ("[::2]:8080", 403),
        ("192.168.0.7:8080", 403),
        ("127.0.0.1.nip.io", 403),
        ("", 403),
    ],
)
def test_a_name_that_leads_here_is_answered_only_if_it_is_known(product: TestClient, host: str, status: int) -> None:
    for path in ("/health", "/nothing/there"):
        answer = product.get(path, headers={"host": host})
        assert answer.status_code == (404 if status == 200 and path != "/health" else status)
    if status == 403:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
        counted = product.get("/metrics").text
        assert 'temperature_requests_total{function="gateway",reason="other_host",status="403"}' in counted


@pytest.mark.parametrize("value", ["http://example.com", "example.com:8080", "a/b", "*"])
def test_what_is_no_name_of_a_host_is_said(value: str) -> None:
    with pytest.raises(SettingError, match="ALLOWED_HOSTS lists"):
        client(ALLOWED_HOSTS=value)


@pytest.mark.parametrize(
    "value", ["example.com", "https://example.com/", "https://EXAMPLE.com", "https://a.com:443", "https://ü.com"]
)
def test_what_is_no_origin_is_said(value: str) -> None:
    with pytest.raises(SettingError, match="CORS_ORIGINS lists"):
        client(CORS_ORIGINS=value)


OWN = [
    {},
    {"sec-fetch-site": "same-origin", "origin": "http://localhost:8080"},
    {"sec-fetch-site": "none"},
    # A browser of before 2020 or so, and one behind a proxy that knows the address from outside.
    {"origin": "http://localhost:8080"},
    {"origin": "https://LOCALHOST:8080"},
    # Behind a proxy that does not tell the name that the browser knows.
    {"sec-fetch-site": "same-origin", "origin": "https://temperature.example.com"},
    {"sec-fetch-site": "cross-site", "origin": "https://partner.example"},
    {"origin": "https://partner.example"},
]
FOREIGN = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site", "origin": "null"},
    {"sec-fetch-site": "cross-site", "origin": "http://localhost:8080.evil.example"},
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "null"},
]


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_programs_and_pages_of_its_own_and_those_listed_may_write(product: TestClient, headers: dict[str, str]) -> None:
    for path in ("/", "/temperature", "/v1/temperature"):
        assert product.post(path, content=EMPTY, headers={**JSON, **headers}).status_code == 201
    # Not asked for anything that can be.
    assert product.post("/simulate", content='{"count": 0}', headers={**JSON, **headers}).status_code == 422


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_may_write_nowhere_and_ask(product: TestClient, headers: dict[str, str]) -> None:
    for path in WRITES:
        for body in ({"content-type": "text/plain"}, JSON, {}):
            answer = product.post(path, content=EMPTY, headers={**headers, **body})
            assert (path, body, answer.status_code) in [(path, body, 403), (path, body, 415)]
        assert answer.status_code == 403
    # It gets to see no answer, since none allows it (CORS).
    answer = product.get("/health", headers=headers)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    "kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "Multipart/Form-Data"]
)
def test_a_body_that_any_page_can_send_is_not_taken(product: TestClient, kind: str) -> None:
    for path in WRITES:
        for body in (b"{}", iter([b"{}"])):
            answer = product.post(path, content=body, headers={"content-type": kind})
            assert (path, answer.status_code) == (path, 415)
            assert "application/json" in answer.json()["detail"]
    assert product.post("/simulate", headers={"content-type": kind}).status_code != 415


def test_what_is_allowed_at_the_root_is_what_all_functions_together_take(product: TestClient) -> None:
    allowed = "GET, HEAD, POST, OPTIONS"
    for path in ("/", "//"):
        for method in ("PUT", "DELETE", "PATCH", "TRACE"):
            answer = product.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert (product.options(path).status_code, product.options(path).headers["allow"]) == (204, allowed)
        for method in ("GET", "HEAD", "POST"):
            assert product.request(method, path).status_code not in {404, 405}
    page = {"origin": "https://partner.example", "access-control-request-method": "POST"}
    assert product.options("/", headers=page).headers["access-control-allow-methods"] == allowed


def test_what_is_about_all_functions_is_answered_as_the_rest(product: TestClient) -> None:
    """With the header for pages of listed origins, counted, and with a line in the log."""
    page = {"origin": "https://partner.example"}
    for path in ("/openapi.json", "/metrics"):
        assert product.get(path, headers=page).headers["access-control-allow-origin"] == page["origin"]
        assert product.post(path, headers=page).headers["allow"] == "GET, HEAD, OPTIONS"
        preflight = {**page, "access-control-request-method": "GET"}
        assert product.options(path, headers=preflight).headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    counted = re.findall(
        r'temperature_requests_total\{function="gateway".*status="200"\} (\d+)', product.get("/metrics").text
    )
    assert int(counted[0]) >= 2


@pytest.mark.parametrize("name", ["READ_TOKENS", "WRITE_TOKENS"])
def test_metrics_of_all_functions_need_a_token_of_any(name: str) -> None:
    token = "a-token-of-24-characters"
    guarded = client(**{name: token})
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 200
    [described] = guarded.get("/openapi.json").json()["paths"]["/metrics"].values()
    assert described["security"]
    assert client().get("/metrics").status_code == 200


@pytest.mark.parametrize("function", ["ingest", "simulate", "watch"])
def test_each_function_refuses_pages_of_other_sites_wherever_it_runs_and_answers_to_any_name(
    serve: Callable[..., TestClient], function: str
) -> None:
    product = serve(function, DATABASE_URL=NOWHERE, ALLOWED_HOSTS="", DEADLINE_SECONDS="1")
    host = {"host": f"{function}.temperature.svc.cluster.local"}
    for site, refused in (("cross-site", True), ("same-site", True), ("same-origin", False), ("none", False)):
        answer = product.post("/", content=EMPTY, headers={**host, **JSON, "sec-fetch-site": site})
        assert (answer.status_code == 403) == refused, answer.text
    # Knative's parts and devices are no browsers.
    assert product.post("/", content=EMPTY, headers={**host, **JSON}).status_code != 403


def test_localhost_is_answered_at_both_of_its_addresses() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("the machine has no ::1")
    with place() as folder, running(folder / "data") as stack:
        stack.wait_for("Functions")
        port = stack.address.rpartition(":")[2]
        for host in ("localhost", "127.0.0.1", "[::1]"):
            assert requests.get(f"http://{host}:{port}/health", timeout=20).json()["status"] == "ok"


def test_a_port_that_is_taken_at_the_other_address_of_localhost_is_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("the machine has no ::1")
    with taken:
        stack = Stack(tmp_path_factory.mktemp("taken") / "data", taken.getsockname()[1])
        output = stack.process.communicate(timeout=20)[0]
    assert "cannot be used (Address already in use). Choose another, such as: make run PORT=" in output
