"""POST /v1/ensemble: several models, and other services, asked at the same time; their answers made into one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

from flask import Response, current_app, jsonify, request
from pydantic import ConfigDict, Field, create_model
from typing_extensions import TypedDict

from app import tasks
from app.ensembles.ensemble import Ensemble, EnsembleFailedError, EnsembleUnavailableError, Member, Votes
from app.ensembles.upstream_answers import Opinion
from app.ensembles.upstreams import HOP_HEADER
from app.errors import CaskError, DeadlineExceededError, OptionError
from app.inference import options
from app.inference.pipeline import Outcome, predictor
from app.models.manifests import Task
from app.plain_numbers import PlainNumbers
from app.tasks.base import ModelIdentity, Side
from app.texts import Text
from app.web.api import answers, api, bodies, excerpts, prediction_docs
from app.web.middleware import canary_header, deadlines, request_ids
from app.web.middleware.request_context import DetachedContext
from app.web.openapi.operations import Answer, describe
from app.web.policy import PREDICTING_ROUTE

EXTENSION = "ensemble"
# What is said here and not to the members.
OWN = ("task", "members", "merge", "merge_iou", "member_timeout")
# members says whom to ask, and a single model explains.
NOT_HERE = ("model", "version", "explain", "explain_label")
MEMBERS = r"[A-Za-z0-9@._,\- ]{1,1000}"


class EnsembleLoopError(CaskError):
    """The request comes from an ensemble already, and would go round in circles."""

    code = "ensemble_loop"
    status = 508
    title = "Ensembles ask each other"


class EnsembleParams(PlainNumbers):
    """Options of POST /v1/ensemble, besides those of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: tasks.MergedName = Field(tasks.MERGED[0].name, description="What all members are asked.")
    members: Annotated[str, Field(pattern=f"^{MEMBERS}$")] | None = Field(
        None, description="Whom to ask: models as `name` or `name@version`, other services by name; all when left out."
    )
    merge: Literal["fusion", "suppression"] = Field(
        "fusion", description="Boxes: `fusion` makes one of those that overlap, `suppression` keeps the best."
    )
    merge_iou: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.55, description="Boxes of different members that overlap more than this are one object."
    )
    member_timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = Field(
        None, description="Seconds that each member has."
    )


def _all_wishes() -> type[EnsembleParams]:
    """Those of every task as well, for the description."""
    found: dict[str, Any] = {}
    for task in tasks.MERGED:
        for name, field in task.params.model_fields.items():
            if name not in (*NOT_HERE, *found):
                named = copy(field)
                named.description = f"{task.name}: {field.description}"
                found[name] = (field.annotation, named)
    return create_model("AllWishes", __base__=EnsembleParams, **found)


AllEnsembleParams = _all_wishes()


class AnsweredMember(TypedDict):
    """A member that answered, and how long it took."""

    name: str
    kind: Literal["model", "upstream"]
    model: ModelIdentity
    milliseconds: float


class MissingMember(TypedDict):
    """A member that did not answer, and why: the code and the words of its failure."""

    name: str
    kind: Literal["model", "upstream"]
    code: str
    reason: str


if TYPE_CHECKING:
    MergedImage = dict[str, Any]
else:
    MergedImage = prediction_docs.typed_dict(
        "MergedImage",
        f"One image: {' or '.join(f'`{task.rows}`' for task in tasks.MERGED)}, as the task has it.",
        {
            "width": Side,
            "height": Side,
            **{
                key: get_type_hints(task.image, include_extras=True)[key]
                for task in tasks.MERGED
                for key in (task.rows, *task.beside)
            },
        },
        total=False,
    )


class EnsembleAnswer(TypedDict):
    """What those who answered say together; ``results`` are in the order of the images."""

    task: tasks.MergedName
    members: list[AnsweredMember]
    missing: list[MissingMember]
    results: list[MergedImage]
    request_id: str


_FIRST = tasks.MERGED[0]
_MODEL = _FIRST.example["model"]
EXAMPLE = {
    "task": _FIRST.name,
    "members": [{"name": _MODEL["name"], "kind": "model", "model": _MODEL, "milliseconds": 26.4}],
    "missing": [
        {"name": "north", "kind": "upstream", "code": "deadline_exceeded", "reason": "north did not answer in time."}
    ],
    "results": _FIRST.example["results"],
    "request_id": _FIRST.example["request_id"],
}


@api.post("/ensemble")
@describe(
    "Ask several models at once",
    Answer(
        "One answer from all that came in time; `missing` names the others.",
        EnsembleAnswer,
        example=EXAMPLE,
        headers=("Server-Timing",),
    ),
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    query=AllEnsembleParams,
    bodies=prediction_docs.bodies(AllEnsembleParams),
    errors=(*prediction_docs.PREDICTION_ERRORS, EnsembleFailedError, EnsembleUnavailableError, EnsembleLoopError),
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
)
def ensemble() -> Response:
    """Ask several models and other services at the same time, and make one answer of theirs."""
    if HOP_HEADER in request.headers:
        raise EnsembleLoopError(
            "This request was made by an ensemble.",
            hint="Ask one of its members; the operator of this service chose whom it asks.",
        )
    images, raw = bodies.read(request)
    params, of_task = _split(raw)
    predictor().check_count(len(images))
    members = _members(params, of_task, images)
    began = time.monotonic()
    seconds = params.member_timeout or _ensemble().timeout_seconds
    votes = _ensemble().fan_out.ask(members, min(deadlines.current(), began + seconds))
    response = jsonify(_document(votes, params, of_task, len(images)))
    response.headers["Server-Timing"] = answers.server_timing({"members": (time.monotonic() - began) * 1000})
    return response


