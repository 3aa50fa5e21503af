"""A model with code is loaded with its examples: right, wrong and mixed up by what it answered at rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.outcomes import Outcome
from loadtest.scenarios import Caller, Registry, build
from loadtest.statuses import UsageError

GOLDEN = [
    {"results": [[{"label": "billing", "score": 0.9}]], "digest": "d"},
    {"results": [[{"label": "parcel", "score": 0.8}]], "digest": "d"},
]


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "read-text" / "2"
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "01.json").write_text('{"text": "a"}')
    (folder / "examples" / "01.expected.json").write_text("{}")
    (folder / "examples" / "02.jpg").write_bytes(b"\xff\xd8")
    return folder


def outcome(version: Path, results: Any, digest: str = "d", request_id: str = "") -> Outcome:
    """How an answer to the first example is judged."""
    registry = Registry(models=(version,), tasks=())
    found = [registry.find(name) for name in registry.mix("read-text:1")]
    caller = Caller(found, [1.0], {"read-text": GOLDEN}, seed=3)
    turn = next(turn for turn in (caller.next() for _ in range(50)) if turn.expect == 0)

    def exchange(request: Any) -> tuple[int, dict[str, str], bytes]:
        assert (request.path, request.body) == ("/v1/models/read-text/predict", b'{"text": "a"}')
        assert request.headers["Content-Type"] == "application/json"
        told = {"model": {"digest": digest}, "results": results, "request_id": request_id or turn.id}
        return 200, {}, json.dumps(told).encode()

    return turn.perform(exchange)[0]


@pytest.mark.parametrize(
    ("results", "given", "expected"),
    [
        ([[{"label": "billing", "score": 0.905}]], {}, Outcome.RIGHT),
        ([[{"label": "billing", "score": 0.8}]], {}, Outcome.WRONG),
        ([[{"label": "parcel", "score": 0.8}]], {}, Outcome.MIXED_UP),
        ([[{"label": "billing", "score": 0.9}]], {"digest": "e"}, Outcome.WRONG),
        ([[{"label": "billing", "score": 0.9}]], {"request_id": "load-9"}, Outcome.MIXED_UP),
        ([], {}, Outcome.WRONG),
        (None, {}, Outcome.WRONG),
    ],
)
def test_an_answer_is_compared_with_that_at_rest(
    version: Path, results: Any, given: dict[str, str], expected: Outcome
) -> None:
    assert outcome(version, results, **given) == expected


def test_workers_find_it_by_its_folder_and_a_model_without_examples_says_so(version: Path, tmp_path: Path) -> None:
    (found,) = build({"read-text": 1.0}, {"read-text": str(version)})
    (tmp_path / "empty" / "1" / "examples").mkdir(parents=True)

    assert found.name == "read-text"
    with pytest.raises(UsageError, match="shows nothing"):
        Registry(models=(tmp_path / "empty" / "1",), tasks=()).mix("empty")
