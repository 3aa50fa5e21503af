"""A service on an IPv6 address is asked by that address in brackets, and by IPv4 where it listens on all."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import ssl
from pathlib import Path

import pytest

from tests import servers
from tests.certificates import Authority


def has_ipv6() -> bool:
    """Whether loopback has an IPv6 address here."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback here")


def ask(server: servers.Server, address: str, host: str) -> servers.Answer:
    """/v1/models, asked at one address of the service by one name; ``{port}`` in it is the service's."""
    there = dataclasses.replace(server, url=f"http://{address}:{server.port}")
    return there.ask("/v1/models", headers={"Host": host.format(port=server.port)})


def test_a_service_on_every_address_answers_both_families() -> None:
    with servers.running("test", wait=False, LISTEN_HOST="[::]") as server:
        servers.wait_until(server.is_ready, servers.START_SECONDS, "/readyz on 127.0.0.1")

        assert ask(server, "127.0.0.1", "127.0.0.1:{port}").status == 200
        for host in ("[::1]:{port}", "[::1]", "[0:0:0:0:0:0:0:1]:{port}", "localhost:{port}"):
            assert ask(server, "[::1]", host).status == 200, host
        for host in ("[::2]:{port}", "[::1", "[::1]x", "::1"):
            assert ask(server, "[::1]", host).status == 400, host


def test_https_listens_on_ipv6_too(open_folder: Path, authority: Authority) -> None:
    pair, port = authority.sign("localhost"), servers.free_port()
    settings = {"HTTPS_PORT": str(port), "TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}

    with servers.running("test", wait=False, LISTEN_HOST="::1", SERVER_NAME="::1", **settings) as server:
        server.url = f"http://[::1]:{server.port}"
        servers.wait_until(server.is_ready, servers.START_SECONDS, "/readyz on [::1]")
        plain_http = http.client.HTTPConnection("::1", server.port, timeout=10)
        plain_http.request("GET", "/v1/models?a=%20b")
        location = plain_http.getresponse().headers["Location"]
        plain_http.close()
        context = ssl.create_default_context(cafile=str(authority.certificate))
        with (
            socket.create_connection(("::1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            version = secure.version()

    assert version in ("TLSv1.2", "TLSv1.3")
    assert location == f"https://[::1]:{port}/v1/models?a=%20b"