def _ensemble() -> Ensemble:
    found: Ensemble = current_app.extensions[EXTENSION]
    return found


# ── what was asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def _split(raw: Mapping[str, Any]) -> tuple[EnsembleParams, options.TaskParams]:
    """Our own params, and those for the members. Raises OptionError."""
    own = {name: value for name, value in raw.items() if name in OWN and value not in ("", None)}
    params = excerpts.fitting(EnsembleParams, own, Text("The options"), OptionError, hint="GET /docs shows them.")
    rest = {name: value for name, value in raw.items() if name not in OWN}
    for name in NOT_HERE:
        if name in rest:
            raise OptionError(
                "%(name)s is no option of an ensemble.",
                hint="members says whom to ask, and a single model explains.",
                name=name,
            )
    return params, options.parse(params.task, rest, OWN, NOT_HERE)


def _members(params: EnsembleParams, of_task: options.TaskParams, images: Sequence[bytes]) -> list[Member]:
    """Those that were named, each once, else all. Raises OptionError, ModelNotFoundError."""
    upstreams = _ensemble().upstreams
    models = [manifest for manifest in predictor().manifests if manifest.task == params.task]
    named = [part.strip() for part in (params.members or "").split(",") if part.strip()]
    names = list(dict.fromkeys(named)) or [*(each.name for each in models), *upstreams]
    given = tasks.BY_NAME[params.task].member_params(of_task)
    found = []
    for name in names:
        if name in upstreams:
            ask = partial(upstreams[name].predict, params.task, images, given, request_id=request_ids.current())
            found.append(Member(name, "upstream", ask))
        else:
            _check(params.task, name, [*(each.name for each in models), *upstreams])
            # The thread that asks knows neither app nor request.
            predict = partial(predictor().predict, caller=DetachedContext.of_request())
            ask = partial(_ask_model, predict, name, params.task, images, given)
            found.append(Member(name, "model", ask))
    if not found:
        raise OptionError(
            "There is nobody here to %(task)s.", hint="GET /v1/models lists the models.", task=params.task
        )
    return found


def _check(task: Task, name: str, there: Sequence[str]) -> None:
    """Raises OptionError for a name that nobody here has."""
    model, _, version = name.partition("@")
    try:
        predictor().find(task, model, version or None)
    except CaskError:
        raise OptionError(
            "members names %(name)s, which is neither a model for %(task)s nor another service.",
            hint="There are: %(names)s.",
            name=repr(excerpts.shown(name)),
            task=task,
            names=", ".join(there),
        ) from None


def _ask_model(
    predict: Callable[..., Outcome],
    name: str,
    task: Task,
    images: Sequence[bytes],
    given: Mapping[str, Any],
    deadline: float,
) -> Opinion:
    model, _, version = name.partition("@")
    outcome = predict(task, images, given, model=model, version=version or None, deadline=deadline)
    results = [(result.width, result.height, result.answer) for result in outcome.results]
    return Opinion(cast(dict[str, str], answers.model_identity(outcome.manifest)), results)


# ── what is answered ──────────────────────────────────────────────────────────────────────────────────────────────────


def _document(votes: Votes, params: EnsembleParams, of_task: options.TaskParams, images: int) -> dict[str, Any]:
    return {
        "task": params.task,
        "members": [
            {
                "name": each.member.name,
                "kind": each.member.kind,
                "model": each.opinion.model,
                "milliseconds": round(each.milliseconds, 2),
            }
            for each in votes.answered
        ],
        "missing": [
            {
                "name": each.member.name,
                "kind": each.member.kind,
                "code": each.error.code,
                "reason": excerpts.shown(each.error.message, 300),
            }
            for each in votes.missing
        ],
        "results": [_merged(votes, params, of_task, number, images) for number in range(images)],
        "request_id": request_ids.current(),
    }


def _merged(
    votes: Votes, params: EnsembleParams, of_task: options.TaskParams, number: int, images: int
) -> dict[str, Any]:
    """One image. All members see the same upright image, so the first one's word on its size is enough.

    Raises DeadlineExceededError.
    """
    if time.monotonic() > deadlines.current():
        raise DeadlineExceededError(
            "The deadline passed before the answers for image %(number)s of %(count)s were merged.",
            hint="Allow more time with X-Request-Timeout, or ask for fewer boxes with max_results or score_threshold.",
            number=number + 1,
            count=images,
        )
    of_image = [each.opinion.results[number] for each in votes.answered]
    given: list[Any] = [answer for _, _, answer in of_image]
    size = {"width": of_image[0][0], "height": of_image[0][1]}
    task = tasks.BY_NAME[params.task]
    return {**size, **task.result(task.merged(given, of_task, params.merge, params.merge_iou))}
