"""Behind nginx, HAProxy and another Apache, set up as docs/proxies/ shows: all that an answer names is found."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bad_input, proxies, servers
from tests.servers import Answer, Server

PREFIX = "/vision"
PAGES = ("/", "/models", "/jobs", "/capacity", "/docs", "/redoc", "/api/browse")
PROXIES = {"nginx": proxies.nginx, "Apache": proxies.apache, "HAProxy": proxies.haproxy_below_path}
# What a page names: of every element, where it leads or what it loads.
NAMED = re.compile(r"""\s(?:href|src|action|data-api|data-address|data-document)="([^"#]+)""")
CALLER, STRANGER = "127.0.5.5", "127.0.6.6"
HTML = {"Accept": "text/html"}


def call(
    server: Server,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    address: str = CALLER,
    method: str | None = None,
) -> Answer:
    """Ask from another address of loopback; follows no redirect."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=(address, 0))
    with contextlib.closing(connection):
        token = {"X-Api-Token": server.token} if server.token and "Cookie" not in (headers or {}) else {}
        connection.request(method or ("POST" if body is not None else "GET"), path, body, {**token, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def is_below(address: str) -> bool:
    """Whether it begins with the path."""
    return re.match(f"{PREFIX}(?:[/?]|$)", address) is not None


@pytest.fixture(scope="module")
def backend() -> Iterator[Server]:
    """Believes what comes from 127.0.0.1 and 127.0.0.2, where the proxies are; asks for tokens; few connections."""
    settings = {"TRUSTED_PROXIES": "127.0.0.1,127.0.0.2", "AUTHENTICATION": "required", "SERVER_MAX_CONNECTIONS": "32"}
    with servers.running("test", ADMIN_NETWORKS="127.0.0.0/8", **settings) as server:
        yield server


@pytest.fixture(scope="module", params=PROXIES)
def proxied(backend: Server, request: pytest.FixtureRequest) -> Iterator[Server]:
    with PROXIES[request.param](backend) as server:
        yield server


def test_every_address_that_a_page_names_is_found(proxied: Server) -> None:
    named: dict[str, str] = {}
    for page in PAGES:
        answer = call(proxied, PREFIX + page, HTML)
        assert answer.status == 200, page
        base = f"http://h{PREFIX}{page}"
        named |= {urllib.parse.urljoin(base, each): page for each in NAMED.findall(answer.body.decode())}

    ours = {each.removeprefix("http://h").replace("&amp;", "&") for each in named if each.startswith("http://h/")}
    assert {each for each in ours if not is_below(each)} == set()
    assert f"{PREFIX}/static/js/page.js" in ours
    # 405: takes forms only.
    lost = {each for each in ours if call(proxied, each).status not in (200, 303, 405)}
    # Where scripts begin addresses; nothing itself.
    assert lost <= {f"{PREFIX}/v1"}


def test_style_sheets_and_scripts_lead_to_each_other(proxied: Server) -> None:
    sheet = call(proxied, f"{PREFIX}/static/site.css").body.decode()
    script = call(proxied, f"{PREFIX}/static/js/page.js").body.decode()

    below = re.findall(r'url\("([^"]+)"\)', sheet)
    below += [f"js/{each}" for each in re.findall(r'from "\./([^"]+)"', script)]
    assert len(below) > 5
    for each in below:
        assert call(proxied, f"{PREFIX}/static/{each}").status == 200, each


def test_redirects_stay_below_the_path(proxied: Server) -> None:
    bare = call(proxied, PREFIX)
    unknown = call(proxied, f"{PREFIX}/models?lang=de", {**HTML, "Cookie": "none=1"})

    assert urllib.parse.urlsplit(bare.headers["Location"]).path == f"{PREFIX}/"
    assert unknown.status == 303
    requested = urllib.parse.parse_qs(urllib.parse.urlsplit(unknown.headers["Location"]).query)
    assert unknown.headers["Location"].startswith(f"{PREFIX}/sign-in?")
    assert requested == {"next": [f"{PREFIX}/models?lang=de"]}


def test_a_person_signs_in_and_the_cookie_is_ours_alone(proxied: Server) -> None:
    form = urllib.parse.urlencode({"token": proxied.token, "next": f"{PREFIX}/models"}).encode()
    host = f"127.0.0.1:{proxied.port}"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{host}", "Cookie": "none=1"}

    entered = call(proxied, f"{PREFIX}/sign-in", headers, form)

    assert (entered.status, entered.headers["Location"]) == (303, f"{PREFIX}/models")
    cookies = entered.headers.get_all("Set-Cookie")
    assert all(f"Path={PREFIX}" in each for each in cookies), cookies
    assert call(proxied, f"{PREFIX}/models", {**HTML, "Cookie": cookies[0].partition(";")[0]}).status == 200


def test_an_image_is_uploaded_and_a_job_is_found_where_it_is_said_to_be(proxied: Server, sample_path: Path) -> None:
    body, content_type = bad_input.multipart(sample_path.read_bytes())

    form, _ = bad_input.multipart(sample_path.read_bytes(), field_name="image_upload")
    page = call(proxied, f"{PREFIX}/upload", {"Content-Type": content_type, **HTML}, form)
    job = call(proxied, f"{PREFIX}/v1/jobs", {"Content-Type": content_type}, body)

    assert page.status == 200
    assert f"{PREFIX}/v1/" in page.body.decode()
    assert job.status == 202
    assert job.headers["Location"].startswith(f"{PREFIX}/v1/jobs/")
    assert call(proxied, job.headers["Location"]).status == 200


def test_the_description_names_the_path(proxied: Server, backend: Server) -> None:
    through, past = call(proxied, f"{PREFIX}/openapi.json"), call(backend, "/openapi.json")

    assert through.json["servers"] == [{"url": PREFIX}]
    assert past.json["servers"] == [{"url": "/"}]
    assert call(proxied, f"{PREFIX}/openapi.json", {"If-None-Match": through.headers["ETag"]}).status == 304
    assert call(proxied, f"{PREFIX}/openapi.json", {"If-None-Match": past.headers["ETag"]}).status == 200


@pytest.mark.parametrize("path", ["/static/none", "/nothing"])
def test_failures_are_ours_and_their_pages_find_their_style(proxied: Server, path: str) -> None:
    page, problem = call(proxied, PREFIX + path, HTML), call(proxied, PREFIX + path)

    assert (page.status, problem.status, problem.json["code"]) == (404, 404, "not_found")
    assert all(is_below(each) for each in NAMED.findall(page.body.decode()))


def test_the_log_names_the_caller_and_not_the_proxy(proxied: Server, backend: Server) -> None:
    request_id = f"seen-{proxied.port}-0123"

    call(proxied, f"{PREFIX}/v1/models", {"X-Request-Id": request_id, "X-Forwarded-For": "203.0.113.9"})

    servers.wait_until(lambda: request_id in backend.log(), 30, "the line")
    (line,) = [each for each in backend.log().splitlines() if request_id in each and "ACCESS" in each]
    assert f" {CALLER} " in line


@pytest.mark.parametrize("path", ["/metrics", "/status", "/_alive"])
def test_nobody_is_an_insider_through_a_proxy(proxied: Server, backend: Server, path: str) -> None:
    assert call(proxied, PREFIX + path, address="127.0.0.1").status == 403
    assert call(proxied, PREFIX + path).status == 403
    assert call(backend, path, address="127.0.0.1").status in (200, 204)


def test_a_stranger_is_not_believed(backend: Server) -> None:
    request_id = "stranger-0123456"
    forged = {"X-Forwarded-For": CALLER, "X-Forwarded-Prefix": "/evil", "X-Forwarded-Proto": "https"}
    form = urllib.parse.urlencode({"token": backend.token}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "none=1"}

    document = call(backend, "/openapi.json", {**forged, "X-Request-Id": request_id}, address=STRANGER)
    entered = call(backend, "/sign-in", {**forged, **headers}, form, address=STRANGER)
    page = call(backend, "/static/none", {**forged, **HTML}, address=STRANGER)

    assert document.json["servers"] == [{"url": "/"}]
    assert "Secure" not in entered.headers["Set-Cookie"]
    assert b"/evil" not in page.body
    servers.wait_until(lambda: request_id in backend.log(), 30, "the line")
    (line,) = [each for each in backend.log().splitlines() if request_id in each and "ACCESS" in each]
    assert f" {STRANGER} " in line


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example", "/a b", "/<b>", "/..", '/"a="', "/", ""])
def test_a_path_that_is_none_is_left_out(backend: Server, prefix: str) -> None:
    headers = {"X-Forwarded-For": CALLER, "X-Forwarded-Prefix": prefix}

    assert call(backend, "/openapi.json", headers, address="127.0.0.1").json["servers"] == [{"url": "/"}]
    assert b'href="/"' in call(backend, "/static/none", {**headers, **HTML}, address="127.0.0.1").body


# Of a chain of which 127.0.0.1 and 127.0.0.2 are ours: X-Forwarded-For, X-Forwarded-Proto, whether it was HTTPS.
CHAINS = [
    (None, "https", True),
    ("203.0.113.9", "https", True),
    ("203.0.113.9", "HTTPS", True),
    ("203.0.113.9", "https, https", True),
    ("203.0.113.9, 127.0.0.2", "https, http", True),
    ("203.0.113.9, 127.0.0.2", "https,http", True),
    ("203.0.113.9, 127.0.0.2", "http, https", False),
    # One of ours wrote nothing, or over it.
    ("203.0.113.9, 127.0.0.2", "https", True),
    # The caller wrote the first of them.
    ("198.51.100.1, 203.0.113.9", "https, http", False),
    ("198.51.100.1, 203.0.113.9, 127.0.0.2", "https, http, http", False),
    ("198.51.100.1, 203.0.113.9, 127.0.0.2", "http, https, http", True),
    ("198.51.100.1, 203.0.113.9", "https,", False),
]


@pytest.mark.parametrize(("chain", "schemes", "is_https"), CHAINS)
def test_https_at_the_proxy_makes_cookies_secure(
    backend: Server, chain: str | None, schemes: str, is_https: bool
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "none=1", "X-Forwarded-Proto": schemes}
    form = urllib.parse.urlencode({"token": backend.token}).encode()

    chained = {"X-Forwarded-For": chain} if chain else {}
    entered = call(backend, "/sign-in", {**headers, **chained}, form, address="127.0.0.1")

    assert ("Secure" in entered.headers["Set-Cookie"]) is is_https


@pytest.mark.parametrize(
    ("chain", "caller"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("198.51.100.1:1, 203.0.113.9:4711, 127.0.0.2:80", "203.0.113.9"),
        ("203.0.113.9:http", "127.0.0.1"),
        ("unknown:80", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_caller_is_known_with_a_port_too(backend: Server, chain: str, caller: str) -> None:
    request_id = f"port-{abs(hash(chain)):020d}"

    call(backend, "/v1/models", {"X-Forwarded-For": chain, "X-Request-Id": request_id}, address="127.0.0.1")

    servers.wait_until(lambda: request_id in backend.log(), 30, "the line")
    (line,) = [each for each in backend.log().splitlines() if request_id in each and "ACCESS" in each]
    assert f" {caller} " in line


def test_the_path_of_the_proxy_that_is_believed_counts(backend: Server) -> None:
    headers = {"X-Forwarded-For": f"198.51.100.1, {CALLER}", "X-Forwarded-Prefix": "/evil, /vision"}

    document = call(backend, "/openapi.json", headers, address="127.0.0.1")

    assert document.json["servers"] == [{"url": PREFIX}]


def test_uploads_are_capped_by_caller_and_not_by_proxy(backend: Server, sample_path: Path) -> None:
    head = "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.7\r\nContent-Length: 99\r\n\r\nx"
    with contextlib.ExitStack() as stack:
        dawdlers = [stack.enter_context(socket.create_connection(("127.0.0.1", backend.port), 10)) for _ in range(20)]
        for dawdler in dawdlers:
            dawdler.sendall(head.encode())
        headers = {"X-Forwarded-For": "203.0.113.8", "Content-Type": "image/jpeg"}
        other = call(backend, "/v1/detect", headers, sample_path.read_bytes(), address="127.0.0.1")
        refused = select.select(dawdlers, [], [], 10)[0]
        statuses = {each.recv(12) for each in refused}

    assert other.status == 200
    assert statuses == {b"HTTP/1.1 429"}


# ── PATH_PREFIX ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def mounted() -> Iterator[Server]:
    with servers.running("test", PATH_PREFIX=PREFIX) as server:
        yield server


@pytest.mark.parametrize("path", ["/", "/v1/models", "/livez", "/readyz", "/version", "/static/site.css", "/docs"])
def test_addresses_are_found_below_the_path_and_without_it(mounted: Server, path: str) -> None:
    assert call(mounted, PREFIX + path).status == 200
    assert call(mounted, path).status == 200


def test_all_that_is_named_begins_with_the_path(mounted: Server, sample_path: Path) -> None:
    body, content_type = bad_input.multipart(sample_path.read_bytes())
    for page in (*PAGES, "/nothing", "/static/none"):
        named = NAMED.findall(call(mounted, PREFIX + page, HTML).body.decode())
        assert {each for each in named if each.startswith("/") and not f"{each}/".startswith(f"{PREFIX}/")} == set(), (
            page
        )

    assert call(mounted, PREFIX).headers["Location"].endswith(f"{PREFIX}/")
    assert call(mounted, f"{PREFIX}/openapi.json").json["servers"] == [{"url": PREFIX}]
    assert call(mounted, "/v1/jobs", {"Content-Type": content_type}, body).headers["Location"].startswith(PREFIX)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/_errors/404.json", "GET", 404),
        ("/static/site.css", "POST", 405),
        ("ary/livez", "GET", 404),
        ("/vision/livez", "GET", 404),
    ],
)
def test_what_holds_without_a_path_holds_below_it(mounted: Server, path: str, method: str, status: int) -> None:
    answer = call(mounted, PREFIX + path, method=method)

    assert answer.status == status
    assert json.loads(answer.body)["code"]
