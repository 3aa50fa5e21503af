"""Kept answers of models with code: only where the model says so, by its items and options."""

from __future__ import annotations

import json
from typing import Any

from tests.code_examples import FACTS
from tests.servers import Answer, Server


def ask(server: Server, name: str, document: Any, **headers: str) -> Answer:
    headers = {"Content-Type": "application/json", **headers}
    return server.ask(f"/v1/models/{name}/predict", json.dumps(document).encode(), headers)


def fact(name: str, **changed: Any) -> dict[str, Any]:
    return {**FACTS, "part": {**FACTS["part"], "name": name}, **changed}


def lookups(server: Server, result: str) -> float:
    name = f'cask_cache_lookups_total{{result="{result}"}}'
    lines = server.ask("/metrics").body.decode().splitlines()
    return float(next((line.split()[-1] for line in lines if line.startswith(name)), 0))


def test_model_that_says_so_is_not_asked_twice(coded: Server) -> None:
    hits = lookups(coded, "hit")

    first, second = ask(coded, "kinds", fact("twice")), ask(coded, "kinds", fact("twice"))

    assert (first.status, first.headers["X-Cache"], second.headers["X-Cache"]) == (200, "miss", "hit")
    assert second.json["results"] == first.json["results"]
    assert second.json["model"] == first.json["model"]
    assert "Age" in second.headers
    assert "predict;dur=" not in second.headers["Server-Timing"]
    assert lookups(coded, "hit") == hits + 1


def test_other_items_options_and_bytes_are_computed(coded: Server) -> None:
    ask(coded, "kinds", fact("other"))

    changed = [{"scale": 2}, {"file": "QUJE"}, {"limit": 1}, {"number": 0.25}, {"matrix": [[0, 0]]}]
    sources = [ask(coded, "kinds", fact("other", **each)).headers["X-Cache"] for each in changed]
    as_default = ask(coded, "kinds", fact("other", scale=1.0))

    assert sources == ["miss"] * len(changed)
    assert as_default.headers["X-Cache"] == "hit"


def test_several_items_are_looked_up_one_by_one_and_keep_their_order(coded: Server) -> None:
    ask(coded, "kinds", fact("second"))
    items = [{**fact(name), "limit": number} for number, name in enumerate(("first", "second", "first"))]
    items[1].pop("limit")

    answer = ask(coded, "kinds", {"items": items})
    again = ask(coded, "kinds", {"items": items})
    refused = ask(coded, "kinds", {"items": [*items, fact("refused")]})

    assert [answer.headers["X-Cache"], again.headers["X-Cache"]] == ["partial", "hit"]
    assert [(row["name"], row["total"]) for row in answer.json["results"]] == [
        ("first", 3),
        ("second", 3),
        ("first", 5),
    ]
    assert again.json["results"] == answer.json["results"]
    assert (refused.status, refused.json["detail"]) == (422, "items[3]: that name is refused")


def test_caller_may_want_a_fresh_answer(coded: Server) -> None:
    sources = [
        ask(coded, "kinds", fact("fresh"), **headers).headers["X-Cache"]
        for headers in ({}, {"Cache-Control": "no-cache"}, {"Cache-Control": "no-store"}, {})
    ]

    assert sources == ["miss", "bypass", "bypass", "hit"]


def test_model_that_says_nothing_is_asked_each_time(coded: Server) -> None:
    answers = [ask(coded, "tickets", {"text": "My parcel is late"}) for _ in range(2)]

    assert ["X-Cache" in answer.headers for answer in answers] == [False, False]


def test_refused_and_failed_items_are_asked_again(coded: Server) -> None:
    for name, status in (("refused", 422), ("fault", 500)):
        answers = [ask(coded, "kinds", fact(name)) for _ in range(2)]

        assert [answer.status for answer in answers] == [status] * 2
