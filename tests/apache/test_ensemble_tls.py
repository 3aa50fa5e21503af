"""POST /v1/ensemble with another service over HTTPS, whose certificate is signed by an authority of one's own."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.ensembles.upstream_answers import UpstreamError
from app.ensembles.upstreams import Upstream
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


def test_other_service_is_asked_by_https_when_its_certificate_is_right(
    authority: Authority, other: Server, https_port: int, sample_path: Path
) -> None:
    upstreams = f"north=https://localhost:{https_port},east=https://127.0.0.1:{https_port}"
    ours = {"ENSEMBLE_TOKEN": other.token, "ENSEMBLE_CA_FILE": str(authority.certificate)}
    before = asked(other)
    with servers.running("test", ENSEMBLE_UPSTREAMS=upstreams, **ours) as server:
        path = "/v1/ensemble?task=classify&members=site-safety-classifier,north,east"
        answer = server.ask(path, sample_path.read_bytes(), JPEG)

    assert answer.status == 200, answer.body
    assert [each["name"] for each in answer.json["members"]] == ["site-safety-classifier", "north"]
    # The certificate is for a name, and east is called by an address.
    assert [(each["name"], each["code"]) for each in answer.json["missing"]] == [("east", "upstream_failed")]
    assert "certificate is not valid for '127.0.0.1'" in answer.json["missing"][0]["reason"]
    servers.wait_until(lambda: asked(other) > before, 30, "the request in the other's log")


@pytest.mark.parametrize("trusted", ["wrong", "none"])
def test_nothing_is_sent_to_a_service_whose_certificate_is_not_right(
    open_folder: Path, other: Server, https_port: int, sample_path: Path, trusted: str
) -> None:
    trust = Authority(open_folder, "another").certificate if trusted == "wrong" else None
    before = asked(other)
    north = Upstream("north", f"https://localhost:{https_port}", other.token, trust)
    with pytest.raises(UpstreamError, match="certificate verify failed"):
        north.predict("classify", [sample_path.read_bytes()], {}, time.monotonic() + 20, "never-seen-0123")

    # The next request's line stands behind all earlier ones.
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", other.port, timeout=20)) as connection:
        connection.request("GET", "/v1/models", headers={"X-Request-Id": f"last-{trusted}-123"})
        assert connection.getresponse().status == 308
    servers.wait_until(lambda: f"last-{trusted}-123" in other.log(), 30, "the last request in the other's log")
    assert asked(other) == before


def asked(server: Server) -> int:
    """How many predictions it was asked for, by its log."""
    return server.log().count("POST /v1/classify")
