"""Is the answer right? Compares with what the target said at rest; tells wrong from mixed up. No sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.rows import Outcome

# Batches of another size, or another thread, round a little differently.
SCORE_TOLERANCE = 0.02
BOX_TOLERANCE_PX = 4.0
KNOWN_MOST = 4096
REQUEST_ID_KEY = b',"request_id":"'

Golden = list[dict[str, Any]]


@dataclass
class Oracle:
    """Golden answers by task and picture, and the digest of the model that gave them."""

    golden: Mapping[str, Mapping[int, dict[str, Any]]]  # task → picture → one entry of `results`
    digests: Mapping[str, str]
    _known: dict[tuple[str, tuple[int, ...]], set[bytes]] = field(default_factory=dict)

    def judge(self, task: str, pictures: tuple[int, ...], request_id: str, body: bytes) -> tuple[Outcome, str]:
        """How the body answers this request, and in words what is wrong with it (empty when right).

        An answer with another request's id, or that fits another picture of the run and not its own, is mixed up.
        """
        head, found, tail = body.rpartition(REQUEST_ID_KEY)
        known = self._known.setdefault((task, pictures), set())
        if found and head in known and tail.startswith(request_id.encode() + b'"'):
            return Outcome.RIGHT, ""
        outcome, words = self._judge_slowly(task, pictures, request_id, body)
        if outcome == Outcome.RIGHT and found and len(known) < KNOWN_MOST:
            known.add(head)
        return outcome, words

    def _judge_slowly(self, task: str, pictures: tuple[int, ...], request_id: str, body: bytes) -> tuple[Outcome, str]:
        try:
            answer = json.loads(body)
            results, told_id, digest = answer["results"], answer["request_id"], answer["model"]["digest"]
        except (ValueError, KeyError, TypeError):
            return Outcome.FAILED, f"no answer of ours: {body[:80].decode(errors='replace')}"
        if told_id != request_id:
            return Outcome.MIXED_UP, f"the answer to request {told_id}, sent to {request_id}"
        if digest != self.digests[task]:
            return Outcome.WRONG, f"model {digest[:19]} answered, expected {self.digests[task][:19]}"
        if len(results) != len(pictures):
            return Outcome.WRONG, f"{len(results)} results for {len(pictures)} images"
        for picture, result in zip(pictures, results, strict=True):
            if not alike(result, self.golden[task][picture]):
                return self._blame(task, picture, result)
        return Outcome.RIGHT, ""

    def _blame(self, task: str, picture: int, result: dict[str, Any]) -> tuple[Outcome, str]:
        for other, golden in self.golden[task].items():
            if other != picture and alike(result, golden):
                return Outcome.MIXED_UP, f"the answer to picture {other}, sent to the caller of picture {picture}"
        return Outcome.WRONG, f"{_short(result)}; expected {_short(self.golden[task][picture])}"


def alike(result: Mapping[str, Any], golden: Mapping[str, Any]) -> bool:
    """Whether two entries of ``results`` say the same, within the tolerances and whatever the order of equals."""
    try:
        if (result["width"], result["height"]) != (golden["width"], golden["height"]):
            return False
        if "predictions" in golden:
            return _same_predictions(result["predictions"], golden["predictions"])
        return _same_detections(result["detections"], golden["detections"])
    except (KeyError, TypeError):
        return False


def _same_predictions(found: Golden, expected: Golden) -> bool:
    scores = {each["label"]: each["score"] for each in found}
    return len(found) == len(expected) and all(
        abs(scores.get(each["label"], -1.0) - each["score"]) <= SCORE_TOLERANCE for each in expected
    )


def _same_detections(found: Golden, expected: Golden) -> bool:
    if len(found) != len(expected):
        return False
    left = list(found)
    for each in expected:
        match = next((other for other in left if _same_detection(other, each)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_detection(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return (
        found["label"] == expected["label"]
        and abs(found["score"] - expected["score"]) <= SCORE_TOLERANCE
        and all(abs(found["box"][side] - value) <= BOX_TOLERANCE_PX for side, value in expected["box"].items())
    )


def _short(result: Mapping[str, Any]) -> str:
    rows: Sequence[Mapping[str, Any]] = result.get("predictions") or result.get("detections") or []
    return ", ".join(f"{each['label']} {each['score']:.2f}" for each in rows[:3]) or "nothing"
