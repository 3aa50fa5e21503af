"""What is said to people, as a value: the English words with the id and the values by which others are found. A leaf.

The id is the English sentence as it stands in the code, with ``%(name)s`` for each value; the catalogues of
``app/translations`` are looked up by it where an answer is written (``accept_language.py``). Everybody else sees a
string in English: logs, operators, and callers who ask for no other language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Numbers stay numbers, so that they are written as the reader writes them; a value may itself be a text.
Value = str | int | float


class Text(str):
    """English words that know their ``id`` and their ``values``; without values the words are the id.

    What does not fit its values is shown as it is: a failure to say something must not hide what failed.
    """

    __slots__ = ("id", "values")
    id: str
    values: Mapping[str, Value]

    def __new__(cls, id: str, /, **values: object) -> Text:
        """``id`` is formatted as by ``%``, where there are values."""
        known = {name: value if isinstance(value, Value) else str(value) for name, value in values.items()}
        text = super().__new__(cls, _filled(id, known) if known else id)
        text.id, text.values = id, known
        return text


def gettext_noop(words: str) -> str:
    """The same words; ``make translations`` finds them by this name."""
    return words


def worded(words: str, values: Mapping[str, object]) -> Text:
    """The text of these words; one that has its values already stays as it is."""
    return words if isinstance(words, Text) else Text(words, **values)


def packed(text: str) -> dict[str, Any] | str:
    """For JSON, to another process or to the disk: words without values stay a string. ``unpacked`` reads it."""
    if not isinstance(text, Text) or not text.values:
        return str(text)
    values = {name: packed(value) if isinstance(value, str) else value for name, value in text.values.items()}
    return {"id": text.id, "values": values}


def unpacked(said: Any) -> Text:
    """What ``packed`` made. Whatever else it is, such as what an older release wrote, becomes words without values."""
    if not isinstance(said, dict) or not isinstance(said.get("values"), dict):
        return Text(str(said))
    values = {
        name: unpacked(value) if isinstance(value, str | dict) else value for name, value in said["values"].items()
    }
    return Text(str(said.get("id", "")), **values)


def _filled(words: str, values: Mapping[str, Value]) -> str:
    try:
        return words % values
    except (KeyError, TypeError, ValueError):
        return words
