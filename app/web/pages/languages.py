"""German and English: which of them a person reads, and numbers and moments as they write them.

Words are English in the code and in templates; ``app/translations/de`` holds the German ones, ``make translations``
keeps them up to date. What failures say is told by ``app/web/middleware/accept_language.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

from babel import numbers
from babel.dates import format_date
from babel.messages.pofile import read_po
from flask import Flask, has_request_context
from flask_babel import Babel, get_locale

from app.web.middleware import accept_language
from app.web.middleware.accept_language import DEFAULT, FOLDER, NAMES
from app.web.pages import preferences

__all__ = ["DEFAULT", "FOLDER", "NAMES"]
# The same in another language; for one and for several, where that differs.
Words = str | Sequence[str]


def init_app(app: Flask) -> None:
    """Let templates of this app speak the language of the request."""
    Babel(app, locale_selector=choose, default_translation_directories=str(FOLDER))
    app.jinja_env.filters.update(number=number, percent=percent, told=told)


def choose() -> str:
    """The chosen language, else the first that the browser names and we have. The answer then varies by both."""
    preferences.vary()
    return preferences.LANGUAGE.chosen() or accept_language.asked()


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
    """A text in the language of the answer; as it is where nobody has translated it."""
    return accept_language.say(text, current())


def script_words() -> dict[str, Words]:
    """What the page's script says itself: English → the language of the answer."""
    return _script_words(current())


@cache
def _script_words(language: str) -> dict[str, Words]:
    with (FOLDER / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        messages = [message for message in read_po(file) if message.id]
    there = (each for each in messages if any(path.startswith("app/static/js/") for path, _ in each.locations))
    words: dict[str, Words] = {}
    for each in there:
        words[each.id if isinstance(each.id, str) else each.id[0]] = each.string or ""
    return words


def _pattern(pattern: str, digits: int) -> str:
    return pattern.replace("0", "0." + "0" * digits) if digits else pattern
