"""Ask the target at rest: what scenarios set up, which models answer, whether each gets through. Before the load."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest import guard
from loadtest.guard import Target
from loadtest.outcomes import REFUSALS, Outcome
from loadtest.scenario import Scenario
from loadtest.scenarios import Caller
from loadtest.statuses import LoadTestError, Status, UsageError
from loadtest.turns import Answer, Request, Turn, said_of, to_request

FILE_NAME = "reference.json"
# A busy target may refuse a question at rest; more than this and it is not at rest.
ATTEMPTS = 5
REST_SECONDS = 60.0
REST_PERIOD_SECONDS = 0.2


class WrongAtRestError(LoadTestError):
    """An answer was wrong before there was any load."""

    status = Status.FAIL


@dataclass(frozen=True)
class Reference:
    """What was found at rest. ``known``: by group of scenarios, what they set up; ``models``: rows of /v1/models."""

    known: dict[str, Any]
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def digests(self) -> dict[str, str]:
        """Task → digest of the model that answers it."""
        return {group: told["digest"] for group, told in self._of_tasks()}

    @property
    def surprises(self) -> list[str]:
        """Answers of ours that were wrong at rest."""
        return [each for _, told in self._of_tasks() for each in told["surprises"]]

    def _of_tasks(self) -> list[tuple[str, Any]]:
        return [(name, told) for name, told in self.known.items() if isinstance(told, dict) and "golden" in told]

    def write(self, folder: Path) -> None:
        """Leave it where the workers find it, for nobody else: a setup may have signed in."""
        path = folder / FILE_NAME
        path.touch(0o600)
        path.write_text(json.dumps(asdict(self)))


def read(folder: Path) -> Reference:
    """What :meth:`Reference.write` left."""
    return Reference(**json.loads((folder / FILE_NAME).read_text()))


def tasks_of(models: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """The tasks of these models; None where they do not tell."""
    return tuple(dict.fromkeys(str(each["task"]) for each in models if each.get("task"))) or None


def models_of(target: Target) -> list[dict[str, Any]]:
    """Rows of /v1/models; none where it does not tell."""
    models: list[dict[str, Any]] = guard.told(target, "/v1/models").get("models", [])
    return models


def take(
    target: Target, scenarios: Sequence[Scenario], models: Sequence[dict[str, Any]] = (), *, patience: float = 30.0
) -> Reference:
    """Set up each group once, then send a request of each scenario of a file, alone.

    Raises LoadTestError where one fails, WrongAtRestError where an answer is wrong, UsageError where a scenario raises.
    """
    known: dict[str, Any] = {}
    for each in scenarios:
        if each.group not in known:
            known[each.group] = _set_up(target, each) if each.setup else None
    caller = Caller(scenarios, [1.0] * len(scenarios), known, token=target.token, patience_seconds=patience)
    failed: list[LoadTestError] = []
    for index in range(len(scenarios)):
        try:
            rehearse(target, caller, index)
        except LoadTestError as error:
            failed.append(error)
    if failed:
        raise type(failed[0])("\n".join(map(str, failed)))
    return Reference(known, list(models))


def _set_up(target: Target, scenario: Scenario) -> Any:
    def ask(asked: Request | dict[str, Any]) -> Answer:
        turn = Turn(scenario, 0, 0, None, None, target.token, prefix=target.prefix)  # type: ignore[arg-type]
        request = asked if isinstance(asked, Request) else to_request(asked, turn)
        for _ in range(ATTEMPTS):
            status, headers, body = _exchange(target, request)
            if status in request.status:
                return Answer(status, headers, body, asked, turn)
            if status < 500 and status not in REFUSALS:
                break
        where = f"{target.url}{request.path}"
        raise LoadTestError(f"{where} answers {status} at rest, to the setup of {scenario.name}: {body[:200]!r}")

    assert scenario.setup
    try:
        told = scenario.setup(ask)
        json.dumps(told)
    except LoadTestError:
        raise
    except Exception as error:  # noqa: BLE001 - reported as a fault of the scenario
        said = said_of(error)
        raise UsageError(f"The setup of {scenario.name} raised: {said}; expected what JSON can hold.") from None
    return told


def rehearse(target: Target, caller: Caller, index: int) -> None:
    """One turn of a scenario at rest. Of ours only its request is made: its answers were had by the setup."""
    scenario = caller.scenarios[index]
    if not scenario.request:
        return
    outcome, words = Outcome.REFUSED, ""
    for _ in range(ATTEMPTS):
        turn = caller.turn(index)
        if turn.error:
            raise UsageError(f"request() of {scenario.name} raised: {turn.error}")
        if not scenario.source:
            return
        outcome, words, _ = turn.perform(lambda request: _exchange(target, request))
        for request in turn.afterwards:
            _exchange(target, request)
        if outcome != Outcome.REFUSED:
            break
    if outcome in (Outcome.WRONG, Outcome.MIXED_UP):
        raise WrongAtRestError(f"{scenario.name}, before any load: {words}. See {scenario.source}.")
    if outcome != Outcome.RIGHT:
        raise LoadTestError(
            f"{scenario.name} gets no answer at rest: {words or 'it was refused'}. See {scenario.source}."
        )


def _exchange(target: Target, request: Request) -> tuple[int, Mapping[str, str], bytes]:
    answer, body = guard.exchange(target, request.method, request.path, request.body or None, request.headers)
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def wait_until_at_rest(target: Target, caller: Caller | None = None) -> None:
    """Return when nothing waits in the engine any more, so that one run's backlog is not the next one's latency.

    ``caller``: of a service that does not tell; there a turn of each scenario is answered: what waited before it, was.
    """
    if caller:
        for index in range(len(caller.scenarios)):
            rehearse(target, caller, index)
        return
    end = time.monotonic() + REST_SECONDS
    while time.monotonic() < end:
        status = guard.told(target, "/status")
        engine = status.get("engine", {})
        if status and not engine.get("waiting") and not engine.get("busy_workers"):
            return
        time.sleep(REST_PERIOD_SECONDS)
    raise LoadTestError(f"{target.url} does not come to rest within {REST_SECONDS:g} s; somebody else loads it.")
