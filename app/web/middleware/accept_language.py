"""The language of an answer's words: what the caller asks for with Accept-Language, else English.

Texts find their words in the catalogues of ``app/translations`` by their id, numbers in them are written as the
language does. Nothing is looked up for an answer in English, nor for one without words of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from gettext import GNUTranslations
from pathlib import Path

from flask import Response, request
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from app.texts import Text, Value

DEFAULT = "en"
# Each in its own words, so that its readers find it.
NAMES = {"en": "English", "de": "Deutsch"}
FOLDER = Path(__file__).resolve().parents[2] / "translations"
# ``%(name)s``, ``%(seconds).1f`` and ``%%``.
PLACEHOLDER = re.compile(r"%\((?P<name>\w+)\)(?:\.(?P<digits>\d+))?(?P<kind>[a-z])|%%")


def accepted(header: str) -> str:
    """The first language of an Accept-Language that we have, by its quality; English for none and for ``*``."""
    tags = parse_accept_header(header, LanguageAccept) if header else ()
    # Werkzeug's best_match takes an exact name first, so English before German where de-AT is asked for, then en; and
    # it puts ``*`` last, whatever its quality.
    best = sorted((each for each in tags if each[1] > 0), key=lambda each: -each[1])
    names = (re.split("[-_]", tag)[0].lower() for tag, _ in best)
    return next((name for name in names if name in NAMES or name == "*"), DEFAULT).replace("*", DEFAULT)


def asked() -> str:
    """The language that the current request asks for with Accept-Language."""
    return accepted(request.headers.get("Accept-Language", ""))


def speaker(language: str) -> Callable[[str], str]:
    """Says a text in this language."""
    return str if language == DEFAULT else lambda text: say(text, language)


def headers(language: str) -> dict[str, str]:
    """What tells caches and callers that an answer's words are in this language, and would be in another."""
    return {"Content-Language": language, "Vary": "Accept-Language"}


def mark(response: Response, language: str) -> Response:
    """The response with these headers."""
    response.content_language.add(language)
    response.vary.add("Accept-Language")
    return response


def say(text: str, language: str) -> str:
    """The words of a text in a language; in English where nobody has translated them, as a plugin's or a library's."""
    if language == DEFAULT or not text:
        return str(text)
    id, values = (text.id, text.values) if isinstance(text, Text) else (text, {})
    words = _catalogue(language).gettext(id) if id else ""
    if not values:
        return words

    def place(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        return _written(values.get(found["name"], found[0]), found["digits"], found["kind"], language)

    return PLACEHOLDER.sub(place, words)


def _written(value: Value, digits: str | None, kind: str, language: str) -> str:
    if isinstance(value, str):
        return say(value, language) if isinstance(value, Text) else value
    if isinstance(value, bool):
        return str(value)
    # Only here, for processes that hardly ever say a number in another language.
    from babel import numbers

    # As many digits as the English has: exactly so many for %.1f, and those that there are for %g and %s.
    behind = "." + "0" * int(digits) if digits and int(digits) else "" if kind == "f" else ".######"
    return numbers.format_decimal(value, "#,##0" + behind, locale=language)


@cache
def _catalogue(language: str) -> GNUTranslations:
    with (FOLDER / language / "LC_MESSAGES" / "messages.mo").open("rb") as file:
        return GNUTranslations(file)
