"""Ask the target at rest: what is right, which models answer, what the page consists of. Before the load begins."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest import guard, scenarios
from loadtest.answer_distance import distinct
from loadtest.guard import Target
from loadtest.oracle import Oracle
from loadtest.pictures import Picture, meant_for
from loadtest.statuses import LoadTestError

FILE_NAME = "reference.json"
# A busy target may refuse a question at rest; more than this and it is not at rest.
ATTEMPTS = 5
REST_SECONDS = 60.0
REST_PERIOD_SECONDS = 0.2


@dataclass(frozen=True)
class Reference:
    """Golden answers by task and picture number, digests by task, and the page's assets with their checksums.

    ``golden`` holds the pictures that are sent: those whose answers can be told apart. ``left_out``: the others' names.
    """

    golden: dict[str, dict[int, dict[str, Any]]]
    digests: dict[str, str]
    models: list[dict[str, Any]]
    assets: dict[str, int]
    surprises: list[str]
    left_out: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[str, str]:
        """Task → the name of the model that answers it, as far as /v1/models tells."""
        by_digest = {str(model.get("digest")): str(model.get("name")) for model in self.models}
        return {task: by_digest[digest] for task, digest in self.digests.items() if digest in by_digest}

    def oracle(self) -> Oracle:
        """What tells right answers from wrong ones during the run."""
        return Oracle(self.golden, self.digests)

    def write(self, folder: Path) -> None:
        """Leave it where the workers find it."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self)))


def read(folder: Path) -> Reference:
    """What :meth:`Reference.write` left."""
    table = json.loads((folder / FILE_NAME).read_text())
    golden = {task: {int(number): entry for number, entry in by.items()} for task, by in table.pop("golden").items()}
    return Reference(golden=golden, **table)


def take(target: Target, mix: Mapping[str, float], pictures: Sequence[Picture]) -> Reference:
    """Send each picture once, alone. Raises LoadTestError when the target does not answer as this service does."""
    golden: dict[str, dict[int, dict[str, Any]]] = {}
    digests: dict[str, str] = {}
    for task in scenarios.tasks_of(mix):
        golden[task] = {}
        for number in meant_for(task, pictures):
            golden[task][number], digests[task] = _ask(target, task, pictures[number])
    models = _models(target)
    _check_named(mix, digests, models)
    assets: dict[str, int] = {}
    if "page" in mix:
        paths = ["/", *scenarios.assets_of(guard.fetch(target, "/"), target.prefix)]
        assets = {path: zlib.crc32(guard.fetch(target, path)) for path in paths}
    surprises = _surprises(golden, digests, models, pictures)
    sent = {task: {number: by[number] for number in distinct(by)} for task, by in golden.items()}
    left_out = [pictures[number].name for task, by in golden.items() for number in by if number not in sent[task]]
    return Reference(sent, digests, models, assets, surprises, left_out)


def _check_named(mix: Mapping[str, float], digests: Mapping[str, str], models: Sequence[Mapping[str, Any]]) -> None:
    named = {model.get("digest") for model in models}
    for name in mix:
        scenario = scenarios.SCENARIOS[name]
        if scenario.kind == "infer" and digests[scenario.task] not in named:
            raise LoadTestError(
                f"{name} needs the model's name, and /v1/models has none with {digests[scenario.task]}."
            )


def wait_until_at_rest(target: Target) -> None:
    """Return when nothing waits in the engine any more, so that one run's backlog is not the next one's latency."""
    end = time.monotonic() + REST_SECONDS
    while time.monotonic() < end:
        try:
            engine = json.loads(guard.fetch(target, "/status")).get("engine", {})
        except (LoadTestError, ValueError):
            engine = {"waiting": 1}
        if not engine.get("waiting") and not engine.get("busy_workers"):
            return
        time.sleep(REST_PERIOD_SECONDS)
    raise LoadTestError(f"{target.url} does not come to rest within {REST_SECONDS:g} s; somebody else loads it.")


def _ask(target: Target, task: str, picture: Picture) -> tuple[dict[str, Any], str]:
    for _ in range(ATTEMPTS):
        answer, body = guard.exchange(target, "POST", f"/v1/{task}", picture.data, "image/jpeg")
        if answer.status == 200:
            return scenarios.golden_of(body)
    raise LoadTestError(f"{target.url}/v1/{task} answers {answer.status} to {picture.name} at rest: {body[:200]!r}")


def _models(target: Target) -> list[dict[str, Any]]:
    try:
        models: list[dict[str, Any]] = json.loads(guard.fetch(target, "/v1/models"))["models"]
    except (LoadTestError, ValueError, KeyError, TypeError):
        return []
    return models


def _surprises(
    golden: Mapping[str, Mapping[int, dict[str, Any]]],
    digests: Mapping[str, str],
    models: Sequence[Mapping[str, Any]],
    pictures: Sequence[Picture],
) -> list[str]:
    """Where the demonstration model, whose pictures we know, does not see at rest what is in them."""
    shown = {model["digest"] for model in models if model.get("demonstration") and not model.get("random_weights")}
    if digests.get("classify") not in shown:
        return []
    found = []
    for number, result in golden["classify"].items():
        best, truth = result["predictions"][0]["label"], pictures[number].truth
        if truth and best != truth:
            found.append(f"{pictures[number].name} is a {truth}; at rest the answer is {best}")
    return found
