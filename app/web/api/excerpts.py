"""What a caller sent, as words of our answer: cut short, and always text that can be encoded."""

from __future__ import annotations

from pydantic import ValidationError

from app.inference import options
from app.texts import Text

MAX_CHARACTERS = 80
MAX_PLACE_CHARACTERS = 120


def shown(text: str, most: int = MAX_CHARACTERS) -> str:
    """The beginning of a text. Half a surrogate pair, which JSON may hold, becomes a question mark."""
    return text[:most].encode("utf-8", "replace").decode()


def first_fault(error: ValidationError, whole: str) -> Text:
    """Where the first fault is and what it is, as one sentence. ``whole`` names the document where it is all of it."""
    first = error.errors(include_url=False)[0]
    # Keys may be in any script; a place is shown in plain letters.
    place = ".".join(str(part) for part in first["loc"]).encode("ascii", "replace").decode()[:MAX_PLACE_CHARACTERS]
    return Text("%(place)s: %(reason)s.", place=place or whole, reason=options.fault(first))
