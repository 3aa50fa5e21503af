"""German and English: which of them a person reads, and numbers and moments as they write them.

Words are English in the code and in templates; ``app/translations/de`` holds the German ones, ``make translations``
keeps them up to date. Nothing here is asked by the JSON API, whose words stay English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from babel import numbers
from babel.dates import format_date
from babel.messages.catalog import Message
from babel.messages.pofile import read_po
from flask import Flask, has_request_context, request
from flask_babel import Babel, get_locale, gettext

from app.pages import preferences, sentences

DEFAULT = "en"
# As each names itself, so that whoever reads it finds it.
NAMES = {"en": "English", "de": "Deutsch"}
FOLDER = Path(__file__).resolve().parents[1] / "translations"
# English → the same in another language; for one and for several, where that differs.
Words = dict[str, str | Sequence[str]]
PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


def init_app(app: Flask) -> None:
    """Let templates of this app speak the language of whoever asks."""
    Babel(app, locale_selector=choose, default_translation_directories=str(FOLDER))
    app.jinja_env.filters.update(number=number, percent=percent, told=told)


def choose() -> str:
    """The chosen language, else the first that the browser names and we have. The answer then varies by both."""
    preferences.vary()
    return preferences.LANGUAGE.chosen() or _accepted()


def _accepted() -> str:
    # Werkzeug's best_match takes an exact name first, so English before German where de-AT is asked for, then en.
    names = (re.split("[-_]", tag)[0].lower() for tag, quality in request.accept_languages if quality > 0)
    return next((name for name in names if name in NAMES), DEFAULT)


def current() -> str:
    """The language of the answer, such as ``de``; English outside a request."""
    return str(get_locale()) if has_request_context() else DEFAULT


def number(value: float, digits: int = 0) -> str:
    """``1,234.5`` or ``1.234,5``, with so many digits behind the point."""
    return numbers.format_decimal(value, _pattern("#,##0", digits), locale=current())


def percent(value: float, digits: int = 0) -> str:
    """A share of one for people: 0.973 is ``97%`` or ``97 %``."""
    pattern = numbers.Locale.parse(current()).percent_formats[None].pattern
    return numbers.format_percent(value, _pattern(pattern, digits), locale=current())


def moment(value: datetime) -> str:
    """``Nov 20, 2026, 20:42 UTC`` or ``20.11.2026, 20:42 UTC``."""
    there = value.astimezone(UTC)
    return f"{format_date(there, 'medium', locale=current())}, {there:%H:%M} UTC"


def told(text: str) -> str:
    """What the service says in English, in the language of the answer; as it is where nobody has translated it.

    Its sentences hold values (``The image has 0 bytes.``), so they are recognised by their pattern, see
    ``app/pages/sentences.py``.
    """
    if current() == DEFAULT or not text:
        return text
    if text in sentences.ALL:
        return gettext(text)
    for pattern, sentence in patterns():
        if found := pattern.fullmatch(text):
            return gettext(sentence, **{name: told(value) for name, value in found.groupdict().items()})
    return text


def script_words() -> dict[str, Words]:
    """What the page's script needs: ``own``, its own words, and ``told``, the service's sentences; English → other."""
    return _script_words(current())


@cache
def _script_words(language: str) -> dict[str, Words]:
    with (FOLDER / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        messages = [message for message in read_po(file) if message.id]
    return {"own": _words(messages, "app/static/js/"), "told": _words(messages, "app/pages/sentences.py")}


def _words(messages: Sequence[Message], place: str) -> Words:
    there = (each for each in messages if any(path.startswith(place) for path, _ in each.locations))
    return {each.id if isinstance(each.id, str) else each.id[0]: each.string or "" for each in there}


@cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    # The one with the most words of its own first: a value may hold anything.
    with_values = [each for each in sentences.ALL if PLACEHOLDER.search(each)]
    with_values.sort(key=lambda each: -len(PLACEHOLDER.sub("", each)))
    return [(_recognise(each), each) for each in with_values]


def _recognise(sentence: str) -> re.Pattern[str]:
    parts = PLACEHOLDER.split(sentence)
    parts[::2] = [re.escape(words.replace("%%", "%")) for words in parts[::2]]
    parts[1::2] = [f"(?P<{name}>.+?)" for name in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)


def _pattern(pattern: str, digits: int) -> str:
    return pattern.replace("0", "0." + "0" * digits) if digits else pattern
