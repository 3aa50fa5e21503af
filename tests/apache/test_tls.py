"""HTTPS by this server itself: who comes by plain HTTP is sent over, old protocols are refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

HSTS = "max-age=600"


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    folder = servers.make_state_dir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    # The service user reads it.
    (folder / "key.pem").chmod(0o644)
    yield folder


@pytest.fixture(scope="module")
def https_port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def server(certificate: Path, https_port: int) -> Iterator[Server]:
    settings = {
        "HTTPS_PORT": str(https_port),
        "TLS_CERTIFICATE": str(certificate / "cert.pem"),
        "TLS_KEY": str(certificate / "key.pem"),
        "HSTS_SECONDS": "600",
        # As in prod and in a container; the tests come by loopback all the same.
        "LISTEN_HOST": "0.0.0.0",  # noqa: S104 - this is what is tested
    }
    with servers.running("test", **settings) as running:
        yield running


def _https(port: int, certificate: Path) -> http.client.HTTPSConnection:
    trust = ssl.create_default_context(cafile=certificate / "cert.pem")
    return http.client.HTTPSConnection("localhost", port, context=trust, timeout=20)


def test_a_prediction_travels_encrypted(server: Server, https_port: int, certificate: Path, sample_path: Path) -> None:
    with contextlib.closing(_https(https_port, certificate)) as connection:
        connection.request("POST", "/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()

    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == HSTS


def test_a_connection_that_begins_late_is_answered_twice(
    server: Server, https_port: int, certificate: Path, sample_path: Path
) -> None:
    body = sample_path.read_bytes() + b"\0" * 3_000_000
    trust = ssl.create_default_context(cafile=certificate / "cert.pem")
    with socket.create_connection(("localhost", https_port), 20) as silent:
        # So long Apache has nothing to read, and lets the connection wait.
        threading.Event().wait(0.5)
        with contextlib.closing(_https(https_port, certificate)) as connection:
            connection.sock = trust.wrap_socket(silent, server_hostname="localhost")
            for _ in range(2):
                connection.request("POST", "/v1/detect", body, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200


def test_kept_connections_are_answered_each_time(server: Server, https_port: int, certificate: Path) -> None:
    # Encrypted, a small request holds no byte of a line end more often than not; one that was looked for never came.
    for _ in range(3):
        with contextlib.closing(_https(https_port, certificate)) as caller:
            for _ in range(12):
                caller.request("GET", "/livez")
                assert caller.getresponse().read()


def test_offer_without_a_line_end_is_answered_at_once(server: Server, https_port: int) -> None:
    # TLS 1.2, one cipher that is not offered here, no extension: 50 bytes (RFC 5246, section 7.4.1.2).
    hello = b"\x03\x03" + b"r" * 32 + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
    offer = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29" + hello
    with socket.create_connection(("localhost", https_port), timeout=20) as caller:
        caller.sendall(offer)
        # Handshake failure; one that waited in vain is closed with a notice of that.
        assert caller.recv(7) == b"\x15\x03\x03\x00\x02\x02\x28"


def test_silent_connections_hold_nothing(server: Server, https_port: int, certificate: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("localhost", https_port), 20))
        with contextlib.closing(_https(https_port, certificate)) as connection:
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200


@pytest.mark.parametrize("path", ["/v1/detect?top_k=1", "/v1/detect", "/v1/models/a%20b%5B?c=%20%5Bd%5D&e=f+g%2Fh"])
def test_plain_http_is_sent_over_with_its_query(server: Server, https_port: int, path: str) -> None:
    with contextlib.closing(http.client.HTTPConnection("localhost", server.port, timeout=20)) as connection:
        connection.request("POST", path, b"x", {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()

    assert answer.status == 308
    assert len(answer.headers["X-Request-Id"]) >= 8
    assert answer.headers["Location"] == f"https://localhost:{https_port}{path}"


def test_health_stays_on_plain_http(server: Server) -> None:
    assert server.ask("/livez").status == 200
    assert server.ask("/readyz").status == 200


def test_old_protocols_are_refused(server: Server, https_port: int) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{https_port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )

    assert done.returncode != 0
    assert b"Cipher is (NONE)" in done.stdout


# Mozilla's "intermediate", as apache/conf/tls.conf says.
OFFERS = {
    "X25519": ("-groups", "X25519"),
    "P-256": ("-groups", "P-256"),
    "P-384": ("-groups", "P-384"),
    "AES-GCM": ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
    "ChaCha20": ("-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"),
    "not P-521": ("-groups", "P-521"),
    "not X448": ("-groups", "X448"),
    "not CBC": ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"),
    "not RSA alone": ("-tls1_2", "-cipher", "AES128-GCM-SHA256"),
    "not DHE": ("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"),
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("offer", OFFERS)
def test_curves_and_ciphers_are_those_of_mozilla(https_port: int, offer: str) -> None:
    command = ["openssl", "s_client", "-connect", f"localhost:{https_port}", *OFFERS[offer]]

    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)

    assert (done.returncode == 0) is not offer.startswith("not "), done.stdout[-500:]


def test_plain_http_at_the_port_for_https_is_told_so(server: Server, https_port: int) -> None:
    connection = http.client.HTTPConnection("localhost", https_port, timeout=20)
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    problem = json.loads(answer.read())

    assert (answer.status, problem["code"]) == (400, "bad_request")
    assert problem["detail"] == "The request came as plain HTTP to a port that takes HTTPS only."
    assert problem["hint"] == "Begin the address with https://."
