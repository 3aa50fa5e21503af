"""Tokens in a real Redis that machines share: seen by all, ended for all, believed for a while when it is away."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import redis

from app.auth import redis_rows, secret_keys, tokens
from app.auth.redis_rows import RedisRows
from app.auth.tokens import TokenStore, TokenTable
from app.errors import StateUnusableError, TokenError, TokenInvalidError
from tests import redis_servers, servers
from tests.fakes import FakeClock
from tests.redis_servers import RedisServer

GRACE_SECONDS = 100.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_servers.running() as found:
        yield found


@pytest.fixture
def client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


@pytest.fixture
def store(server: RedisServer) -> TokenStore:
    return TokenStore(RedisRows(server.url, "there"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def unchecked() -> list[str]:
    return []


@pytest.fixture
def table(server: RedisServer, clock: FakeClock, unchecked: list[str]) -> TokenTable:
    rows = RedisRows(server.url, "there", grace_seconds=GRACE_SECONDS)
    return TokenTable(rows, clock, note_unchecked=unchecked.append)


def test_token_and_its_end_are_seen_by_every_machine(server: RedisServer, store: TokenStore, clock: FakeClock) -> None:
    machines = [TokenTable(RedisRows(server.url, "there"), clock) for _ in range(2)]
    token, text = store.create("camera-7", ["predict", "admin"], 60)

    found = [each.find(text) for each in machines]
    assert [(each.id, each.name, each.scopes, each.expires) for each in found] == [
        (token.id, "camera-7", {"predict", "admin"}, token.created + 60)
    ] * 2
    store.revoke("camera-7")
    clock.now += tokens.LOOK_SECONDS

    for each in machines:
        with pytest.raises(TokenInvalidError, match="was revoked"):
            each.find(text)


def test_redis_holds_hashes_and_no_secret(client: redis.Redis, store: TokenStore) -> None:
    token, text = store.create("camera-7")

    row = json.loads(client.hget(redis_rows.ROWS, token.id))  # type: ignore[arg-type]
    assert row["hash"] == token.hash.hex()
    assert text.rpartition("_")[2] not in json.dumps(row)


def test_two_operators_do_not_make_one_name_twice(server: RedisServer, store: TokenStore) -> None:
    """The second one's command was half done when the first one's came."""
    other = TokenStore(RedisRows(server.url, "there"))
    read = store.rows._read  # type: ignore[attr-defined]
    between = iter([lambda: other.create("camera-7")])

    def interrupted(pipeline: object) -> object:
        found = read(pipeline)
        for step in between:
            step()
        return found

    store.rows._read = interrupted  # type: ignore[attr-defined]
    with pytest.raises(TokenError, match="There is a valid token of the name 'camera-7'"):
        store.create("camera-7")
    assert len(store.all()) == 1


def test_last_use_and_signed_out_sessions_are_shared(server: RedisServer, store: TokenStore, table: TokenTable) -> None:
    token, text = store.create("camera-7")
    table.find(text)
    assert store.all()[0].last_used is not None

    table.end_session("a session", 60)

    with pytest.raises(TokenInvalidError, match="signed out"):
        TokenTable(RedisRows(server.url, "there")).by_session("a session", token.id, token.created)


def test_internal_tokens_vanish_and_are_not_listed(store: TokenStore) -> None:
    token, _ = store.create("smoke", lifetime_seconds=-1, is_internal=True)
    assert store.all() == []

    store.create("people")

    assert token.id not in {each.id for each in store.rows.all()}


def test_known_tokens_are_believed_for_a_while_when_redis_is_away(
    server: RedisServer,
    store: TokenStore,
    table: TokenTable,
    clock: FakeClock,
    unchecked: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, known = store.create("camera-7")
    _, unknown = store.create("camera-8", is_internal=True)
    assert table.find(known).name == "camera-7"
    table._tokens.pop(unknown.split("_")[1])
    server.process.kill()
    server.process.wait()

    clock.now += GRACE_SECONDS
    for _ in range(3):
        assert table.find(known).name == "camera-7"
    with pytest.raises(StateUnusableError, match="keeps the tokens cannot be used") as caught:
        table.find(unknown)
    assert caught.value.retry_after_seconds == redis_rows.RETRY_AFTER_SECONDS
    clock.now += 1
    with pytest.raises(StateUnusableError):
        table.find(known)

    assert unchecked == ["accepted"] * 3 + ["refused"] * 2
    lines = [row.message for row in caplog.records if row.levelno >= logging.WARNING]
    assert [line.partition(" is not used")[0] for line in lines] == ["the Redis of the tokens at there"]


def test_redis_that_comes_back_is_asked_again(
    server: RedisServer, store: TokenStore, table: TokenTable, clock: FakeClock
) -> None:
    _, text = store.create("camera-7")
    table.find(text)
    copy = store.rows.all()
    server.process.kill()
    server.process.wait()
    clock.now += 1
    table.find(text)

    with redis_servers.running(server.port):
        again = TokenStore(RedisRows(server.url, "there"))
        again.rows.change(lambda _: redis_rows.Change(tuple(copy)))
        again.revoke("camera-7")

        def is_refused() -> bool:
            clock.now += 1
            try:
                table.find(text)
            except TokenInvalidError:
                return True
            return False

        servers.wait_until(is_refused, 20, "the end of the token")


def test_redis_that_was_emptied_refuses_nobody_with_401(
    client: redis.Redis, store: TokenStore, table: TokenTable, clock: FakeClock
) -> None:
    _, text = store.create("camera-7")
    table.find(text)
    client.flushdb()

    clock.now += 1
    assert table.find(text).name == "camera-7"
    clock.now += GRACE_SECONDS
    with pytest.raises(StateUnusableError):
        table.find(text)


def test_redis_without_memory_lets_in_whom_it_knows_and_says_why_it_takes_no_more(
    client: redis.Redis, store: TokenStore, table: TokenTable, clock: FakeClock, unchecked: list[str]
) -> None:
    _, text = store.create("camera-7")
    client.config_set("maxmemory", 1)

    for _ in range(3):
        clock.now += 1
        assert table.find(text).name == "camera-7"
    with pytest.raises(StateUnusableError, match="it has no memory left"):
        store.create("camera-8")

    assert unchecked == []
    assert [each.name for each in store.all()] == ["camera-7"]


def test_instance_with_another_secret_key_is_named(server: RedisServer, client: redis.Redis) -> None:
    assert secret_keys.other(server.url, "one" * 20) == ""
    secret_keys.note_start(server.url, "one" * 20)

    assert secret_keys.other(server.url, "one" * 20) == ""
    assert "which started at 20" in secret_keys.other(server.url, "two" * 20)
    assert b"one" not in client.get(secret_keys.KEY)  # type: ignore[operator]


def test_rotation_of_the_key_is_no_difference_while_each_takes_what_the_other_signs(server: RedisServer) -> None:
    old, new = "old" * 20, "new" * 20

    secret_keys.note_start(server.url, old, new)
    assert secret_keys.other(server.url, old) == ""
    assert secret_keys.other(server.url, new, old) == ""
    # What this one signs, nobody else would take; and what signs the others, it would not.
    assert secret_keys.other(server.url, "third" * 20, old)
    assert secret_keys.other(server.url, new)

    secret_keys.note_start(server.url, old)
    assert secret_keys.other(server.url, new, old)
