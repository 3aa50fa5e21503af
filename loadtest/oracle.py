"""Is the answer right? Compares with what the target said at rest; tells wrong from mixed up. No sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.answer_distance import OF_ROWS, alike, apart
from loadtest.outcomes import Outcome

KNOWN_MOST = 4096
# An answer can belong to another request that is under way, or was one of so many before.
RECENT_REQUESTS = 512

Golden = list[dict[str, Any]]


@dataclass
class Oracle:
    """Golden answers by task and picture, and the digest of the model that gave them."""

    golden: Mapping[str, Mapping[int, dict[str, Any]]]  # task → picture → one entry of `results`
    digests: Mapping[str, str]
    _known: dict[tuple[str, str, tuple[int, ...]], set[bytes]] = field(default_factory=dict)
    _sent: dict[tuple[str, int], int] = field(default_factory=dict)
    _count: int = 0

    def sent(self, task: str, pictures: tuple[int, ...]) -> None:
        """Remember that these are under way; where nobody says so, any picture may be."""
        self._count += 1
        for picture in pictures:
            self._sent[task, picture] = self._count

    def judge(
        self, task: str, pictures: tuple[int, ...], request_id: str, body: bytes, kind: str = "predict"
    ) -> tuple[Outcome, str]:
        """How the body answers this request, and in words what is wrong with it (empty when right).

        An answer with another request's id, or that fits another picture of the run and not its own, is mixed up.
        ``kind``: of the scenario; it says where in the body things stand. A job's ``request_id`` is the job's id.
        """
        # All but the id is the same each time, so most answers are known and cost a look-up.
        own = b'"%s"' % request_id.encode()
        head = body.replace(own, b"") if own in body else b""
        known = self._known.setdefault((kind, task, pictures), set())
        if head and head in known:
            return Outcome.RIGHT, ""
        outcome, words = self._judge_slowly(task, pictures, request_id, body, kind)
        if outcome == Outcome.RIGHT and head and len(known) < KNOWN_MOST:
            known.add(head)
        return outcome, words

    def _judge_slowly(
        self, task: str, pictures: tuple[int, ...], request_id: str, body: bytes, kind: str
    ) -> tuple[Outcome, str]:
        try:
            results, told_id, digest = READERS[kind](json.loads(body))
        except (ValueError, KeyError, TypeError, IndexError):
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
        """Mixed up only where it is far from its own answer and is the one to another picture that was under way."""
        own = self.golden[task][picture]
        if apart(result, own):
            for other, golden in self.golden[task].items():
                if other != picture and self._was_under_way(task, other) and alike(result, golden):
                    return Outcome.MIXED_UP, f"the answer to picture {other}, sent to the caller of picture {picture}"
        return Outcome.WRONG, f"{_short(result)}; expected {_short(own)}"

    def _was_under_way(self, task: str, picture: int) -> bool:
        if not self._count:
            return True
        return self._count - self._sent.get((task, picture), -RECENT_REQUESTS) < RECENT_REQUESTS


# ── Where things stand in a body: results as /v1 has them, whose answer it is, and which model's ─────────────────────

Read = tuple[Golden, str, str]


def _predicted(answer: dict[str, Any]) -> Read:
    return answer["results"], answer["request_id"], answer["model"]["digest"]


def _job(answer: dict[str, Any]) -> Read:
    """The results of a job, by number; of a job in which an image failed there are fewer."""
    rows = sorted(answer["results"], key=lambda row: row["number"])
    right = [row for row in rows if "error" not in row]
    return right, answer["id"], right[0]["model"]["digest"]


def _inferred(answer: dict[str, Any]) -> Read:
    """Tensors back into results: image × rank, those of detections cut to their counts."""
    tensors = {each["name"]: each for each in answer["outputs"]}
    images, ranks = tensors["scores"]["shape"]
    counts = tensors["counts"]["data"] if "counts" in tensors else [ranks] * images
    return [_image(tensors, number, ranks, counts[number]) for number in range(images)], answer["id"], _digest(answer)


def _digest(answer: dict[str, Any]) -> str:
    return str(answer["parameters"]["digest"])


def _image(tensors: Mapping[str, Any], number: int, ranks: int, count: int) -> dict[str, Any]:
    places = range(number * ranks, number * ranks + count)
    labels, scores = tensors["labels"]["data"], tensors["scores"]["data"]
    rows = [{"label": labels[place], "score": scores[place]} for place in places]
    width, height = tensors["sizes"]["data"][2 * number : 2 * number + 2]
    if "boxes" not in tensors:
        return {"width": width, "height": height, "predictions": rows}
    boxes = tensors["boxes"]["data"]
    for place, row in zip(places, rows, strict=True):
        row["box"] = dict(zip(BOX_SIDES, boxes[4 * place : 4 * place + 4], strict=True))
    return {"width": width, "height": height, "detections": rows}


BOX_SIDES = ("x_min", "y_min", "x_max", "y_max")
READERS: Mapping[str, Callable[[dict[str, Any]], Read]] = {"predict": _predicted, "infer": _inferred, "job": _job}


def _short(result: Mapping[str, Any]) -> str:
    rows: Sequence[Mapping[str, Any]] = next((result[name] for name in OF_ROWS if result.get(name)), [])
    told = ", ".join(f"{each['label']} {each.get('score', each.get('area', 0)):.2f}" for each in rows[:3])
    return told or ("nothing" if OF_ROWS.keys() & result.keys() else f"{result!r:.80}")
