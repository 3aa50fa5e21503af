"""What a caller sent, as words of our answer: cut short, and always text that can be encoded."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.errors import CaskError
from app.inference import options
from app.texts import Text

Kind = TypeVar("Kind", bound=BaseModel)

MAX_CHARACTERS = 80
MAX_PLACE_CHARACTERS = 120


def shown(text: str, most: int = MAX_CHARACTERS) -> str:
    """The beginning of a text. Half a surrogate pair, which JSON may hold, becomes a question mark."""
    return text[:most].encode("utf-8", "replace").decode()


def fitting(
    kind: type[Kind], given: Any, whole: str, failure: type[CaskError], *, hint: str = "", **values: Any
) -> Kind:
    """What was given, as this type. ``whole``: its name in a sentence. Raises ``failure`` with the first fault.

    ``hint`` and ``values``: as of ``CaskError``.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise failure(first_fault(error, whole), hint=hint, **values) from None


def first_fault(error: ValidationError, whole: str) -> Text:
    """Where the first fault is and what it is, as one sentence. ``whole`` names the document where it is all of it."""
    first = error.errors(include_url=False)[0]
    # Keys may be in any script; a place is shown in plain letters.
    place = ".".join(str(part) for part in first["loc"]).encode("ascii", "replace").decode()[:MAX_PLACE_CHARACTERS]
    return Text("%(place)s: %(reason)s.", place=place or whole, reason=options.fault(first))
