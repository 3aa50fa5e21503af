"""What one address promises, written beside its view. Costs nothing while a request is answered. A leaf."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import CaskError
from app.model_code import schema_marks
from app.web import policy as policies
from app.web.policy import RoutePolicy

if TYPE_CHECKING:
    from flask import Blueprint, Flask
    from werkzeug.routing import Rule

View = TypeVar("View", bound=Callable[..., Any])

OTHERS = "Other addresses"
ATTRIBUTE = "cask_operation"
JSON = "application/json"
HTML = "text/html"

EXAMPLE_IMAGE = schema_marks.EXAMPLE_IMAGE
BINARY = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Body:
    """One form of the body of a request. ``schema``: a type that pydantic knows, or a JSON Schema.

    ``examples``: values that can be sent as they stand; for ``samples``, the names of sample pictures to send.
    """

    media_type: str
    schema: Any
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What comes with one status. ``schema``: a type that pydantic knows, a JSON Schema, or None for a text.

    An empty ``media_type``: nothing but headers.
    """

    description: str
    schema: Any = None
    media_type: str = JSON
    example: Any = None
    headers: tuple[str, ...] = ()
    is_binary_too: bool = False


CONDITION = "If-None-Match"
UNCHANGED = Answer("The answer with that ETag is still the same.", headers=("ETag",))


@dataclass(frozen=True)
class Operation:
    """What an address promises. ``errors`` are those that its view raises; those of guards and Apache are added.

    ``query`` is a pydantic model of the options in the address; ``path`` explains the parts of the address in order.
    ``headers``: those that it understands besides the ones of every address.
    ``error_schema``: the shape of its own failures where that is not a problem document, with ``error_example``: one
    of a failure and a request id.
    """

    tag: str
    summary: str
    answers: Mapping[int, Answer]
    bodies: tuple[Body, ...] = ()
    errors: tuple[type[CaskError], ...] = ()
    query: Any = None
    path: Mapping[str, str] = field(default_factory=dict)
    error_schema: Any = None
    error_example: Callable[[CaskError, str], Any] | None = None
    is_body_required: bool = True
    headers: tuple[str, ...] = ()


def describe(
    summary: str = "", answer: Answer | None = None, *, policy: RoutePolicy | None = None, **promises: Any
) -> Callable[[View], View]:
    """Note what a view promises, and its policy if it has one; the view itself is given back as it is.

    ``answer`` comes with 200; ``promises`` are those of ``Operation``. A view that promises nothing is in the
    description with what its blueprint, its route and its docstring say. Raises TypeError for a promise of another name
    or type, and ValueError where the view has a policy already, when the module is imported.
    """
    fault = _fault(summary, answer, policy, promises)

    def note(view: View) -> View:
        if fault:
            raise TypeError(f"{policies.place(view)}@describe {fault}.")
        if policy is not None:
            if policies.on(view) not in (policies.GUARDED_ROUTE, policy):
                raise ValueError(
                    f"{policies.place(view)}@describe gives a policy to a view that has another one; expected one."
                )
            policies.put(view, policy)
        if summary:
            answers = ({200: answer} if answer else {}) | promises.get("answers", {})
            put(view, **{**promises, "summary": summary, "answers": answers})
        return view

    return note


def _fault(summary: Any, answer: Any, policy: Any, promises: Mapping[str, Any]) -> str:
    """What is wrong with the words of a view, before anybody asks for the description; empty when nothing is."""
    given = {"summary": summary, "answer": answer, "policy": policy, **promises}
    for name, value in given.items():
        if name not in PROMISED:
            return f"has {name!r}; expected promises among {', '.join(sorted(PROMISED))}"
        words, fits = PROMISED[name]
        if not fits(value):
            return f"has {name} = {value!r}; expected {words}"
    if not summary and (answer or promises):
        return "has promises without a summary; expected its words first"
    return ""


def _each(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(isinstance(each, kind) for each in value)


def _is_errors(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, type) and issubclass(each, CaskError) for each in value)


def _is_answers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(status, int) and 200 <= status <= 599 and isinstance(answer, Answer)
        for status, answer in value.items()
    )


# What a view may promise → what it is to be, in words and as a test.
PROMISED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "summary": ("a text", lambda value: isinstance(value, str)),
    "answer": ("an Answer", lambda value: value is None or isinstance(value, Answer)),
    "policy": ("a RoutePolicy", lambda value: value is None or isinstance(value, RoutePolicy)),
    "tag": ("a text", lambda value: isinstance(value, str)),
    "answers": ("an Answer for each status from 200 to 599", _is_answers),
    "bodies": ("a tuple of Body", _each(Body)),
    "errors": ("a tuple of subclasses of CaskError", _is_errors),
    "query": ("a pydantic model", lambda value: value is None or hasattr(value, "model_json_schema")),
    "path": ("words for each part of the address", lambda value: isinstance(value, Mapping)),
    "error_schema": ("a type", lambda value: True),
    "error_example": ("a function", lambda value: value is None or callable(value)),
    "is_body_required": ("True or False", lambda value: isinstance(value, bool)),
    "headers": ("a tuple of names", _each(str)),
}


def put(holder: Callable[..., Any] | Blueprint, **promises: Any) -> None:
    """Note what a view promises, or what all views of a blueprint do that do not say otherwise."""
    setattr(holder, ATTRIBUTE, promises)


def an_object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """A JSON Schema of an object without other keys."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def an_open_object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """A JSON Schema of an object in which clients add keys of their own, which are ignored."""
    return {"type": "object", "properties": properties, "required": list(required)}


def a_list(schema: dict[str, Any], limit: str = "") -> dict[str, Any]:
    """A JSON Schema of a list that is not empty. ``limit``: the setting that bounds it; the document has its value."""
    return {"type": "array", "items": schema, "minItems": 1, **({"maxItems": limit} if limit else {})}


def a_page(words: str) -> Answer:
    """An answer that a browser shows."""
    return Answer(words, media_type=HTML)


def of(app: Flask, rule: Rule) -> Operation:
    """What an address promises. Where nobody has written it: its blueprint's name, and what its hint says."""
    blueprint, _, name = rule.endpoint.rpartition(".")
    own = getattr(app.view_functions[rule.endpoint], ATTRIBUTE, None)
    if own is None:
        answer = _hinted(app.view_functions[rule.endpoint])
        return Operation(blueprint or OTHERS, name.replace("_", " ").capitalize(), {200: answer})
    return Operation(**{"tag": blueprint or OTHERS, **getattr(app.blueprints.get(blueprint), ATTRIBUTE, {}), **own})


def _hinted(view: Callable[..., Any]) -> Answer:
    """What the hint of a view says that it returns. No hint breaks the description."""
    words = "Its answer."
    try:
        hint = typing.get_type_hints(view).get("return")
        if hint is str:
            return Answer(words, media_type=HTML)
        if hint is None or hint is Any:
            return Answer(words)
        if sys.version_info < (3, 12) and typing.is_typeddict(hint):
            # pydantic cannot read that of the standard library before Python 3.12.
            return Answer(words, schema={"type": "object"})
        from pydantic import TypeAdapter

        TypeAdapter(hint).json_schema()
    except Exception:  # noqa: BLE001 - a hint may be anything: a name that is not there, a Response
        return Answer(words)
    return Answer(words, schema=hint)
