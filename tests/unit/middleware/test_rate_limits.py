"""Limits of requests: who is counted as one, what a caller is told, what is never counted."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from limits import parse

from app.auth.tokens import TokenStore
from app.config import ROOT
from app.errors import TooManyRequestsError
from app.ratelimit.counters import MemoryStorage
from app.web.middleware import rate_limits
from tests import fakes
from tests.fakes import FakeEngine


def client(folder: Path, engine: FakeEngine, **settings: Any) -> FlaskClient:
    return fakes.make_app(folder, engine, **settings).test_client()


def statuses(caller: FlaskClient, count: int, **how: Any) -> list[int]:
    return [caller.get("/v1/models", **how).status_code for _ in range(count)]


def address(text: str) -> dict[str, Any]:
    return {"environ_overrides": {"REMOTE_ADDR": text}}


def test_address_gets_as_many_as_are_allowed_and_no_more(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, rate_limit_per_address=("3/minute",))

    first = caller.get("/v1/models")
    assert [first.headers[name] for name in rate_limits.HEADERS] == ["3", "2", "60", "3;w=60"]
    assert statuses(caller, 4) == [200, 200, 429, 429]
    assert statuses(caller, 1, **address("10.0.0.2")) == [200]
    refused = caller.get("/v1/models")
    assert refused.json["code"] == "rate_limited"  # type: ignore[index]
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.content_type == "application/problem+json"


def test_forged_header_changes_nothing(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, rate_limit_per_address=("3/minute",))

    found = [caller.get("/v1/models", headers={"X-Forwarded-For": f"10.0.0.{at}"}).status_code for at in range(5)]

    assert found == [200, 200, 200, 429, 429]


def test_token_is_counted_wherever_it_comes_from(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, authentication="required", rate_limit_per_token=("2/hour",))
    store = TokenStore(app.extensions["settings"].state_dir)
    one, two = ({"X-Api-Token": store.create(name)[1]} for name in ("one", "two"))
    caller = app.test_client()

    assert statuses(caller, 1, headers=one, **address("10.0.0.1")) == [200]
    assert statuses(caller, 2, headers=one, **address("10.0.0.2")) == [200, 429]
    assert statuses(caller, 1, headers=two, **address("10.0.0.2")) == [200]
    # Who shows none is refused for that, and has no limit of a token.
    assert statuses(caller, 3) == [401] * 3


def test_wrong_tokens_are_counted_for_their_address(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, authentication="required", rate_limit_per_address=("2/minute",))

    assert statuses(caller, 3, headers={"X-Api-Token": "x"}) == [401, 401, 429]


def test_tightest_of_several_limits_is_told(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, rate_limit_per_address=("100/hour", "5/minute"))

    assert caller.get("/v1/models").headers["RateLimit-Policy"] == "5;w=60"


def test_health_and_files_are_never_counted(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, rate_limit_per_address=("1/minute",))
    statuses(caller, 2)

    for path in ("/livez", "/readyz", "/status", "/static/favicon.svg", "/v2/health/live"):
        with caller.get(path) as response:
            assert (response.status_code, "RateLimit-Limit" in response.headers) == (200, False), path
    assert caller.options("/v1/models").status_code == 200
    assert caller.get("/nothing").status_code == 429


def test_flood_of_one_whose_window_is_full_does_not_reach_the_storage(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = fakes.make_app(tmp_path, engine, rate_limit_per_address=("2/minute",))
    caller = app.test_client()
    statuses(caller, 3)
    storage = app.extensions["rates"].storage
    monkeypatch.setattr(storage, "count", lambda *_: pytest.fail("it was asked"))

    assert statuses(caller, 3) == [429] * 3


def test_large_limit_is_counted_in_parts_and_exactly_so_many_pass(tmp_path: Path) -> None:
    class Counting(MemoryStorage):
        asked = 0

        def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
            self.asked += 1
            return super().count(key, seconds, amount)

    def passed(rates: rate_limits.Rates, count: int) -> list[int]:
        left = []
        for _ in range(count):
            with suppress(TooManyRequestsError):
                left.append(rates.count("10.0.0.1", "")[1])
        return left

    storage = Counting()
    limit = (parse("5000/minute"),)
    alone = rate_limits.Rates(storage, limit, ())

    # One process: each is told what is left, and all of them pass.
    assert passed(alone, 5010) == list(range(4999, -1, -1))
    assert storage.asked <= 1002
    storage = Counting()
    one, other = (rate_limits.Rates(storage, limit, ()) for _ in range(2))
    taken = len(passed(one, 8)) + len(passed(other, 4990))
    assert taken == 8 + 4990
    # What one process has taken for itself, nobody else has: too few may pass, a thousandth, and never too many.
    assert len(passed(other, 5)) == 0
    assert len(passed(one, 5)) == 2


def test_window_that_ended_ends_what_was_counted_in_advance(tmp_path: Path) -> None:
    now = [1000.0]
    storage = MemoryStorage(lambda: now[0], lambda: now[0])
    rates = rate_limits.Rates(storage, (parse("5000/minute"),), (), lambda: now[0])
    assert [rates.count("10.0.0.1", "")[1] for _ in range(2)] == [4999, 4998]

    now[0] += 61

    assert [rates.count("10.0.0.1", "")[1] for _ in range(2)] == [4999, 4998]


def test_window_that_ended_lets_in_again(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, rate_limit_per_address=("2/minute",))
    caller = app.test_client()
    found = app.extensions["rates"]
    assert statuses(caller, 3) == [200, 200, 429]

    later = found.now() + 61
    found.now = lambda: later
    found.storage._guarded[0][1]._now = found.now

    assert statuses(caller, 3) == [200, 200, 429]


def test_clock_that_is_set_back_refuses_nobody_for_a_day(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, rate_limit_per_address=("2/minute",))
    caller = app.test_client()
    found = app.extensions["rates"]
    assert statuses(caller, 3) == [200, 200, 429]

    earlier = found.now() - 86400
    found.now = lambda: earlier
    found.storage._guarded[0][1]._now = found.now

    assert statuses(caller, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("no:address", "no:address", True),
    ],
)
def test_machine_with_many_addresses_is_counted_as_one(one: str, other: str, is_same: bool) -> None:
    assert (rate_limits.network(one) == rate_limits.network(other)) == is_same


def test_counts_in_ram_do_not_grow_without_end(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "MAX_FULL", 3)
    app = fakes.make_app(tmp_path, engine, rate_limit_per_address=("1/minute",))
    caller = app.test_client()

    for at in range(8):
        assert statuses(caller, 2, **address(f"10.0.0.{at}")) == [200, 429]

    assert len(app.extensions["rates"]._full) == 3


def test_nothing_is_put_in_place_where_nothing_is_limited(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine)

    answer = app.test_client().get("/v1/models")

    assert "rates" not in app.extensions
    assert (answer.status_code, "RateLimit-Policy" in answer.headers) == (200, False)
    assert not list(tmp_path.rglob("limits.sqlite3"))


def test_package_is_read_only_where_something_is_limited(tmp_path: Path) -> None:
    code = "import sys; from app.factory import create_app; print('limits' in sys.modules, 'redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


def test_description_tells_limits_where_they_are(tmp_path: Path, engine: FakeEngine) -> None:
    limited = client(tmp_path, engine, rate_limit_per_address=("9/minute",)).get("/openapi.json").json
    free = client(tmp_path, engine).get("/openapi.json").json

    answers = limited["paths"]["/v1/detect"]["post"]["responses"]  # type: ignore[index]
    assert {"Retry-After", *rate_limits.HEADERS} <= set(answers["429"]["headers"])
    assert "429" not in limited["paths"]["/livez"]["get"]["responses"]  # type: ignore[index]
    assert "429" not in free["paths"]["/v1/detect"]["post"]["responses"]  # type: ignore[index]
