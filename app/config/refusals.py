"""What is said of a setting that is refused: the value, where it stands, what was expected. One line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from app.config.schema import DECLARATIONS, Settings
from app.errors import SettingsError

DOCUMENT = "docs/configuration.md"
MASK = "********"
# The value of a misspelt name is not printed when the name sounds like this.
SECRET_SOUNDING = re.compile(r"SECRET|PASSW|TOKEN|CREDENTIAL|PRIVATE|(^|_)(KEYS?|PASS|DSN|AUTH)(_|$)")


def refuse(settings: Settings, field: str, expected: str) -> NoReturn:
    refuse_value(field, settings.text(field), settings.sources[field], expected)


def refuse_value(field: str, value: str, source: str, expected: str = "") -> NoReturn:
    one = DECLARATIONS[field]
    wrong = next((part for part in value.split(",") if part.strip() not in one.choices), value)
    found = f"{shown(one.name, value)} ({_place(source)})" if value else "not set"
    raise SettingsError(
        f"{one.name} is {found}; expected {expected or one.expected}.{did_you_mean(wrong, one.choices)}"
    )


def refuse_name(name: str, value: str, source: str) -> NoReturn:
    known = [one.name for one in DECLARATIONS.values()]
    raise SettingsError(
        f"{name} is {shown(name, value)} ({_place(source)}), but there is no such setting; expected a name"
        f" from {DOCUMENT}.{did_you_mean(name, known)}"
    )


def did_you_mean(given: str, choices: Sequence[str]) -> str:
    """`` Did you mean 'prod'?``, or nothing where no choice is near."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(given.lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean {folded[close[0]]!r}?" if close and given not in choices else ""


def _place(source: str) -> str:
    return {"environment": "from the environment", "default": "by default"}.get(source, f"from {source}")


def shown(name: str, value: str) -> str:
    """The value for a message, masked if it is secret or might be."""
    one = DECLARATIONS.get(name.lower())
    if one.is_secret if one else SECRET_SOUNDING.search(name):
        return MASK
    return repr(value if len(value) <= 80 else value[:79] + "…")
