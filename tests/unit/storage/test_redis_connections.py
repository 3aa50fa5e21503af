"""Connections to a real Redis over TLS: certificates are read once a process, and compared each time."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.ratelimit import counters
from app.storage import redis_connections
from app.storage.redis_connections import CA_FILE, opened
from tests import redis_servers
from tests.certificates import Authority
from tests.fakes import PATIENCE_SECONDS

CALLERS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def url(authority: Authority) -> Iterator[str]:
    """A Redis whose certificate is for localhost."""
    with redis_servers.encrypted(authority.sign("localhost")) as address:
        yield address


@pytest.fixture(autouse=True)
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the system's certificates are read; nothing was read before."""
    counted: list[int] = []
    real = ssl.create_default_context

    def count(*arguments: Any, **named: Any) -> ssl.SSLContext:
        counted.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(ssl, "create_default_context", count)
    monkeypatch.setattr(redis_connections, "_contexts", {})
    return counted


def connect(url: str) -> Any:
    connection = opened(url, PATIENCE_SECONDS, PATIENCE_SECONDS)
    connection.disconnect()
    return connection


def test_many_connections_read_the_certificates_once(url: str, authority: Authority, reads: list[int]) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(connect, [f"{url}?{CA_FILE}={authority.certificate}"] * CALLERS))

    assert len(reads) == 1


def test_counts_of_many_callers_read_them_once(
    tmp_path: Path, url: str, authority: Authority, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "REDIS_SECONDS", PATIENCE_SECONDS)
    storage = counters.make(tmp_path, f"{url}?{CA_FILE}={authority.certificate}")

    with ThreadPoolExecutor(CALLERS) as pool:
        found = sorted(pool.map(lambda _: storage.count("caller", 60)[0], range(CALLERS)))

    assert found == list(range(1, CALLERS + 1))
    assert storage.check()
    assert len(reads) == 1


def test_certificate_of_another_authority_or_name_is_refused(folder: Path, url: str, authority: Authority) -> None:
    another = Authority(folder, "another").certificate

    with pytest.raises(RedisConnectionError, match="certificate verify failed: unable to get local issuer"):
        connect(f"{url}?{CA_FILE}={another}")
    with pytest.raises(RedisConnectionError, match="certificate verify failed"):
        connect(url)
    with pytest.raises(RedisConnectionError, match=r"certificate is not valid for '127\.0\.0\.1'"):
        connect(f"{url.replace('localhost', '127.0.0.1')}?{CA_FILE}={authority.certificate}")


def test_authority_that_cannot_be_read_is_looked_for_again(tmp_path: Path, url: str, authority: Authority) -> None:
    path = tmp_path / "authority.pem"

    with pytest.raises(RedisConnectionError, match="No such file"):
        connect(f"{url}?{CA_FILE}={path}")
    path.write_bytes(authority.certificate.read_bytes())
    connect(f"{url}?{CA_FILE}={path}")
