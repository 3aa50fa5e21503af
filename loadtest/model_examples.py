"""The scenario of a model with code: what lies in its examples/, answered as the target answered it at rest."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.answer_distance import SEPARATION, of_values
from loadtest.scenario import Scenario
from loadtest.statuses import UsageError
from loadtest.turns import Answer, MixedUp, Turn, Wrong

if TYPE_CHECKING:
    from loadtest.scenario import Ask

FOLDER = "examples"
EXPECTED = ".expected.json"


def requests_of(folder: Path) -> list[dict[str, Any]]:
    """What the files of a version's examples/ ask: JSON bodies, and pictures or files as they are."""
    name = folder.parent.name
    return [
        {
            "path": f"/v1/models/{name}/predict",
            "data": path.read_bytes(),
            "headers": {"Content-Type": mimetypes.guess_type(path.name)[0] or "application/octet-stream"},
        }
        for path in _files(folder)
    ]


def _files(folder: Path) -> Iterator[Path]:
    place = folder / FOLDER
    found = sorted(place.iterdir()) if place.is_dir() else []
    return (path for path in found if path.is_file() and not path.name.endswith(EXPECTED))


def scenario(folder: Path) -> Scenario:
    """The scenario of the version in this folder. Raises UsageError where it shows no example."""
    asked = requests_of(folder)
    if not asked:
        raise UsageError(f"{folder / FOLDER} shows nothing that could be asked; expected such as 01.json.")
    parts = (partial(_request, asked), _check, partial(_setup, asked))
    return Scenario(folder.parent.name, *parts, group=folder.parent.name, source=str(folder.resolve()))


def _setup(asked: list[dict[str, Any]], ask: Ask) -> list[dict[str, Any]]:
    return [_told(ask(each)) for each in asked]


def _told(answer: Answer) -> dict[str, Any]:
    table = answer.json()
    return {"results": table["results"], "digest": table["model"]["digest"]}


def _request(asked: list[dict[str, Any]], turn: Turn) -> dict[str, Any]:
    turn.expect = turn.chance.randrange(len(asked))
    return asked[turn.expect]


def _check(answer: Answer) -> None:
    """Within the tolerances of the others; an answer that is well apart and another's is mixed up."""
    golden, told = answer.turn.known, _told(answer)
    if answer.json().get("request_id") != answer.turn.id:
        raise MixedUp(f"the answer to request {answer.json().get('request_id')}, sent to {answer.turn.id}")
    own = of_values(told, golden[answer.turn.expect])
    if own <= 1:
        return
    if own >= SEPARATION and any(of_values(told, each) <= 1 for each in golden):
        raise MixedUp(f"the answer to another example, sent to the caller of number {answer.turn.expect + 1}")
    raise Wrong(f"{told['results']!r:.80}; expected {golden[answer.turn.expect]['results']!r:.80}")
