"""Kept answers in a real Redis: shared, with an age, and what a request meets when it is stopped or hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from app.cache.remote import BORROW_SECONDS, CONNECTIONS, PREFIX, TIMEOUT_SECONDS, RemoteStore
from tests import redis_servers, servers
from tests.redis_servers import RedisServer


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """One for each test, which may harm it."""
    with redis_servers.running() as server:
        yield server


@pytest.fixture
def remote(redis: RedisServer) -> RemoteStore:
    """Connected."""
    store = RemoteStore(redis.url, 60)
    store.probe()
    return store


def test_what_one_keeps_another_finds(remote: RemoteStore, redis: RedisServer) -> None:
    remote.set_many({"a": '["text"]', "b": "2"})
    other = RemoteStore(redis.url, 60)
    other.probe()

    assert other.get_many("b", "c", "a") == [b"2", None, b'["text"]']


def test_each_answer_has_an_age(remote: RemoteStore) -> None:
    remote.set_many({"a": "1"}, timeout=7)
    remote.set_many({"b": "2"})

    assert [remote._ask([("TTL", PREFIX + key)])[0] for key in "ab"] == [7, 60]


def test_request_never_connects(redis: RedisServer) -> None:
    with pytest.raises(ConnectionError, match="no connection is free"):
        RemoteStore(redis.url, 60).get_many("a")


def test_connections_are_given_back_and_no_more_are_made(remote: RemoteStore) -> None:
    for _ in range(5 * CONNECTIONS):
        remote.get_many("a")
    clients = remote._ask([("CLIENT", "LIST")])[0].decode().splitlines()

    assert len(clients) == remote._idle.qsize() == CONNECTIONS


def test_hung_one_costs_a_tenth_of_a_second_and_is_found_again(remote: RemoteStore, redis: RedisServer) -> None:
    remote.set_many({"a": "1"})
    servers.suspend(redis.process.pid)
    try:
        for _ in range(CONNECTIONS + 1):
            began = time.monotonic()
            with pytest.raises(Exception, match=r"Timeout reading|no connection is free"):
                remote.get_many("a")
            assert time.monotonic() - began >= min(TIMEOUT_SECONDS, BORROW_SECONDS) * 0.9
        with pytest.raises(Exception, match="Timeout"):
            remote.probe()
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    remote.probe()

    # An answer that came too late is no answer to the next question.
    assert remote.get_many("a")[0] == b"1"


def test_stopped_one_is_an_error_and_a_new_one_is_found(redis: RedisServer) -> None:
    with redis_servers.running() as first:
        remote = RemoteStore(first.url, 60)
        remote.probe()
    with pytest.raises(Exception, match=r"closed|reset|Broken|Error"):
        remote.get_many("a")
    with pytest.raises(Exception, match="refused"):
        remote.probe()
    with redis_servers.running(first.port):
        remote.probe()

        assert remote.get_many("a")[0] is None
