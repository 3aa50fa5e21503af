"""What one address promises, written beside its view. Costs nothing while a request is answered. A leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import CaskError
from app.web import policy as policies
from app.web.policy import RoutePolicy

if TYPE_CHECKING:
    from werkzeug.routing import Rule

View = TypeVar("View", bound=Callable[..., Any])

OTHERS = "Other addresses"
ATTRIBUTE = "cask_operation"
JSON = "application/json"
HTML = "text/html"

# A picture of 8×8 pixels, so that examples in JSON can be sent as they stand.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mN8ViHHgA0wMeAAg1MCAC3HAYwwIk7yAAAAAElFTkSuQmCC"
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """One form of the body of a request. ``schema``: a type that pydantic knows, or a JSON Schema.

    ``examples``: values that can be sent as they stand; for ``samples``, the names of sample pictures to send.
    """

    media_type: str
    schema: Any
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
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
UNCHANGED = Answer(description="The answer with that ETag is still the same.", headers=("ETag",))


@dataclass(frozen=True, kw_only=True)
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


def describe(*, policy: RoutePolicy | None = None, **promises: Any) -> Callable[[View], View]:
    """Note what a view promises, and its policy if it has one; the view itself is given back as it is.

    A view that promises nothing is in the description with what its route and its docstring say.
    """

    def note(view: View) -> View:
        if policy is not None:
            policies.put(view, policy)
        if promises:
            setattr(view, ATTRIBUTE, Operation(**promises))
        return view

    return note


def unwritten(rule: Rule) -> Operation:
    """What is known of a view that promises nothing: its blueprint's name, and that it answers."""
    blueprint, _, name = rule.endpoint.rpartition(".")
    words = name.replace("_", " ").capitalize()
    return Operation(tag=blueprint or OTHERS, summary=words, answers={200: Answer(description="Its answer.")})


def of(view: Callable[..., Any]) -> Operation | None:
    """What a view promises; None where nobody has written it."""
    return getattr(view, ATTRIBUTE, None)
