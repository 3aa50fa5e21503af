"""Only what is listed is loaded, only as hard as allowed, only on the word that is asked for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.config import SecretStr
from loadtest import guard
from loadtest.guard import Target
from loadtest.statuses import LoadTestError, RefusedError, UsageError
from tests.certificates import Authority

NO_TOKEN = SecretStr("")


@dataclass
class FakeSettings:
    """The settings that the guard reads."""

    env: str = "staging"
    loadtest_host: str = "http://box:8000"
    loadtest_allow: str = "yes"
    loadtest_max_rps: int = 0
    loadtest_token: SecretStr = NO_TOKEN
    loadtest_ca_file: Path | None = None


def one_address(host: str, _port: int) -> frozenset[str]:
    """A resolver that knows two names of one box, and another box."""
    return frozenset(
        {"box": {"10.0.0.7"}, "box.local": {"10.0.0.7"}, "both": {"10.0.0.7", "10.0.0.8"}}.get(host, {"10.0.0.9"})
    )


def test_the_listed_address_is_the_target() -> None:
    assert guard.admit(FakeSettings()).url == "http://box:8000"


@pytest.mark.parametrize("host", ["HTTP://BOX:8000", "http://box.:8000/", "http://box.local:8000"])
def test_another_spelling_of_the_same_box_is_taken_and_the_listed_one_is_used(host: str) -> None:
    assert guard.admit(FakeSettings(), host=host, resolve=one_address).url == "http://box:8000"


@pytest.mark.parametrize(
    "host",
    [
        "https://box:8000",
        "http://box:8001",
        "http://box",
        "http://other:8000",
        "http://both:8000",
        "http://box:8000@other:8000",
        "http://box:8000/v1",
        "http://box:8000/a//b",
        "http://box:8000?x=1",
        "ftp://box:8000",
        "box:8000",
        "http://box:99999",
        "//box:8000",
    ],
)
def test_any_other_address_is_refused(host: str) -> None:
    with pytest.raises(RefusedError):
        guard.admit(FakeSettings(), host=host, resolve=one_address)


def test_no_means_no_though_a_person_agrees() -> None:
    with pytest.raises(RefusedError, match="LOADTEST_ALLOW"):
        guard.admit(FakeSettings(loadtest_allow="no"), confirmed="staging")


def test_a_rate_above_the_bound_is_refused() -> None:
    settings = FakeSettings(loadtest_max_rps=100)

    assert guard.admit(settings, highest_rps=100)
    with pytest.raises(RefusedError, match=r"100\.5"):
        guard.admit(settings, highest_rps=100.5)


@pytest.mark.parametrize(("confirmed", "typed"), [("", None), ("staging", None), ("", "yes"), ("yes", None)])
def test_prod_is_refused_without_its_name_from_a_person(confirmed: str, typed: str | None) -> None:
    settings = FakeSettings(env="prod", loadtest_allow="confirm")
    ask = None if typed is None else lambda _question: typed

    with pytest.raises(RefusedError):
        guard.admit(settings, confirmed=confirmed, ask=ask)


@pytest.mark.parametrize(("confirmed", "typed"), [("prod", None), ("", "prod\n")])
def test_prod_is_loaded_once_a_person_has_said_its_name(confirmed: str, typed: str | None) -> None:
    settings = FakeSettings(env="prod", loadtest_allow="confirm")
    ask = None if typed is None else lambda _question: typed

    assert guard.admit(settings, confirmed=confirmed, ask=ask).host == "box"


@pytest.mark.parametrize("body", [b'{"environment": "prod"}', b"{}", b"<html>", b"[]", b'{"environment": null}'])
def test_a_target_that_is_not_the_environment_asked_for_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        guard.check_environment(Target("http", "box", 8000), "staging", ask=lambda *_: body)


def test_a_target_that_is_the_environment_asked_for_is_taken() -> None:
    guard.check_environment(Target("http", "box", 8000), "staging", ask=lambda *_: b'{"environment": "staging"}')


@pytest.mark.parametrize("path", ["http://other/status", "//other/status", "status"])
def test_an_absolute_address_is_never_fetched(path: str) -> None:
    with pytest.raises(RefusedError):
        guard.fetch(Target("http", "127.0.0.1", 1), path)


def test_token_of_the_settings_is_shown_to_the_target_and_not_printed() -> None:
    target = guard.admit(FakeSettings(loadtest_token=SecretStr("cask_1_2")))

    assert target.headers == {"X-Api-Token": "cask_1_2"}
    assert "cask_1_2" not in f"{target} {target!r} {target.url}"
    assert guard.admit(FakeSettings()).headers == {}


def test_a_path_prefix_is_part_of_the_target() -> None:
    target = guard.admit(FakeSettings(loadtest_host="https://box/cask/"), resolve=one_address)

    assert (target.url, target.prefix) == ("https://box:443/cask", "/cask")
    with pytest.raises(RefusedError):
        guard.admit(FakeSettings(loadtest_host="https://box/cask"), host="https://box/other", resolve=one_address)


@contextlib.contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Answers what path was asked for, over TLS of a private authority, until the block ends."""
    pair = (authority := Authority(folder)).sign("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as encrypted:
                        path = encrypted.recv(65536).split()[1]
                        encrypted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}", authority.certificate
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_a_certificate_that_nobody_vouches_for_is_named_and_can_be_trusted(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (url, certificate):
        with pytest.raises(LoadTestError, match=r"certificate of .* could not be verified.*LOADTEST_CA_FILE, or --ca"):
            guard.fetch(guard.target_of(url), "/status")

        trusting = FakeSettings(loadtest_host=f"{url}/cask", loadtest_ca_file=certificate)
        assert guard.fetch(guard.admit(trusting), "/status") == b"/cask/status"


@contextlib.contextmanager
def plain_server(said: bytes) -> Iterator[str]:
    """Says the same to everybody and closes, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


MOVED = b"HTTP/1.1 301 Moved\r\nLocation: https://box.example/status\r\nContent-Length: 0\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("scheme", "said", "expected"),
    [
        ("http", MOVED, r"301 and points to https://box\.example/status.*LOADTEST_HOST"),
        ("http", b"", r"closed connection.*Is it an https:// address\?"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x0a", r"answers no HTTP.*Is it an https:// address\?"),
        ("https", BAD, r"does not speak TLS.*Is it an http:// address\?"),
        ("https", b"", r"does not speak TLS.*Is it an http:// address\?"),
    ],
)
def test_another_scheme_than_the_targets_is_named(scheme: str, said: bytes, expected: str) -> None:
    with plain_server(said) as place, pytest.raises(LoadTestError, match=expected):
        guard.fetch(guard.target_of(f"{scheme}://{place}"), "/status")


def test_an_authority_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")

    with pytest.raises(UsageError, match=r"ca\.pem holds no certificates"):
        guard.context_of(str(tmp_path / "ca.pem"))
