"""The language of an answer's words: what the caller asks for with Accept-Language, else English.

Texts find their words in the catalogues of ``app/translations`` by their id, numbers in them are written as the
language does. Nothing is looked up for an answer in English, nor for one without words of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from gettext import GNUTranslations
from pathlib import Path

from flask import Response, request
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from app.texts import Text, Value

DEFAULT = "en"
# Each in its own words, so that its readers find it.
NAMES = {"en": "English", "de": "Deutsch"}
MOST_CHARACTERS = 500
FOLDER = Path(__file__).resolve().parents[2] / "translations"
# ``%(name)s``, ``%(seconds).1f`` and ``%%``.
PLACEHOLDER = re.compile(r"%\((?P<name>\w+)\)(?:\.(?P<digits>\d+))?(?P<kind>[a-z])|%%")


@lru_cache(maxsize=256)
def accepted(header: str) -> str:
    """The language of ours that an Accept-Language asks for most; English where it asks for none, or for each alike.

    As RFC 9110 says: ``*`` is what the header does not name, so ``en;q=0, *`` asks for German. A region
    counts as its language, but ``en-US;q=0`` refuses only that region.
    """
    # Beyond that nobody speaks so many languages, and a refusal would cost twenty times as much.
    tags = parse_accept_header(header[:MOST_CHARACTERS], LanguageAccept) if header else ()
    wanted: dict[str, float] = {}
    # By quality, as werkzeug puts ``*`` last whatever its quality. Its best_match takes an exact name first, so English
    # before German where de-AT is asked for, then en.
    for tag, quality in sorted(tags, key=lambda each: -each[1]):
        name = re.split("[-_]", tag)[0].lower()
        if quality > 0 or name == tag.lower():
            wanted.setdefault(name, quality)
    others = wanted.get("*", 0)
    # The first of several alike: as the header names them, then as NAMES does.
    names = dict.fromkeys((*(name for name in wanted if name in NAMES and wanted[name] > others), *NAMES))
    best = max(names, key=lambda name: wanted.get(name, others))
    return best if wanted.get(best, others) > 0 else DEFAULT


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
