"""One model under test: asked as a caller asks, or its process alone. A failure says where in the model, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import CaskError
from app.model_code import last_words
from app.model_making.stand import Reply, Stand, Values

JSON = "application/json"
BATCH = 8
LAST_WORDS_SECONDS = 3.0
SHOWN = 160
HINT_OF_ENDING = "A crash or a hang costs all callers of that batch. What it wrote is in the log."


class CheckError(Exception):
    """A check has failed. ``hint``: what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Trial:
    """One model on the stand, and what it has answered so far.

    ``expected``: how its examples compare with what is written down, in words. ``answered``: item, options and answer.
    """

    stand: Stand
    examples: Sequence[Path]
    expected: str = ""
    answered: list[tuple[Values, dict[str, Any], Any]] = field(default_factory=list)

    def ask(self, body: bytes, content_type: str = JSON) -> Reply:
        """One request; what was answered is kept. Raises CheckError where the model failed."""
        reply = self.stand.ask(body, content_type)
        if reply.status >= 500:
            raise CheckError(*_failure(self.stand, reply, body if content_type == JSON else b"<picture>"))
        if reply.status == 200 and len(reply.items) == 1:
            self.answered.append((reply.items[0], reply.options, reply.document["results"][0]))
        return reply

    def alike(self, most: int = BATCH) -> tuple[list[Values], dict[str, Any], list[Any]]:
        """Items that were answered with equal options, and their answers: as many different ones as there are."""
        groups: dict[str, list[tuple[Values, dict[str, Any], Any]]] = {}
        for each in self.answered:
            groups.setdefault(json.dumps(each[1], sort_keys=True), []).append(each)
        if not groups:
            raise CheckError(
                "no request of its types or examples is answered", "Add examples/01.json: the body of a request."
            )
        rows = max(groups.values(), key=len)
        # The first ones are the examples; repeated where there are too few.
        chosen = list({repr(row[0]): row for row in rows}.values())
        chosen = (chosen * most)[:most] if len(chosen) < most else chosen[:most]
        return [row[0] for row in chosen], chosen[0][1], [row[2] for row in chosen]

    def compute(self, items: Sequence[Values], options: dict[str, Any]) -> list[Any]:
        """The answers to one batch. Raises CheckError where predict failed as a whole, or for one of them."""
        try:
            rows = self.stand.compute(items, options)
        except CaskError as error:
            raise CheckError(*_ending(self.stand, str(error.message))) from None
        for row in rows:
            if why := row.get("alone") or ("failed" in row and row.get("why")):
                raise CheckError(
                    f"with {len(items)} items: {self.stand.shown(str(why))}",
                    "Asked one by one, as callers would be then, they are slower.",
                )
        return [answer_of(row) for row in rows]

    @property
    def tolerance(self) -> float:
        """See ``CodeSpec``."""
        code = self.stand.manifest.code
        return code.tolerance if code else 0.0


def answer_of(row: dict[str, Any]) -> Any:
    """What one item was answered, as JSON values."""
    return {"refused": row["refused"]} if "refused" in row else json.loads(row["answer"] or "null")


def _failure(stand: Stand, reply: Reply, body: bytes) -> tuple[str, str]:
    shown = short(body)
    failed = next((row for row in reply.rows if "failed" in row), None)
    if failed is None:
        message, hint = _ending(stand, str(reply.document.get("detail")))
        return f"{message}; asked {shown}", hint
    hint = 'Answer Refused("why") for such an item, or narrow the type: Text(min_length=1), Range(0, 10).'
    return f"{stand.shown(str(failed.get('why')))}; asked {shown}", hint


def _ending(stand: Stand, said: str) -> tuple[str, str]:
    """A process that is gone, with the line of the model that it was at."""
    lines = stand.last_words(LAST_WORDS_SECONDS)
    place = last_words.place(lines, stand.manifest.directory)
    return f"{place}{said.rstrip('.')}{last_words.crash(lines)}", HINT_OF_ENDING


def short(body: Any) -> str:
    """A body for people."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
