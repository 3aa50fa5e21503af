"""POST /v1/ensemble with another service over HTTPS, whose certificate is signed by an authority of one's own."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.certificates import Authority
from tests.servers import Server

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def https_port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def other(authority: Authority, https_port: int) -> Iterator[Server]:
    """A service with HTTPS whose certificate is for localhost, and that asks for tokens."""
    pair = authority.sign("localhost")
    tls = {"TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}
    with servers.running("test", AUTHENTICATION="required", HTTPS_PORT=str(https_port), **tls) as running:
        yield running


@pytest.mark.parametrize("trusted", ["right", "wrong", "none"])
def test_other_service_is_asked_by_https_when_its_certificate_is_right(
    open_folder: Path, authority: Authority, other: Server, https_port: int, sample_path: Path, trusted: str
) -> None:
    upstreams = f"north=https://localhost:{https_port},east=https://127.0.0.1:{https_port}"
    files = {"right": authority.certificate, "wrong": Authority(open_folder, "another").certificate}
    named = {"ENSEMBLE_CA_FILE": str(files[trusted])} if trusted in files else {}
    before = asked(other)
    with servers.running("test", ENSEMBLE_UPSTREAMS=upstreams, ENSEMBLE_TOKEN=other.token, **named) as server:
        path = "/v1/ensemble?task=classify&members=site-safety-classifier,north,east"
        answer = server.ask(path, sample_path.read_bytes(), JPEG)
        by_name = {each["name"]: each for each in answer.json["missing"]}
        print({name: each["reason"] for name, each in by_name.items()})

    assert answer.status == 200, answer.body
    answered = ["site-safety-classifier", *(["north"] if trusted == "right" else [])]
    assert [each["name"] for each in answer.json["members"]] == answered
    assert {each["code"] for each in by_name.values()} == {"upstream_failed"}
    # The certificate is for a name, and east is called by an address.
    of_east = "certificate is not valid for '127.0.0.1'" if trusted == "right" else "certificate verify failed"
    assert of_east in by_name["east"]["reason"]
    assert trusted == "right" or "certificate verify failed" in by_name["north"]["reason"]
    if trusted == "right":
        servers.wait_until(lambda: asked(other) > before, 30, "the request in the other's log")
    else:
        # Nothing was told to whom we do not know. The next request's line stands behind all earlier ones.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", other.port, timeout=20)) as connection:
            connection.request("GET", "/v1/models", headers={"X-Request-Id": f"last-{trusted}-123"})
            assert connection.getresponse().status == 308
        servers.wait_until(lambda: f"last-{trusted}-123" in other.log(), 30, "the last request in the other's log")
        assert asked(other) == before


def asked(server: Server) -> int:
    """How many predictions it was asked for, by its log."""
    return server.log().count("POST /v1/classify")
